"""Groups of cells, each with a scale of its own for every factor."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import MosaicviWarning, RequestError
from mosaicvi.data import _columns
from mosaicvi.data._register import codes_of
from mosaicvi.data._structure import shown

if TYPE_CHECKING:
    from mudata import MuData

    from mosaicvi.data import MosaicData


def _labels(mdata: MuData, key: str, data: MosaicData) -> np.ndarray:
    rows = {name: part.rows for name, part in data.modalities.items() if part.present.any()}
    return _columns.labels(mdata, key, rows, option="groups")


def check_groups(mdata: MuData | None, key: str, data: MosaicData) -> tuple[str, ...]:
    """Names of the groups, sorted; warns of groups of one cell.

    Raises
    ------
    RequestError
        If ``key`` is no name.
    DataError
        If there is no such column.
    """
    if not isinstance(key, str):
        raise RequestError(
            f"found {key!r}",
            key="groups",
            expected="the name of one column",
            remedy="for groups by several columns, join these to one: "
            "mdata.obs['group'] = mdata.obs['a'].astype(str) + ' ' + mdata.obs['b'].astype(str)",
        )
    labels = _labels(mdata, key, data)
    names, counts = np.unique([label for label in labels if label is not None], return_counts=True)
    lonely = [str(name) for name, count in zip(names, counts, strict=True) if count == 1]
    if lonely:
        warnings.warn(
            f"{len(lonely)} of {len(names)} groups of {key!r} have one cell each, which says "
            f"nothing about their scales; these stay near the common one: {shown(lonely)}. "
            "Remedy: a coarser column.",
            MosaicviWarning,
            stacklevel=3,
        )
    return tuple(str(name) for name in names)


def cell_groups(mdata: MuData, key: str, data: MosaicData, names: tuple[str, ...]) -> np.ndarray:
    """Code of each cell's group, int64 ``(n_cells,)``, -1 where it is unknown."""
    return codes_of(_labels(mdata, key, data), names)
