"""Closed-form sweeps over the weights of normal modalities, after training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mosaicvi.factor._exact_expert import standard_residuals
from mosaicvi.factor._spike_slab import LEAST

if TYPE_CHECKING:
    import numpy as np

    from mosaicvi.data import MultiDataset
    from mosaicvi.factor._factor_module import FactorModule
    from mosaicvi.factor._weights import SparseWeights

N_SWEEPS = 5
CELLS_AT_ONCE = 1024
LEAST_VARIANCE = 1e-4
"""Of a feature's noise, in its own scale."""


@dataclass
class Moments:
    """Sums over cells that the weights of one modality depend on.

    Attributes
    ----------
    second
        Of the factors' second moments, ``(n_features, n_factors, n_factors)``, over the cells that
        show a feature.
    cross
        Of values times factors, ``(n_features, n_factors)``.
    square, count
        Of squared values, and of cells, ``(n_features,)``.
    """

    second: Tensor
    cross: Tensor
    square: Tensor
    count: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.second + other.second,
            self.cross + other.cross,
            self.square + other.square,
            self.count + other.count,
        )


@torch.no_grad()
def sweep_weights(
    module: FactorModule, dataset: MultiDataset, indices: np.ndarray, n_sweeps: int = N_SWEEPS
) -> None:
    """Coordinate ascent on weights, noise, shares and slabs of normal modalities, in place.

    Minibatch gradients stop near the optimum of the bound, and how near matters where samples are
    few. Non-negative weights have no closed form and are left alone.

    Parameters
    ----------
    module
        The network.
    dataset, indices
        Cells that were trained on.
    n_sweeps
        Passes over the cells.
    """
    names = [
        name
        for name in module.modalities
        if module.decoders[name].likelihood.is_normal and not module.weights[name].nonnegative
    ]
    for _ in range(n_sweeps if names else 0):
        for name, sums in _moments(module, dataset, indices, names).items():
            _sweep(module, name, sums)


def _moments(
    module: FactorModule, dataset: MultiDataset, indices: np.ndarray, names: list[str]
) -> dict[str, Moments]:
    found: dict[str, Moments] = {}
    for first in range(0, len(indices), CELLS_AT_ONCE):
        batch = dataset.fetch(indices[first : first + CELLS_AT_ONCE]).to(module.device)
        posterior = module.posterior(module.experts(batch))
        covariance = posterior.root.mT @ posterior.root
        design = module.design(batch)
        for name in names:
            part = batch.modalities.get(name)
            if part is None:
                continue
            covariates = None if design is None else design[part.positions]
            values, shown = standard_residuals(part, module.decoders[name], covariates)
            z = posterior.mean[part.positions]
            second = torch.einsum("ci,cj->cij", z, z) + covariance[part.positions]
            if shown is None:
                count = torch.full_like(values[0], float(len(values)))
                summed = second.sum(0).expand(values.shape[1], -1, -1)
            else:
                values, seen = values.masked_fill(~shown, 0.0), shown.to(values)
                count = seen.sum(0)
                summed = (seen.T @ second.flatten(1)).view(-1, *second.shape[1:])
            own = Moments(summed, values.T @ z, values.square().sum(0), count)
            found[name] = found[name] + own if name in found else own
    return found


def _sweep(module: FactorModule, name: str, sums: Moments) -> None:
    """Each factor's weights in turn given the others', then noise, slabs and shares."""
    weights: SparseWeights = module.weights[name]
    log_noise = module.decoders[name].feature_parameters["log_sd"]
    precision = (-2 * log_noise).exp()
    posterior = weights.posterior()
    mean = posterior.mean.clone()
    odds = torch.logit(weights.share, LEAST) + weights.log_odds
    for k in range(mean.shape[1]):
        power = sums.second[:, k, k]
        others = torch.einsum("fj,fj->f", sums.second[:, k], mean) - power * mean[:, k]
        slab = weights.slab_variance[k]
        variance = 1 / (power * precision + 1 / slab)
        loc = variance * precision * (sums.cross[:, k] - others)
        own = odds[:, k] + 0.5 * ((variance / slab).log() + loc.square() / variance)
        weights.loc[:, k] = loc
        weights.log_scale[:, k] = 0.5 * variance.log()
        weights.inclusion[:, k] = torch.sigmoid(own).clamp(LEAST, 1 - LEAST)
        mean[:, k] = weights.inclusion[:, k] * loc
    spread = weights.posterior().variance.clamp_min(0)
    left = sums.square - 2 * (sums.cross * mean).sum(1)
    left = left + torch.einsum("fi,fij,fj->f", mean, sums.second, mean)
    left = left + (spread * sums.second.diagonal(dim1=1, dim2=2)).sum(1)
    seen = sums.count > 1
    noise = (left / sums.count.clamp_min(1)).clamp_min(LEAST_VARIANCE)
    log_noise.copy_(torch.where(seen, 0.5 * noise.log(), log_noise))
    weights.update(1.0)
