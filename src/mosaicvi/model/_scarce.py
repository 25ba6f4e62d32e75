"""How few cells tie the modalities together, and how often these are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi import likelihoods
from mosaicvi.likelihoods._rate import RateLikelihood

if TYPE_CHECKING:
    from collections.abc import Collection

    from mosaicvi.data import MosaicData

NOT_SCARCE = 3.0
"""Cells are seen once an epoch unless the commonest modality has more than so many times them."""

VISIT_POWER, MOST_VISITS = 0.4, 2.0
"""With more they are seen so many times more often, to this power, and at most so often."""

ENOUGH_CELLS = 75
"""Fewer cells than this are not seen more than once: they overfit."""


def visits(
    data: MosaicData, training: np.ndarray, muted: Collection[str] = ()
) -> dict[int, float] | None:
    """How often cells of each presence pattern are seen in an epoch.

    The length of a fit follows from all cells, and what ties two modalities, or all that is known
    of one, may be few of them (decisions, "Few pairs among many cells").

    Parameters
    ----------
    data
        Registered data.
    training
        Training cells.
    muted
        Modalities that say nothing of the others, and do not count.

    Returns
    -------
    Pattern to a number from 1 to :data:`MOST_VISITS`; None where all are 1.
    """
    held = _held(data, training, muted)
    shared = held @ held.T
    seen = {}
    for pattern, first in zip(*np.unique(data.patterns[training], return_index=True), strict=True):
        own = held[:, first] > 0
        if own.any():
            scarce = shared[np.ix_(own, own)].min()
            often = (shared.max() / scarce / NOT_SCARCE) ** VISIT_POWER
            most = min(MOST_VISITS, (scarce / ENOUGH_CELLS) ** 0.5)
            seen[int(pattern)] = float(max(1.0, min(often, most)))
    return seen if any(often > 1 for often in seen.values()) else None


def n_tied(data: MosaicData, muted: Collection[str] = ()) -> int:
    """Cells that overfit: those that the least tied modality shares with another, or all cells.

    Each modality counts by the partner with which it shares most cells; one that shares none with
    any other is tied by none, and those in ``muted`` do not count. Where regions are modelled it is
    all cells: few counts a region suffer from dropout (decisions, "Few pairs among many cells").
    """
    rates = any(
        isinstance(likelihoods.get(each.spec.likelihood), RateLikelihood)
        for each in data.modalities.values()
    )
    if rates or len(data.modalities) < 2:
        return data.n_cells
    held = _held(data, np.arange(data.n_cells), muted)
    shared = held @ held.T
    np.fill_diagonal(shared, 0)
    most = shared.max(axis=1)
    return int(most[most > 0].min(initial=data.n_cells))


def _held(data: MosaicData, cells: np.ndarray, muted: Collection[str] = ()) -> np.ndarray:
    """Which modalities count and are held, 0 or 1, float64 ``(n_modalities, n_cells)``."""
    return np.stack(
        [(each.rows[cells] >= 0) & (name not in muted) for name, each in data.modalities.items()]
    ).astype(np.float64)
