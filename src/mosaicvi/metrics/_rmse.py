"""Root mean squared error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi.metrics._shapes import as_pair

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def rmse(predicted: ArrayLike, measured: ArrayLike) -> NDArray[np.float64]:
    """Root mean squared error over cells, per feature.

    Parameters
    ----------
    predicted, measured
        Shape ``(n_cells, n_features)``, in one unit (log1p in this package's tables).

    Returns
    -------
    Shape ``(n_features,)``, in that unit; NaN where a feature has no measured value.

    Raises
    ------
    RequestError
        If the shapes differ, or the labels of two DataFrames do.
    """
    left, right = as_pair(predicted, measured)
    held = np.isfinite(right)
    squared = np.where(held, left - np.where(held, right, 0.0), 0.0) ** 2
    counts = held.sum(axis=0)
    mean = np.full(left.shape[1], np.nan)
    np.divide(squared.sum(axis=0), counts, out=mean, where=counts > 0)
    return np.asarray(np.sqrt(mean))
