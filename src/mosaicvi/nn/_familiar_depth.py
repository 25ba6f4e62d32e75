r"""Log depth as an encoder knows it, for cells that were sequenced to another depth.

An encoder reads log depth, since a cell with more RNA shows more protein. What it has learnt so is
of cells that were sequenced alike: of a query with a third of the counts it would conclude that its
cells are tiny, the more wrongly the less its training cells differ. So the log depths of a batch
that lies far from all batches of training are read beside its own,

.. math:: d_c - \operatorname{sign}(g_s) \min(2 (|g_s| - h_s)_+, |g_s|), \qquad
    h_s = 1 + 2 / \sqrt{n_s},

in standard deviations, where :math:`g_s` is how far the median of its :math:`n_s` cells is from the
nearest median of a training batch. Up to :math:`h_s` it may be other types of cells that the batch
holds, and nothing is changed. A single cell beyond all that training saw is read as such a cell, or
as if its depth were not known: what is believed of it falls to nothing over one standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mosaicvi._types import Float, Int, Real, Shaped

OTHER_TYPES, BY_CHANCE = 1.0, 2.0
"""How far the median depth of a batch may lie from training's before it counts as sequenced
otherwise, in standard deviations; and how much farther that of one cell, of n over their root."""

ROUNDING = 1e-3
"""Share of a standard deviation by which the range of training's cells is wider."""


def depth_levels(
    depth: Real[np.ndarray, " cells"],
    batch: Int[np.ndarray, " cells"],
    n_batches: int,
    moments: Float[Tensor, " two"],
) -> Float[np.ndarray, " levels"]:
    """What is known of the depths of training cells, in standard deviations.

    Parameters
    ----------
    depth
        Counts a cell, shape ``(n_cells,)``.
    batch
        Batch code of each cell, shape ``(n_cells,)``.
    n_batches
        Number of batches.
    moments
        Mean and standard deviation of ``log1p(depth)``.

    Returns
    -------
    Shape ``(2 + n_batches,)``: the least, the largest and the median of each batch, NaN where it
    has no cell.
    """
    levels = np.full(2 + n_batches, np.inf)
    if not len(depth):
        return levels
    mean, deviation = moments.tolist()
    log_depth = (np.log1p(depth) - mean) / deviation
    levels[:2] = log_depth.min() - ROUNDING, log_depth.max() + ROUNDING
    for code in np.unique(batch[batch >= 0]):
        levels[2 + code] = np.median(log_depth[batch == code])
    return levels


def familiar_depth(
    log_depth: Float[np.ndarray, " cells"],
    batch: Shaped[np.ndarray, " cells"],
    levels: Float[Tensor, " levels"],
    shifts: Mapping[str, float] | None = None,
) -> Float[np.ndarray, " cells"]:
    """Standardised log depths, changed where training saw none like them.

    Parameters
    ----------
    log_depth
        Shape ``(n_cells,)``.
    batch
        Names of the cells' batches, shape ``(n_cells,)``.
    levels
        :func:`depth_levels` of training's cells; infinite where nothing is known, which changes
        nothing.
    shifts
        From :func:`other_depths`, where they are known; None: found here.

    Returns
    -------
    Shape ``(n_cells,)``; of training's cells as given, to the last bit.
    """
    least, most = levels[:2].tolist()
    if not np.isfinite(most):
        return log_depth
    if shifts is None:
        shifts = other_depths(log_depth, batch, levels)
    found = log_depth.copy()
    for name, shift in shifts.items():
        found[batch == name] += shift
    edge = found.clip(least, most)
    beyond = np.abs(found - edge)
    return np.where(beyond > 0, edge * (1.0 - beyond).clip(0.0), found).astype(log_depth.dtype)


def other_depths(
    log_depth: Float[np.ndarray, " cells"],
    batch: Shaped[np.ndarray, " cells"],
    levels: Float[Tensor, " levels"],
) -> dict[str, float]:
    """Batches that were sequenced to another depth, and what is added to their log depths."""
    known = np.array([median for median in levels[2:].tolist() if np.isfinite(median)])
    found: dict[str, float] = {}
    if not len(known) or not len(batch):
        return found
    # Cells of one batch beside each other: a mask a batch would read all cells for each.
    names, codes = np.unique(batch.astype(str), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    parts = np.split(log_depth[order], np.cumsum(np.bincount(codes))[:-1])
    for name, depths in zip(names.tolist(), parts, strict=True):
        away = np.median(depths) - known
        gap = float(away[np.abs(away).argmin()])
        excess = abs(gap) - OTHER_TYPES - BY_CHANCE / np.sqrt(len(depths))
        if excess > 0:
            found[name] = float(-np.sign(gap) * min(2 * excess, abs(gap)))
    return found


def nothing_known(n_batches: int) -> Float[Tensor, " levels"]:
    """Levels that change nothing."""
    return torch.full((2 + n_batches,), torch.inf)
