"""Root mean squared error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi.metrics._shapes import as_scored

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def rmse(predicted: ArrayLike, measured: ArrayLike) -> NDArray[np.float64]:
    """Root mean squared error over cells, per feature.

    Parameters
    ----------
    predicted, measured
        Shape ``(n_cells, n_features)``, in one unit (log1p in this package's tables). Entries that
        are NaN in either (no evidence, not measured) are left out.

    Returns
    -------
    Shape ``(n_features,)``, in that unit; NaN where a feature has no such entry.

    Raises
    ------
    RequestError
        If the shapes differ, the labels of two DataFrames do, or a value is infinite.
    """
    left, right, held = as_scored(predicted, measured)
    squared = np.where(held, left - right, 0.0) ** 2
    counts = held.sum(axis=0)
    mean = np.full(left.shape[1], np.nan)
    np.divide(squared.sum(axis=0), counts, out=mean, where=counts > 0)
    return np.asarray(np.sqrt(mean))
