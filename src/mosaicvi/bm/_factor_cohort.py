"""A simulated cohort of patients: few samples, three continuous modalities, one often missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

N_FEATURES = {"expression": 1000, "methylation": 600, "drug": 150}
ACTIVE = {"expression": (0, 1, 2, 3, 5), "methylation": (0, 1, 2, 4, 6), "drug": (0, 1, 3, 4, 7)}
"""Two factors act everywhere, one in each pair of modalities, one in each alone."""

EXPLAINED = {"expression": 0.30, "methylation": 0.25, "drug": 0.40}
"""Share of the variance that factors explain."""

DENSITY = 0.3
N_FACTORS = 8
INCOMPLETE = "expression"
"""The modality that is missing for a part of the samples."""


def draw_cohort(n_samples: int, seed: int) -> tuple[dict[str, AnnData], np.ndarray]:
    """Complete tables, and the factors ``(n_samples, 8)``.

    The first factor is a mutation (two groups of patients), the others are normal. Weights are
    sparse; features have units, noise and explained variance of their own.
    """
    rng = np.random.default_rng((seed, 11))
    z = rng.normal(size=(n_samples, N_FACTORS))
    z[:, 0] = np.where(rng.random(n_samples) < 0.4, 1.2, -0.8) + 0.3 * rng.normal(size=n_samples)
    z = (z - z.mean(0)) / z.std(0)
    names = pd.Index([f"patient{number:04d}" for number in range(n_samples)])
    tables = {}
    for name, n_features in N_FEATURES.items():
        shape = (N_FACTORS, n_features)
        weights = rng.normal(size=shape) * (rng.random(shape) < DENSITY)
        weights *= np.isin(np.arange(N_FACTORS), ACTIVE[name])[:, None]
        signal = z @ weights
        noise_sd = np.exp(0.3 * rng.normal(size=n_features))
        ratio = EXPLAINED[name] / (1 - EXPLAINED[name])
        signal *= np.sqrt(ratio * (noise_sd**2).mean() / signal.var(0).mean())
        values = signal + noise_sd * rng.normal(size=signal.shape)
        values = (
            rng.normal(5, 2, size=n_features) + np.exp(0.4 * rng.normal(size=n_features)) * values
        )
        var = pd.DataFrame(index=[f"{name}-{number}" for number in range(n_features)])
        tables[name] = AnnData(values.astype(np.float32), pd.DataFrame(index=names), var)
    return tables, z
