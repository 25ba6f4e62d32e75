"""Fraction of samples closer than the true match."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi.metrics._match_ranks import match_ranks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def foscttm_per_cell(
    left: ArrayLike,
    right: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    standardise: bool = True,
    n_queries: int | None = None,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Fraction of samples closer than the true match, cell by cell, both directions averaged.

    Parameters
    ----------
    left, right, groups, standardise, n_queries, seed
        As in :func:`foscttm`.

    Returns
    -------
    Shape ``(n_cells,)``, between 0 and 1; NaN for cells that were not drawn as queries, and for
    those that are alone in their group.

    Raises
    ------
    RequestError
        If the arrays do not belong together, or ``n_queries`` is below one.
    """
    ranks = match_ranks(
        left, right, groups=groups, standardise=standardise, n_queries=n_queries, seed=seed
    )
    values = np.full(np.shape(left)[0], np.nan)
    values[ranks.cells] = ((ranks.closer + 0.5 * ranks.tied) / ranks.candidates).mean(axis=0)
    return values


def foscttm(
    left: ArrayLike,
    right: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    standardise: bool = True,
    n_queries: int | None = None,
    seed: int = 0,
) -> float:
    """Fraction of samples closer than the true match (FOSCTTM), both directions averaged.

    For every cell, the share of the other modality's cells (the true match aside) that lie closer
    to it than its match, ``(closer + tied / 2) / candidates``; Euclidean distance; mean over cells
    and over both directions :cite:p:`liu2019`. Ties count one half, so an embedding that puts all
    cells in one place scores exactly .5 and not 0.

    Batch and sequencing depth are shared by both modalities of a cell, and alone, without any
    biology, can bring the overall score near 0. Read it beside the score within strata of both
    (``groups=depth_strata(depth, batch)``) and within type (``groups=types``).

    Parameters
    ----------
    left, right
        Latent of the same cells in two modalities, ``(n_cells, n_latent)``; row i of one is the
        match of row i of the other.
    groups
        Group of each cell, shape ``(n_cells,)``: candidates are only those of the cell's own group.
        None: all cells. Cells without a group (None, NaN) are left out.
    standardise
        Give every dimension mean 0 and standard deviation 1 over the cells of both modalities
        together, one shift and scale for both, before distances are taken. The score then does not
        depend on the scale of single dimensions; without, it does not depend on rotations.
    n_queries
        Cells to draw and to score, each against all candidates; None: every cell (exact).
    seed
        Seed of that draw.

    Returns
    -------
    Between 0 (every match is the nearest) and 1; .5 by chance; NaN where every cell is alone in its
    group. Time is O(queries x cells), memory a block of distances.

    Raises
    ------
    RequestError
        If the arrays do not belong together, or ``n_queries`` is below one.
    """
    values = foscttm_per_cell(
        left, right, groups=groups, standardise=standardise, n_queries=n_queries, seed=seed
    )
    scored = values[np.isfinite(values)]
    return float(scored.mean()) if scored.size else float("nan")
