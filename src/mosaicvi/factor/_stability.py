"""Which factors another fit finds again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mosaicvi.factor._factor_module import FactorModule


def together(weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """Weights of all modalities, each of length one, so that all count alike.

    Parameters
    ----------
    weights
        Modality to weights ``(n_features, n_factors)``.

    Returns
    -------
    Shape ``(n_all_features, n_factors)``.
    """
    scaled = [w / max(float(np.linalg.norm(w)), 1e-12) for w in weights.values()]
    return np.concatenate(scaled)


def correlations(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Absolute correlations of columns, ``(n_own, n_other)``; zero for constant columns."""
    first, second = (each - each.mean(0) for each in (own, other))
    first = first / np.maximum(np.linalg.norm(first, axis=0), 1e-12)
    second = second / np.maximum(np.linalg.norm(second, axis=0), 1e-12)
    return np.asarray(np.abs(first.T @ second))


def match(own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match columns one to one by absolute correlation, best in sum.

    Parameters
    ----------
    own, other
        Shapes ``(n, n_own)`` and ``(n, n_other)``.

    Returns
    -------
    Number of the partner of each own column, -1 for none, and the absolute correlation with it,
    zero for none.
    """
    table = correlations(own, other)
    rows, columns = linear_sum_assignment(-table)
    partner, correlation = np.full(own.shape[1], -1), np.zeros(own.shape[1])
    partner[rows], correlation[rows] = columns, table[rows, columns]
    return partner, correlation


def stability(
    module: FactorModule, others: Sequence[FactorModule]
) -> tuple[tuple[float, ...], ...]:
    """Absolute correlation of each factor's weights with its partner in each other network.

    Returns
    -------
    A row a factor, a column a network; empty without other networks.
    """
    if not others:
        return ()
    tables = [
        together({n: w.detach().cpu().numpy() for n, w in each.feature_embeddings().items()})
        for each in (module, *others)
    ]
    columns = np.stack([match(tables[0], table)[1] for table in tables[1:]], 1)
    return tuple(tuple(float(value) for value in row) for row in columns)
