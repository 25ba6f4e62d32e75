"""Correlation of predicted with measured values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from mosaicvi.metrics._shapes import Floats, as_pair

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FLAT = 1e-12
"""Relative spread below which values count as constant (rounding of a mean is not signal)."""


def _spread(centred: Floats, scale: float) -> float:
    norm = float(np.sqrt(centred @ centred))
    return norm if norm > FLAT * max(scale, 1.0) * np.sqrt(centred.size) else 0.0


def _correlate(predicted: Floats, measured: Floats) -> float:
    held = np.isfinite(measured)
    left, right = predicted[held], measured[held]
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
        Shape ``(n_cells, n_features)``, on the same scale (log1p in this package's tables).

    Returns
    -------
    Shape ``(n_features,)``. A constant prediction has no order to offer and scores 0; a feature
    whose measured values are constant, or fewer than three, cannot be scored and is NaN.

    Raises
    ------
    RequestError
        If the shapes differ, or the labels of two DataFrames do.
    """
    left, right = as_pair(predicted, measured)
    return np.array([_correlate(left[:, f], right[:, f]) for f in range(left.shape[1])])


def spearman(predicted: ArrayLike, measured: ArrayLike) -> NDArray[np.float64]:
    """Spearman correlation over cells, per feature: Pearson of the (mean) ranks.

    Parameters
    ----------
    predicted, measured
        Shape ``(n_cells, n_features)``; any monotone scale.

    Returns
    -------
    Shape ``(n_features,)``; constants as in :func:`mosaicvi.metrics.pearson`.

    Raises
    ------
    RequestError
        If the shapes differ, or the labels of two DataFrames do.
    """
    left, right = as_pair(predicted, measured)
    score = np.full(left.shape[1], np.nan)
    for feature in range(left.shape[1]):
        held = np.isfinite(right[:, feature])
        if held.sum() >= 3:
            score[feature] = _correlate(
                rankdata(left[held, feature]), rankdata(right[held, feature])
            )
    return score
