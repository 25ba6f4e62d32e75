"""How many cells of the other modality lie closer than the true match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from mosaicvi._errors import check_whole
from mosaicvi.metrics._latents import as_groups, as_latents, standardised
from mosaicvi.metrics._shapes import along

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from mosaicvi.metrics._shapes import Floats

BLOCK = 4_000_000
"""Distances held at a time, 32 MB."""


@dataclass(frozen=True)
class MatchRanks:
    """Where the true match stands among the candidates, for each query.

    Parameters
    ----------
    cells
        Row of each query, shape ``(n_queries,)``.
    closer, tied
        Candidates that are closer than the true match, and as close; shape ``(2, n_queries)``: from
        left to right, then from right to left. The match itself is not counted.
    candidates
        Candidates besides the match, shape ``(n_queries,)``.
    """

    cells: NDArray[np.int64]
    closer: NDArray[np.int64]
    tied: NDArray[np.int64]
    candidates: NDArray[np.int64]


def _direction(
    queries: Floats, candidates: Floats, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Closer and tied candidates of ``queries[rows]``; the match of row i is candidate i.

    Distances are sums of squared differences, not expanded products, so that equal points have
    equal distances to the last bit and ties are ties.
    """
    closer, tied = np.empty(len(rows), dtype=np.int64), np.empty(len(rows), dtype=np.int64)
    step = max(1, BLOCK // len(candidates))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        distance = cdist(queries[part], candidates, "sqeuclidean")
        match = distance[np.arange(len(part)), part][:, None]
        closer[start : start + step] = (distance < match).sum(axis=1)
        tied[start : start + step] = (distance == match).sum(axis=1) - 1
    return closer, tied


def match_ranks(
    left: ArrayLike,
    right: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    standardise: bool = True,
    n_queries: int | None = None,
    seed: int = 0,
) -> MatchRanks:
    """Rank of the true match in both directions, among the cells of the same group.

    Memory is O(cells x dimensions) and one block of distances. Parameters are those of
    :func:`mosaicvi.metrics.foscttm`. Cells that are alone in their group are left out.

    Raises
    ------
    RequestError
        If the arrays do not belong together, or ``n_queries`` is below one.
    """
    sides = as_latents(left, along(right, left), paired=True)
    if standardise:
        sides = standardised(*sides)
    n_cells = len(sides[0])
    if n_queries is not None:
        check_whole(n_queries, "n_queries", other="; or None, for all")
    codes = as_groups(None if groups is None else along(groups, left), n_cells)
    asked = np.ones(n_cells, dtype=bool)
    if n_queries is not None and n_queries < n_cells:
        asked[np.random.default_rng(seed).permutation(n_cells)[n_queries:]] = False
    asked &= np.bincount(codes)[codes] > 1
    cells = np.flatnonzero(asked)
    closer, tied = (np.zeros((2, n_cells), dtype=np.int64) for _ in range(2))
    others = np.bincount(codes)[codes] - 1
    for code in np.unique(codes[cells]):
        members = np.flatnonzero(codes == code)
        rows = np.flatnonzero(asked[members])
        parts = sides[0][members], sides[1][members]
        for way, (queries, candidates) in enumerate((parts, parts[::-1])):
            found = _direction(queries, candidates, rows)
            closer[way, members[rows]], tied[way, members[rows]] = found
    return MatchRanks(cells, closer[:, cells], tied[:, cells], others[cells])
