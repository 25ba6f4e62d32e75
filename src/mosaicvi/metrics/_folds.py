"""Folds of a cross-validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def stratified_folds(
    labels: NDArray[np.int64] | NDArray[np.str_], n_folds: int, seed: int
) -> NDArray[np.int64]:
    """Fold of each cell, shape ``(n_cells,)``; each label is spread over the folds evenly.

    Labels with fewer cells than folds are in some of them.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = np.arange(len(labels)) % n_folds
    return folds
