"""Matrices on disk that can be read row by row: backed sparse data sets, dense arrays, dask."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from mosaicvi._errors import DataError
from mosaicvi.data._rows import Block, RowSource, runs, stack

if TYPE_CHECKING:
    from anndata import AnnData

ACCEPTED = (
    "a scipy sparse matrix or a numpy array in memory; on disk, CSR counts or a dense array in "
    ".h5mu or zarr (mosaicvi.read_lazy), or a dask array in chunks of rows"
)


class CompressedRows(RowSource):
    """CSR counts in an HDF5 file or a zarr store, as anndata writes them.

    Row starts are kept in memory (8 bytes a row); values and columns are read on demand.

    Parameters
    ----------
    group
        Group that holds ``data``, ``indices`` and ``indptr``.
    shape
        ``(n_rows, n_columns)``.
    """

    def __init__(self, group: Any, shape: tuple[int, int]) -> None:
        self._data, self._indices = group["data"], group["indices"]
        self._indptr = np.asarray(group["indptr"][:], dtype=np.int64)
        n_values = int(self._indptr[-1])
        token = (*_place(group), shape, n_values)
        super().__init__(shape, np.dtype(self._data.dtype), token)
        width = self._data.dtype.itemsize + self._indices.dtype.itemsize
        mean = n_values / max(shape[0], 1)
        self.row_bytes = mean * width
        chunk = self._data.chunks
        self.grain = max(1, int(chunk[0] / max(mean, 1.0))) if chunk else 1

    def read(self, start: int, stop: int) -> Block:
        """Rows from ``start`` up to ``stop``, CSR."""
        low, high = int(self._indptr[start]), int(self._indptr[stop])
        parts = (self._data[low:high], self._indices[low:high])
        indptr = self._indptr[start : stop + 1] - low
        return sp.csr_matrix((*parts, indptr), shape=(stop - start, self.shape[1]), copy=False)

    def take(self, rows: np.ndarray) -> Block:
        """Rows in ascending order, each once, gathered into arrays of the size that they need."""
        lengths = self._indptr[rows + 1] - self._indptr[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        data = np.empty(int(indptr[-1]), dtype=self.dtype)
        indices = np.empty(int(indptr[-1]), dtype=self._indices.dtype)
        for start, stop in runs(rows, self._gap, self._longest):
            low = int(self._indptr[rows[start]])
            high = int(self._indptr[rows[stop - 1] + 1])
            into = slice(int(indptr[start]), int(indptr[stop]))
            wanted = _wanted(self._indptr[rows[start:stop]] - low, lengths[start:stop], high - low)
            data[into] = self._data[low:high][wanted]
            indices[into] = self._indices[low:high][wanted]
        return sp.csr_matrix((data, indices, indptr), shape=(len(rows), self.shape[1]), copy=False)


def _wanted(starts: np.ndarray, lengths: np.ndarray, n_values: int) -> slice | np.ndarray:
    """Places of the wanted rows' values among those that were read together."""
    n_wanted = int(lengths.sum())
    if n_wanted == n_values:
        return slice(None)
    ends = np.cumsum(lengths)
    return np.asarray(np.arange(n_wanted) + np.repeat(starts - (ends - lengths), lengths))


class DenseRows(RowSource):
    """A dense array in an HDF5 file or a zarr store."""

    def __init__(self, array: Any) -> None:
        shape = (int(array.shape[0]), int(array.shape[1]))
        super().__init__(shape, np.dtype(array.dtype), (*_place(array), shape))
        self._array = array
        self.row_bytes = float(shape[1] * self.dtype.itemsize)
        self.grain = int(array.chunks[0]) if array.chunks else 1

    def read(self, start: int, stop: int) -> Block:
        """Rows from ``start`` up to ``stop``, dense."""
        return np.asarray(self._array[start:stop])


