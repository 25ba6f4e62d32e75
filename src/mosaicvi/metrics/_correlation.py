"""Correlation of predicted with measured values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from mosaicvi.metrics._shapes import Floats, as_scored

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FLAT = 1e-12
"""Relative spread below which values count as constant (rounding of a mean is not signal)."""


def _spread(centred: Floats, scale: float) -> float:
    norm = float(np.sqrt(centred @ centred))
    return norm if norm > FLAT * max(scale, 1.0) * np.sqrt(centred.size) else 0.0


def _correlate(left: Floats, right: Floats) -> float:
    if right.size < 3:
        return float("nan")
    left_scale, right_scale = float(np.abs(left).max()), float(np.abs(right).max())
    left, right = left - left.mean(), right - right.mean()
    left_norm, right_norm = _spread(left, left_scale), _spread(right, right_scale)
    if right_norm == 0.0:
        return float("nan")
    return 0.0 if left_norm == 0.0 else float(left @ right / (left_norm * right_norm))


def pearson(predicted: ArrayLike, measured: ArrayLike) -> NDArray[np.float64]:
    """Pearson correlation over cells, per feature.

    Parameters
    ----------
    predicted, measured
        Shape ``(n_cells, n_features)``, on the same scale (log1p in this package's tables). Entries
        that are NaN in either (no evidence, not measured) are left out: hold methods that answer
        for different cells against each other on the cells that all of them answer for.

    Returns
    -------
    Shape ``(n_features,)``. A constant prediction has no order to offer and scores 0; a feature
    whose measured values are constant, or with fewer than three entries, cannot be scored and is
    NaN.

    Raises
    ------
    RequestError
        If the shapes differ, the labels of two DataFrames do, or a value is infinite.
    """
    left, right, held = as_scored(predicted, measured)
    return np.array(
        [_correlate(left[rows, f], right[rows, f]) for f, rows in enumerate(held.T)], dtype=float
    )


def spearman(predicted: ArrayLike, measured: ArrayLike) -> NDArray[np.float64]:
    """Spearman correlation over cells, per feature: Pearson of the (mean) ranks.

    Parameters
    ----------
    predicted, measured
        Shape ``(n_cells, n_features)``; any monotone scale. Entries that are NaN in either are left
        out.

    Returns
    -------
    Shape ``(n_features,)``; constants and too few entries as in :func:`mosaicvi.metrics.pearson`.

    Raises
    ------
    RequestError
        If the shapes differ, the labels of two DataFrames do, or a value is infinite.
    """
    left, right, held = as_scored(predicted, measured)
    score = np.full(left.shape[1], np.nan)
    for feature, rows in enumerate(held.T):
        if rows.sum() >= 3:
            score[feature] = _correlate(
                rankdata(left[rows, feature]), rankdata(right[rows, feature])
            )
    return score
