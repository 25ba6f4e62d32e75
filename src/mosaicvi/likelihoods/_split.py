"""Split of each feature's counts into a lower and an upper group, where a mixture starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mosaicvi._types import Bool, Float, Matrix, Real

MOST_CELLS = 10_000
"""Cells that are read at most (evenly spaced), which bounds memory."""


@dataclass(frozen=True)
class CountSplit:
    """Log mean, dispersion and share of the two groups, each of shape ``(n_features,)``."""

    log_background: Float[np.ndarray, " features"]
    log_foreground: Float[np.ndarray, " features"]
    logit_background: Float[np.ndarray, " features"]
    log_dispersion_background: Float[np.ndarray, " features"]
    log_dispersion_foreground: Float[np.ndarray, " features"]


def _best_threshold(level: Float[np.ndarray, " cells"]) -> float:
    """Threshold of the two-means split of one feature, exact in one dimension.

    Between-group variance of every split of the sorted values follows from their running sum.
    """
    level = np.sort(level)
    n = len(level)
    if n < 2 or level[0] == level[-1]:
        return float(level[-1]) if n else 0.0
    below = np.arange(1, n)
    sums = np.cumsum(level)[:-1]
    between = (sums - below * level.mean()) ** 2 / (below * (n - below))
    between[level[1:] == level[:-1]] = -1.0  # equal values stay together
    cut = int(np.argmax(between))
    return 0.5 * float(level[cut] + level[cut + 1])


def _moments(counts: Float[np.ndarray, " cells"]) -> tuple[float, float]:
    """Mean, and log dispersion by moments, within [log 0.5, log 50]; robust to tiny groups."""
    if len(counts) == 0:
        return np.nan, np.log(5.0)
    mean = float(counts.mean())
    # a pseudo-observation of dispersion 5 keeps groups of a few cells sane
    excess = float(((counts - mean) ** 2).sum()) - len(counts) * mean
    inverse = (max(excess, 0.0) + 0.2 * mean**2) / ((len(counts) + 1) * mean**2 + 1e-6)
    return mean, -float(np.log(np.clip(inverse, 0.02, 2.0)))


def _split_one(
    counts: Float[np.ndarray, " cells"], known: float
) -> tuple[float, float, float, float, float]:
    level = np.log1p(counts)
    threshold = _best_threshold(level)
    if np.isfinite(known):
        # two means of the data say nothing new where background is known: what exceeds twice the
        # background level (or the data's own split, if higher) is foreground
        threshold = max(threshold, float(np.log1p(2.0 * np.exp(known)))) if len(counts) else 0.0
    lower, upper = counts[level <= threshold], counts[level > threshold]
    mean_low, dispersion_low = _moments(lower)
    mean_high, dispersion_high = _moments(upper)
    low = known if np.isfinite(known) else np.log((0.0 if np.isnan(mean_low) else mean_low) + 0.05)
    high = low + 1.0 if np.isnan(mean_high) else np.log(mean_high + 0.05)
    logit = np.log((len(lower) + 1.0) / (len(upper) + 1.0))
    return low, high, float(np.clip(logit, -3.0, 3.0)), dispersion_low, dispersion_high


def split_log_counts(
    values: Real[Matrix, "cells features"],
    *,
    background: Float[np.ndarray, " features"] | None,
    measured: Bool[np.ndarray, "cells features"] | None,
) -> CountSplit:
    """Split every feature's log1p counts in two and describe both groups.

    Parameters
    ----------
    values
        Counts, shape ``(n_cells, n_features)``.
    background
        Known log background level, shape ``(n_features,)``, NaN where unknown, or None.
    measured
        Which entries were measured, bool ``(n_cells, n_features)``; None when all were.
    """
    step = max(1, -(-values.shape[0] // MOST_CELLS))
    part = values[::step]
    counts = np.asarray(part if isinstance(part, np.ndarray) else part.toarray(), dtype=np.float64)
    shown = None if measured is None else measured[::step]
    known = np.full(counts.shape[1], np.nan) if background is None else np.asarray(background)
    rows = [
        _split_one(column if shown is None else column[shown[:, f]], float(known[f]))
        for f, column in enumerate(counts.T)
    ]
    return CountSplit(*np.asarray(rows, dtype=np.float64).reshape(-1, 5).T)
