"""Evidence lower bound of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.distributions import kl_divergence

if TYPE_CHECKING:
    from mosaicvi.factor._factor_module import FactorModule
    from mosaicvi.factor._sampler import FactorSampler


@torch.no_grad()
def cell_bounds(sampler: FactorSampler, indices: np.ndarray, n_samples: int) -> np.ndarray:
    """Expected log-likelihood over draws of factors and weights, minus the factors' divergence.

    Returns
    -------
    Nats, shape ``(n_cells,)``.
    """
    module = sampler.module
    found = np.zeros(len(indices))
    linked = module.draw_feature_embeddings(n_samples, sampler.seed)
    size = sampler.chunk_size(n_samples, max(sampler.n_features(n) for n in module.modalities))
    for chunk in sampler.latent(indices, None, n_cells=size, with_values=True):
        z = sampler.draw_latent(chunk, n_samples)
        nats = -chunk.gaussian.kl_to(module.prior_variance(chunk.batch))
        for name, part in chunk.batch.modalities.items():
            log_prob = module.reconstruct(name, z, chunk.batch, linked=linked[name])
            nats = nats.index_add(0, part.positions, log_prob.mean(0))
        found[chunk.places] = nats.cpu().numpy()
    return found


@torch.no_grad()
def parameter_nats(module: FactorModule) -> float:
    """Divergence of all weights from their prior, and the negative log prior of the decoders."""
    total = 0.0
    for name, weights in module.weights.items():
        total += float(kl_divergence(weights.posterior(), weights.prior()).sum())
        total += float(module.negative_log_prior(name))
    return total
