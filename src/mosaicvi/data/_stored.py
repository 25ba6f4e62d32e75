"""Values in the form that models read, in memory or read from disk when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.sparse as sp

from mosaicvi.data._rows import BLOCK_BYTES, RowSource, block_totals

if TYPE_CHECKING:
    from collections.abc import Iterator

Rows: TypeAlias = sp.csr_matrix | np.ndarray
"""Rows in memory: CSR counts, or a dense array of a continuous modality."""


class StoredValues:
    """A modality's values on disk; indexing with rows reads these, in registered feature order.

    Parameters
    ----------
    source
        Rows as they are stored.
    order
        Columns of the source in registered order; None where they already are.
    is_count
        Whether rows are CSR counts; False: dense float32.
    """

    def __init__(self, source: RowSource, order: np.ndarray | None, *, is_count: bool) -> None:
        self.source, self.is_count = source, is_count
        self._order = order
        n_columns = source.shape[1] if order is None else len(order)
        self.shape = (source.shape[0], n_columns)

    def __getitem__(self, rows: slice | np.ndarray) -> Rows:
        """Read rows, in the order asked for."""
        return self._form(self.source[rows])

    def take(self, rows: np.ndarray) -> Rows:
        """Read ascending rows, each once."""
        return self._form(self.source.take(rows))

    @property
    def grain(self) -> int:
        """Rows that storage reads together anyhow."""
        return self.source.grain

    @property
    def n_stored(self) -> int:
        """Number of stored values."""
        return self.source.profile.n_values

    def row_totals(self) -> np.ndarray:
        """Sum of each row in float64, ``(n_rows,)``; a pass over the file if features differ."""
        if self._order is None:
            return self.source.profile.row_totals
        totals = np.zeros(self.shape[0])
        for rows, block in self.source.blocks():
            totals[rows] = block_totals(self._form(block))
        return totals

    def _form(self, block: Any) -> Rows:
        return as_counts(block, self._order) if self.is_count else as_dense(block, self._order)


Held: TypeAlias = sp.csr_matrix | np.ndarray | StoredValues
"""All values of a modality, wherever they are."""


def held(matrix: Any, order: np.ndarray | None, *, is_count: bool) -> Held:
    """Values in registered form, where they are: in memory, or rows of a source on disk."""
    if isinstance(matrix, RowSource):
        return StoredValues(matrix, order, is_count=is_count)
    return as_counts(matrix, order) if is_count else as_dense(matrix, order)


def held_blocks(values: Held, rows: np.ndarray) -> Iterator[tuple[slice, Rows]]:
    """Rows, a few megabytes at a time: places in ``rows``, and the values there."""
    width = 8 * stored_values(values) / max(values.shape[0], 1)
    size = max(1, int(BLOCK_BYTES / max(width, 1.0)))
    for start in range(0, len(rows), size):
        part = slice(start, min(start + size, len(rows)))
        yield part, values[rows[part]]


def stored_values(values: Held) -> int:
    """Number of stored values of a matrix, wherever it is."""
    if isinstance(values, StoredValues):
        return values.n_stored
    return int(values.size if isinstance(values, np.ndarray) else values.nnz)


def locked(array: np.ndarray) -> np.ndarray:
    """Read-only view: the user's memory stays as it is, whatever is done with ours."""
    view = array.view()
    view.flags.writeable = False
    return view


def as_counts(matrix: Any, order: np.ndarray | None) -> sp.csr_matrix:
    """Counts as CSR with sorted columns; a view of the given parts where they are that already."""
    if order is not None:
        matrix = matrix[:, order]
    is_float = matrix.dtype in (np.float32, np.float64)
    if not sp.issparse(matrix):
        return shared_csr(sp.csr_matrix(matrix if is_float else matrix.astype(np.float32)))
    if matrix.format != "csr":
        matrix = sp.csr_matrix(matrix)
    if not is_float:
        parts = (matrix.data.astype(np.float32), matrix.indices, matrix.indptr)
        matrix = sp.csr_matrix(parts, shape=matrix.shape)
    return shared_csr(matrix)


def shared_csr(matrix: Any) -> sp.csr_matrix:
    """CSR that shares the parts of a matrix, read-only, its columns sorted."""
    parts = (matrix.data, matrix.indices, matrix.indptr)
    # On a fresh object: scipy caches this test, and sorts in place, on the one it is asked of.
    fresh = sp.csr_matrix(parts, shape=matrix.shape)
    if not fresh.has_canonical_format:
        fresh = fresh.copy()
        fresh.sum_duplicates()
    parts = (locked(fresh.data), locked(fresh.indices), locked(fresh.indptr))
    shared = sp.csr_matrix(parts, shape=matrix.shape)
    shared.has_canonical_format = True
    return shared


def as_dense(matrix: Any, order: np.ndarray | None) -> np.ndarray:
    """Continuous values as dense float32 in C order; NaN stays."""
    dense = np.asarray(matrix.toarray() if sp.issparse(matrix) else matrix)
    if order is not None:
        dense = dense[:, order]
    return locked(np.ascontiguousarray(dense, dtype=np.float32))
