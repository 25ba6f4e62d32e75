"""Inputs of the regression baselines: principal components of log-normalised counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import PCA

if TYPE_CHECKING:
    from numpy.typing import NDArray

TARGET_SUM = 1e4
N_COMPONENTS = 64


def log_normalise(counts: sp.csr_matrix) -> sp.csr_matrix:
    """``log1p(counts / total * 1e4)`` a cell, ``(n_cells, n_features)``; empty cells stay zero."""
    total = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    scale = np.divide(TARGET_SUM, total, out=np.zeros_like(total), where=total > 0)
    return sp.csr_matrix(sp.diags(scale) @ counts).log1p()


@dataclass(frozen=True)
class Components:
    """Centred principal components, fitted to training cells only.

    Parameters
    ----------
    pca
        The fitted decomposition.
    """

    pca: PCA

    @classmethod
    def fit(cls, counts: sp.csr_matrix, n_components: int = N_COMPONENTS) -> Components:
        """Fit to training counts; at most one component less than cells or features."""
        n_kept = min(n_components, min(counts.shape) - 1)
        pca = PCA(n_components=n_kept, svd_solver="arpack", random_state=0)
        return cls(pca.fit(log_normalise(counts).astype(np.float64)))

    def transform(self, counts: sp.csr_matrix) -> NDArray[np.float64]:
        """Scores of cells, ``(n_cells, n_components)``."""
        return np.asarray(self.pca.transform(log_normalise(counts).astype(np.float64)))
