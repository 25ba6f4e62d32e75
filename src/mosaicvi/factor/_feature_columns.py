"""Which feature of a modality each feature of a MuData is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import DataError
from mosaicvi.data._structure import UPDATE

if TYPE_CHECKING:
    from mudata import MuData


def columns_of(mdata: MuData, name: str) -> np.ndarray:
    """Column of a modality for each feature of the MuData, from ``mdata.varmap``.

    Features of ``mdata.var`` are in an order of their own once those of a modality were reordered.

    Parameters
    ----------
    mdata
        The MuData.
    name
        The modality.

    Returns
    -------
    Shape ``(n_features,)``, int64, -1 where the feature is not of the modality.

    Raises
    ------
    DataError
        If the map is stale.
    """
    ours = mdata.mod[name].var_names.to_numpy().astype(str)
    # 1-based and unsigned, 0 for absent.
    given = mdata.varmap[name] if name in mdata.varmap else np.zeros(mdata.n_vars)
    columns = np.asarray(given).ravel().astype(np.int64) - 1
    held = np.flatnonzero(columns >= 0)
    if (
        len(columns) != mdata.n_vars
        or not np.array_equal(np.sort(columns[held]), np.arange(len(ours)))
        or (ours[columns[held]] != mdata.var_names.to_numpy().astype(str)[held]).any()
    ):
        raise DataError(
            "the map from features of the MuData to those of the modality is stale",
            modality=name,
            key="varmap",
            expected="mod.var_names[varmap - 1] == mdata.var_names",
            remedy=UPDATE,
        )
    return columns
