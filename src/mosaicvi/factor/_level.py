r"""The level of a factor in a composition: what it adds to all features alike changes nothing.

Shares add up to one, so that weights :math:`w_{fk} + c` say of counts what :math:`w_{fk}` say.
Sparsity decides: at one level most weights are zero. Gradients do not get there where there are
many counts, as each weight would have to leave its place alone.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from mosaicvi.factor._reduce import bound_batch, negative_bound
from mosaicvi.likelihoods._composition import CompositionLikelihood

if TYPE_CHECKING:
    import numpy as np

    from mosaicvi.data import MultiDataset
    from mosaicvi.factor._factor_module import FactorModule
    from mosaicvi.factor._weights import SparseWeights

N_LEVELS = 201
"""Levels that are looked at a factor: so many quantiles of its weights."""

LEAST_NATS = 5.0
"""Nats by which the divergence of a factor's weights must fall for a level to be tried."""


@torch.no_grad()
def level_factors(
    module: FactorModule, dataset: MultiDataset, indices: np.ndarray, *, seed: int
) -> None:
    """Bring factors to the level at which most features take no part, in place.

    As far as the evidence lower bound rises by it. Not where weights must not be negative.

    Parameters
    ----------
    module
        The network.
    dataset, indices
        Cells that were trained on.
    seed
        Seed of the cells and draws that bounds are compared on.
    """
    batch, n_train = bound_batch(module, dataset, indices, seed), len(indices)
    now = negative_bound(module, batch, n_train, seed)
    for name, weights in module.weights.items():
        composed = isinstance(module.decoders[name].likelihood, CompositionLikelihood)
        if not composed or weights.nonnegative:
            continue
        moved = copy.deepcopy(weights)
        moved.lower(_levels(weights))
        gain = _nats(weights) - _nats(moved)
        for factor in torch.nonzero(gain > LEAST_NATS).flatten().tolist():
            after = copy.deepcopy(module)
            after.weights[name].take(moved, factor)
            loss = negative_bound(after, batch, n_train, seed)
            if loss < now:
                weights.take(moved, factor)
                now = loss


def _nats(weights: SparseWeights) -> Tensor:
    """Divergence of each factor's weights from their prior, ``(n_factors,)``."""
    return kl_divergence(weights.posterior(), weights.prior()).sum(0)


def _levels(weights: SparseWeights) -> Tensor:
    """Level of each factor at which most weights are zero within their errors, ``(n_factors,)``."""
    mean, errors = weights.mean(), weights.errors()
    places = torch.linspace(0, 1, N_LEVELS, device=mean.device)
    found = []
    for own, error in zip(mean.T, errors.T, strict=True):
        levels = torch.quantile(own, places)
        off = own - levels.unsqueeze(1)
        wide = (off.square().mean(1, keepdim=True) + error.square()).sqrt()
        zero, other = (Normal(0.0, s, validate_args=False).log_prob(off) for s in (error, wide))
        found.append(levels[torch.logaddexp(zero, other).sum(1).argmax()])
    return torch.stack(found)
