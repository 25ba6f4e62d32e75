"""Checks that every score makes of its arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mosaicvi._errors import RequestError

Floats = NDArray[np.float64]


def as_table(values: ArrayLike, key: str) -> Floats:
    """Float64 ``(n_cells, n_features)``; a vector becomes one feature.

    Raises
    ------
    RequestError
        If there are more than two axes.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2:
        raise RequestError(
            f"an array with shape {table.shape}", key=key, expected="(n_cells, n_features)"
        )
    return table


def as_pair(predicted: ArrayLike, measured: ArrayLike) -> tuple[Floats, Floats]:
    """Both arrays as tables of one shape.

    Raises
    ------
    RequestError
        If the shapes differ.
    """
    left, right = as_table(predicted, "predicted"), as_table(measured, "measured")
    if left.shape != right.shape:
        raise RequestError(
            f"shapes {left.shape} and {right.shape}",
            key="predicted, measured",
            expected="the same cells and features",
        )
    return left, right


def as_draws(draws: ArrayLike, measured: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draws ``(n_draws, n_cells, n_features)`` and measured values ``(n_cells, n_features)``.

    Raises
    ------
    RequestError
        If the shapes do not belong together or there are no draws.
    """
    samples, values = np.asarray(draws), np.asarray(measured)
    if samples.ndim < 1 or samples.shape[0] == 0 or samples.shape[1:] != values.shape:
        raise RequestError(
            f"draws with shape {samples.shape} for values with shape {values.shape}",
            key="draws, measured",
            expected="(n_draws, *measured.shape), at least one draw",
        )
    return samples, values
