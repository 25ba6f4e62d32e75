"""How often the true match is among the nearest cells of the other modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import check_whole
from mosaicvi.metrics._match_ranks import match_ranks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class MatchingAccuracy:
    """Share of matches found, and the share that chance finds.

    Parameters
    ----------
    accuracy
        Share of cells whose match is among the k nearest, between 0 and 1.
    expected
        Its expected value under random order: k over the number of candidates, at most 1.
    """

    accuracy: float
    expected: float


def matching_accuracy(
    left: ArrayLike,
    right: ArrayLike,
    *,
    n_neighbours: int = 1,
    groups: ArrayLike | None = None,
    standardise: bool = True,
    n_queries: int | None = None,
    seed: int = 0,
) -> MatchingAccuracy:
    """Share of cells whose true match is among the k nearest of the other modality.

    Both directions averaged. Where the match is tied with others, the share of random orders of the
    tied ones that puts it among the k: ``clip((k - closer) / (tied + 1), 0, 1)``.

    Parameters
    ----------
    left, right
        Latent of the same cells in two modalities, ``(n_cells, n_latent)``; row i of one is the
        match of row i of the other.
    n_neighbours
        k.
    groups, standardise, n_queries, seed
        As in :func:`foscttm`.

    Returns
    -------
    The share, and what a random order gives; NaN where every cell is alone in its group.

    Raises
    ------
    RequestError
        If the arrays do not belong together, or a number is below one.
    """
    check_whole(n_neighbours, "n_neighbours")
    ranks = match_ranks(
        left, right, groups=groups, standardise=standardise, n_queries=n_queries, seed=seed
    )
    if not ranks.cells.size:
        return MatchingAccuracy(float("nan"), float("nan"))
    found = np.clip((n_neighbours - ranks.closer) / (ranks.tied + 1.0), 0.0, 1.0)
    expected = np.minimum(n_neighbours / (ranks.candidates + 1.0), 1.0)
    return MatchingAccuracy(float(found.mean()), float(expected.mean()))
