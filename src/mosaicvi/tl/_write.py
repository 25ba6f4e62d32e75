"""Where tools write, and what they leave about themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi import _keys
from mosaicvi.__about__ import __version__
from mosaicvi._errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from mudata import MuData

    from mosaicvi.model import MosaicVI


def mudata_of(model: MosaicVI, adata: MuData | None) -> MuData:
    """Return the MuData that is asked about: the given one, or the model's."""
    mdata = model.adata if adata is None else adata
    if mdata is None:
        raise RequestError(
            "the model was loaded without data", key="adata", remedy="pass adata=mdata"
        )
    return mdata


def spread(values: np.ndarray, rows: np.ndarray, n_cells: int) -> np.ndarray:
    """Numbers of some cells in a column of all; NaN elsewhere, float64 ``(n_cells,)``."""
    column = np.full(n_cells, np.nan)
    column[rows] = values
    return column


def write(
    mdata: MuData,
    columns: Mapping[str, Any],
    *,
    tool: str,
    parameters: Mapping[str, Any],
    obsm: Mapping[str, pd.DataFrame] | None = None,
    copy: bool,
) -> MuData | None:
    """Write columns of cells, and the parameters to ``uns["mosaicvi"][tool]``.

    Returns
    -------
    A copy with them, or None where ``mdata`` itself was written to.
    """
    target = mdata.copy() if copy else mdata
    for key, values in columns.items():
        target.obs[key] = values
    for key, table in (obsm or {}).items():
        target.obsm[key] = table
    before = dict(target.uns.get(_keys.UNS, {}))
    target.uns[_keys.UNS] = {**before, tool: {**parameters, "version": __version__}}
    return target if copy else None