class DaskRows(RowSource):
    """A dask array whose chunks are rows; each chunk is computed when one of its rows is wanted."""

    def __init__(self, array: Any) -> None:
        shape = (int(array.shape[0]), int(array.shape[1]))
        super().__init__(shape, np.dtype(array.dtype), ("dask", array.name))
        self._array = array
        self.edges = np.concatenate([[0], np.cumsum(array.chunks[0])]).astype(np.int64)
        self.grain = int(max(array.chunks[0]))
        # Density is unknown until values are read; a tenth is what counts of genes have.
        dense = not sp.issparse(array._meta)
        self.row_bytes = float(shape[1] * (self.dtype.itemsize if dense else 1))

    def read(self, start: int, stop: int) -> Block:
        """Rows from ``start`` up to ``stop``; computes the chunks that hold them."""
        first = int(np.searchsorted(self.edges, start, side="right")) - 1
        parts: list[Block] = []
        for chunk in range(max(first, 0), len(self.edges) - 1):
            low = int(self.edges[chunk])
            if low >= stop and parts:
                break
            # In this thread: dask's own pool would hold as many chunks as it has workers.
            part = self._array.blocks[chunk].compute(scheduler="synchronous")
            part = part.tocsr() if sp.issparse(part) else np.asarray(part)
            parts.append(part[max(start - low, 0) : max(stop - low, 0)])
        return stack(parts)


def _place(stored: Any) -> tuple[str, ...]:
    """Where a group or array of h5py or zarr is stored."""
    file = getattr(stored, "file", None)
    holder = stored.store if file is None else file.filename
    return (str(holder), str(stored.name))


def on_disk(matrix: Any, place: str, modality: str) -> RowSource | None:
    """Row source of a matrix that is not in memory; None for what is no such matrix.

    Raises
    ------
    DataError
        For a matrix on disk that cannot be read by rows: nothing is loaded behind the user's back.
    """
    kind = getattr(matrix, "format", None)
    group = None if sp.issparse(matrix) else getattr(matrix, "group", None)
    if group is not None and kind in {"csr", "csc"}:
        if kind == "csc":
            raise DataError(
                f"{place} is stored on disk by columns (CSC), so that no cell can be read alone",
                modality=modality,
                expected="counts stored by rows (CSR)",
                remedy="convert it once: adata.X = adata.X.to_memory().tocsr(), then write the "
                "file again; or load it with .to_memory()",
            )
        shape = (int(matrix.shape[0]), int(matrix.shape[1]))
        return CompressedRows(group, shape)
    package = type(matrix).__module__.split(".")[0]
    if package == "dask":
        return _dask(matrix, place, modality)
    if package in {"h5py", "zarr"} and len(matrix.shape) == 2:
        return DenseRows(matrix)
    return None


def _dask(array: Any, place: str, modality: str) -> RowSource:
    if len(array.chunks[1]) > 1 or getattr(array._meta, "format", "csr") != "csr":
        raise DataError(
            f"{place} is a dask array whose chunks are not whole rows",
            modality=modality,
            expected="chunks of rows that hold all features: CSR or dense",
            remedy="adata.X = adata.X.rechunk((1000, -1)); for chunks by columns (CSC), "
            ".map_blocks(scipy.sparse.csr_matrix) too",
        )
    if np.isnan(np.asarray(array.chunks[0], dtype=float)).any():
        raise DataError(
            f"{place} is a dask array with chunks of unknown size",
            modality=modality,
            remedy="adata.X = adata.X.compute_chunk_sizes()",
        )
    return DaskRows(array)


_OPEN: dict[int, dict[str | None, RowSource]] = {}
"""Sources by the identity of their AnnData: a profile takes a pass over the file."""


def opened(adata: AnnData, layer: str | None, matrix: Any, place: str, name: str) -> Any:
    """Source of a matrix on disk, the same for as long as the AnnData holds the same matrix."""
    source = on_disk(matrix, place, name)
    if source is None:
        return None
    key = id(adata)
    if key not in _OPEN:
        _OPEN[key] = {}
        weakref.finalize(adata, _OPEN.pop, key, None)
    known = _OPEN[key].get(layer)
    if known is None or known.token != source.token:
        _OPEN[key][layer] = source
    return _OPEN[key][layer]


def forget(adata: AnnData) -> None:
    """Read an AnnData's values anew: what was known of them may no longer hold."""
    _OPEN.pop(id(adata), None)
