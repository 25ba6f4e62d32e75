"""A score inside types, so that knowing the type earns nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mosaicvi._errors import RequestError
from mosaicvi.metrics._shapes import along, as_named, as_pair, stated

Score = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def within_type(
    score: Score,
    predicted: ArrayLike,
    measured: ArrayLike,
    types: ArrayLike,
    *,
    min_cells: int = 20,
) -> NDArray[np.float64]:
    """Mean of a per-feature score over types, each weighted by its number of cells.

    Weighting by cells keeps the smallest types, whose scores are mostly noise, from ruling the
    mean. Cells count for a feature of which they have a prediction and a measured value, neither
    NaN. A type in which the score is undefined for a feature (all values equal) is left out for
    that feature only.

    Parameters
    ----------
    score
        For instance :func:`mosaicvi.metrics.pearson` or :func:`mosaicvi.metrics.rmse`.
    predicted, measured
        Shape ``(n_cells, n_features)``; NaN as the score takes it.
    types
        Type of each cell, shape ``(n_cells,)``; cells without one (None, NaN) are left out. A
        Series is matched by name to a DataFrame ``predicted`` of the same cells.
    min_cells
        Types with fewer cells are left out, for each feature by itself.

    Returns
    -------
    Shape ``(n_features,)``; NaN where no type could be scored.

    Raises
    ------
    RequestError
        If shapes do not belong together.
    """
    left, right = as_pair(predicted, measured)
    types = along(types, predicted)
    labels = as_named(types)
    if labels.shape != left.shape[:1]:
        raise RequestError(
            f"shape {labels.shape} for {left.shape[0]} cells", key="types", expected="(n_cells,)"
        )
    typed = stated(types)
    left, right, labels = left[typed], right[typed], labels[typed]
    held = ~(np.isnan(left) | np.isnan(right))
    total, weight = np.zeros(left.shape[1]), np.zeros(left.shape[1])
    for name in np.unique(labels):
        rows = labels == name
        n_cells = held[rows].sum(axis=0)
        enough = n_cells >= min_cells
        if not enough.any():
            continue
        value = score(left[rows], right[rows])
        defined = enough & np.isfinite(value)
        total[defined] += n_cells[defined] * value[defined]
        weight[defined] += n_cells[defined]
    mean = np.full(left.shape[1], np.nan)
    np.divide(total, weight, out=mean, where=weight > 0)
    return mean
