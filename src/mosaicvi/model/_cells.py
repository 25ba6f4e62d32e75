"""Which cells a getter answers for, and their encoder inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mosaicvi._errors import RequestError
from mosaicvi.data import MosaicData, MultiDataset
from mosaicvi.model._inputs import encoder_inputs

if TYPE_CHECKING:
    from mosaicvi.module._build import ModuleSpec
    from mosaicvi.module._mosaic_module import MosaicModule


Indices = Sequence[int] | Sequence[bool] | np.ndarray | pd.Series
"""Row numbers of cells, or a mask over all cells; that of a Series goes by its index."""


@dataclass(frozen=True)
class PreparedData:
    """Cells of one MuData, ready for the network.

    Attributes
    ----------
    data
        Registered data.
    dataset
        Their minibatches, frozen projections included.
    """

    data: MosaicData
    dataset: MultiDataset


def name_keys(names: np.ndarray) -> np.ndarray:
    """Short keys of cell names, int64 ``(n_cells,)``, by which a saved split finds its cells."""
    digests = (hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


def prepare(data: MosaicData, spec: ModuleSpec, module: MosaicModule) -> PreparedData:
    """Project every modality once."""
    return PreparedData(
        data, MultiDataset(data, encoder_inputs(data, spec, module, name_keys(data.obs_names)))
    )


def select(data: MosaicData, indices: Indices | None) -> np.ndarray:
    """Row numbers of the selected cells, int64.

    Parameters
    ----------
    data
        Registered data.
    indices
        Row numbers, or a boolean mask over all cells; None: all cells. A Series of True and False
        goes by its index, which holds the cells' names in any order, or is 0, 1, 2 and so on.

    Raises
    ------
    RequestError
        If no cell is selected, a number is out of range, a mask has the wrong length or an index
        that lacks cells, there is more than one dimension, or names of cells are given.
    """
    if indices is None:
        return np.arange(data.n_cells)
    if isinstance(indices, pd.Series) and pd.api.types.is_bool_dtype(indices.dtype):
        indices = _by_name(indices, data)
    given = np.asarray(indices)
    if given.ndim > 1:
        raise RequestError(
            f"an array of {given.ndim} dimensions, {given.shape}",
            key="indices",
            expected="row numbers, or a mask over all cells, in one dimension",
            remedy="numpy.ravel(indices)",
        )
    if given.dtype == bool:
        if given.shape != (data.n_cells,):
            raise RequestError(
                f"a mask of {given.size} entries for {data.n_cells} cells",
                key="indices",
                expected="an entry for every cell of the MuData, or row numbers",
                remedy="mdata.obs_names.isin(cells), where cells are those of one modality",
            )
        given = np.flatnonzero(given)
    if given.size == 0:
        raise RequestError(
            "no cell selected", key="indices", expected="at least one cell; None: all of them"
        )
    if given.dtype.kind not in "iu":
        raise RequestError(
            f"found {type(given.flat[0]).__name__} values, the first {given.flat[0]!s}",
            key="indices",
            expected="row numbers, or a mask of True and False over all cells",
            remedy="for names of cells: mdata.obs_names.get_indexer(names)",
        )
    rows = given.astype(np.int64).ravel()
    if (rows < -data.n_cells).any() or (rows >= data.n_cells).any():
        raise RequestError(
            f"row numbers between {rows.min()} and {rows.max()}",
            key="indices",
            expected=f"numbers below {data.n_cells}",
        )
    return np.where(rows < 0, rows + data.n_cells, rows)


def _by_name(mask: pd.Series, data: MosaicData) -> pd.Series:
    """Mask in the order of the cells: tables of obs are often sorted, or of one modality."""
    cells = pd.Index(np.asarray(data.obs_names, dtype=str))
    index = mask.index
    if index.equals(cells) or index.equals(pd.RangeIndex(data.n_cells)):
        return mask
    named = index.astype(str)
    lacking = int((~cells.isin(named)).sum())
    if lacking or not named.is_unique:
        raise RequestError(
            f"a mask whose index lacks {lacking} of {data.n_cells} cells"
            if lacking
            else "a mask whose index names a cell twice",
            key="indices",
            expected="an index of the cells' names, each once",
            remedy="mask.reindex(mdata.obs_names, fill_value=False), or mask.to_numpy() where its "
            "order is that of the cells",
        )
    return mask.set_axis(named).reindex(cells)
