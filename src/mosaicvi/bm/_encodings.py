"""Encodings of counts for methods without a model of them, by likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mosaicvi.bm.methods._features import log_normalise

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def centred_log(counts: sp.csr_matrix) -> sp.csr_matrix:
    """``log1p`` minus the cell's mean of it: antibodies, ``(n_cells, n_features)``."""
    values = np.log1p(np.asarray(counts.toarray(), dtype=np.float64))
    return sp.csr_matrix(values - values.mean(axis=1, keepdims=True))


def tf_idf(counts: sp.csr_matrix) -> sp.csr_matrix:
    """``log1p(share of the cell's counts * 1e4) * log(1 + cells / cells with the feature)``."""
    with_feature = np.bincount(counts.indices[counts.data > 0], minlength=counts.shape[1])
    rarity = np.log1p(counts.shape[0] / np.maximum(with_feature, 1))
    return sp.csr_matrix(log_normalise(counts) @ sp.diags(rarity))


ENCODINGS: dict[str, Callable[[sp.csr_matrix], sp.csr_matrix]] = {
    "nb_mixture": centred_log,
    "bernoulli": tf_idf,
    "poisson": tf_idf,
}


def encode(counts: sp.csr_matrix, likelihood: str) -> sp.csr_matrix:
    """Encoded counts, ``(n_cells, n_features)``, float64; log-normalised unless tabled."""
    encoding = ENCODINGS.get(likelihood, log_normalise)
    return sp.csr_matrix(encoding(sp.csr_matrix(counts)), dtype=np.float64)


def standardise(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns with mean 0 and standard deviation 1; a constant column is 0."""
    spread = values.std(axis=0)
    centred = values - values.mean(axis=0)
    return np.asarray(np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-12))
