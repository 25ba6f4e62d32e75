"""Rows of a matrix that stays on disk: only those that are asked for are read.

A source hands out rows as they are stored. What knows of features, likelihoods and minibatches
stands above it (``_stored.py``, ``_stream.py``), and does not know of file formats.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Iterator

Block = Any
"""Rows in memory: a scipy CSR matrix or array, or a dense ``np.ndarray``."""

BLOCK_BYTES = 32 * 2**20
"""Stored bytes that a pass over all rows reads at a time."""

TOTAL_VALUES = 4 * 2**20
"""Stored values that are added up at a time."""

GAP_BYTES = 96 * 2**10
"""Rows that are not wanted are read too where skipping them saves fewer bytes than this: a second
read costs more."""


@dataclass(frozen=True)
class Profile:
    """What one pass over all stored values found.

    Attributes
    ----------
    n_values
        Number of stored values.
    nan, infinite, negative, fractional
        How many of them are.
    largest
        The largest finite one; zero where there is none.
    row_totals
        Sum of each row, float64 ``(n_rows,)``.
    column_totals
        Sum of each column, float64 ``(n_columns,)``.
    """

    n_values: int
    nan: int
    infinite: int
    negative: int
    fractional: int
    largest: float
    row_totals: np.ndarray
    column_totals: np.ndarray


class RowSource(ABC):
    """Rows of a matrix on disk.

    Parameters
    ----------
    shape
        ``(n_rows, n_columns)``.
    dtype
        Type of the stored values.
    token
        Says which matrix this is; another token, another matrix.

    Attributes
    ----------
    row_bytes
        Mean stored bytes of a row.
    grain
        Rows that storage reads together anyhow: fewer at a time cost as much.
    """

    row_bytes: float
    grain: int = 1

    def __init__(
        self, shape: tuple[int, int], dtype: np.dtype[Any], token: tuple[Any, ...]
    ) -> None:
        self.shape, self.dtype, self.token = shape, dtype, token

    @abstractmethod
    def read(self, start: int, stop: int) -> Block:
        """Rows from ``start`` up to ``stop``, as they are stored."""

    def __getitem__(self, rows: slice | np.ndarray) -> Block:
        """Rows in the order asked for; repeats allowed."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.shape[0])
            if step == 1:
                return self.read(start, max(start, stop))
            rows = np.arange(start, stop, step)
        rows = np.asarray(rows, dtype=np.int64)
        ascending, places = np.unique(rows, return_inverse=True)
        found = self.take(ascending)
        return found if np.array_equal(places, np.arange(len(rows))) else found[places]

    def take(self, rows: np.ndarray) -> Block:
        """Rows in ascending order, each once; reads neighbouring ones together.

        Parameters
        ----------
        rows
            Ascending, int64.
        """
        parts = []
        for start, stop in runs(rows, self._gap, self._longest):
            span = self.read(int(rows[start]), int(rows[stop - 1]) + 1)
            inside = rows[start:stop] - rows[start]
            parts.append(span if len(inside) == span.shape[0] else span[inside])
        return stack(parts) if parts else self.read(0, 0)

    def blocks(self) -> Iterator[tuple[slice, Block]]:
        """All rows, a few megabytes at a time."""
        size = max(1, self._longest // self.grain) * self.grain
        for start in range(0, self.shape[0], size):
            stop = min(start + size, self.shape[0])
            yield slice(start, stop), self.read(start, stop)

    @property
    def _longest(self) -> int:
        return max(1, int(BLOCK_BYTES / max(self.row_bytes, 1.0)))

    @property
    def _gap(self) -> int:
        return max(self.grain, int(GAP_BYTES / max(self.row_bytes, 1.0)))

    @cached_property
    def profile(self) -> Profile:
        """Summary of all values, from one pass that is made once."""
        return _profile(self)


def runs(rows: np.ndarray, gap: int, longest: int) -> list[tuple[int, int]]:
    """Split ascending rows where more than ``gap`` rows between two of them are not wanted.

    No run spans more than ``longest`` rows.

    Returns
    -------
    Places ``(start, stop)`` in ``rows`` of each run.
    """
    if not len(rows):
        return []
    is_break = np.diff(rows, prepend=rows[0]) > gap + 1
    starts = rows[np.maximum.accumulate(np.where(is_break, np.arange(len(rows)), 0))]
    pieces = (rows - starts) // longest
    breaks = np.flatnonzero(is_break[1:] | (np.diff(pieces) != 0)) + 1
    edges = [0, *breaks.tolist(), len(rows)]
    return list(itertools.pairwise(edges))


def stack(parts: list[Block]) -> Block:
    """Rows of several blocks, one below the other."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    lengths = np.concatenate([np.diff(part.indptr) for part in parts])
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    data = np.concatenate([part.data for part in parts])
    indices = np.concatenate([part.indices for part in parts])
    return sp.csr_matrix((data, indices, indptr), shape=(len(lengths), parts[0].shape[1]))


def block_totals(block: Block) -> np.ndarray:
    """Sum of each row in float64, shape ``(n_rows,)``."""
    if not sp.issparse(block):
        return np.asarray(np.asarray(block).sum(axis=1, dtype=np.float64))
    totals = np.zeros(block.shape[0])
    # Some values at a time: adding in float64 copies what it adds.
    edges = np.arange(0, block.indptr[-1], TOTAL_VALUES)
    cuts = [*np.unique(np.searchsorted(block.indptr, edges)), block.shape[0]]
    for first, last in itertools.pairwise(cuts):
        filled = first + np.flatnonzero(np.diff(block.indptr[first : last + 1]))
        if len(filled):
            low = block.indptr[first]
            values = block.data[low : block.indptr[last]]
            starts = block.indptr[filled] - low
            totals[filled] = np.add.reduceat(values, starts, dtype=np.float64)
    return totals


def _profile(source: RowSource) -> Profile:
    n_rows, n_columns = source.shape
    row_totals, column_totals = np.zeros(n_rows), np.zeros(n_columns)
    counts = np.zeros(5, dtype=np.int64)
    largest = -np.inf
    for rows, block in source.blocks():
        values = np.asarray(block.data if sp.issparse(block) else block).reshape(-1)
        tallied, highest = tally(values)
        counts += np.array([len(values), *tallied])
        largest = max(largest, highest)
        row_totals[rows] = block_totals(block)
        if sp.issparse(block):
            weights = block.data.astype(np.float64)
            column_totals += np.bincount(block.indices, weights=weights, minlength=n_columns)
        else:
            column_totals += np.asarray(block).sum(axis=0, dtype=np.float64)
    n_values, nan, infinite, negative, fractional = (int(number) for number in counts)
    highest = float(largest) if np.isfinite(largest) else 0.0
    return Profile(
        n_values, nan, infinite, negative, fractional, highest, row_totals, column_totals
    )


FRACTION = 1e-4
"""Counts may be off an integer by this much (rounding of a file format)."""


def tally(values: np.ndarray) -> tuple[tuple[int, int, int, int], float]:
    """How many values are NaN, infinite, negative, fractional; and the largest finite one."""
    nan, infinite, negative, fractional = 0, 0, 0, 0
    finite = values
    if values.dtype.kind == "f":
        is_finite = np.isfinite(values)
        if not is_finite.all():
            nan = int(np.isnan(values).sum())
            infinite = int((~is_finite).sum()) - nan
            finite = values[is_finite]
        fractional = int((np.abs(finite - np.rint(finite)) > FRACTION).sum())
    if values.dtype.kind in "fi" and len(finite) and finite.min() < 0:
        negative = int((finite < 0).sum())
    largest = float(finite.max()) if len(finite) else -np.inf
    return (nan, infinite, negative, fractional), largest
