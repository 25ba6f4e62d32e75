"""Random parameters and counts for tests of likelihoods."""

from __future__ import annotations

import numpy as np
import torch

from mosaicvi import likelihoods

COUNTS = ("nb", "zinb", "nb_mixture", "poisson", "bernoulli")


def draw_parameters(
    name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Distribution parameters from random decoder heads."""
    generator = torch.Generator().manual_seed(seed)
    likelihood = likelihoods.get(name)
    heads = {
        head.name: torch.randn(shape, generator=generator, dtype=dtype) for head in likelihood.heads
    }
    features = {
        key: torch.randn(shape[-1], generator=generator, dtype=dtype)
        for key in likelihood.feature_parameters
    }
    library = torch.rand(shape[-2], generator=generator, dtype=dtype) * 30 + 5
    return likelihood.parameters(
        heads,
        features,
        library_size=library if likelihood.uses_library_size else None,
        panel=None,
    )


def draw_counts(n_cells: int, n_features: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.poisson(rng.gamma(0.5, 4.0, (n_cells, n_features))).astype(float))
