"""Remove surplus factors where the bound is better without them."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mosaicvi.factor._objective import FactorObjective

if TYPE_CHECKING:
    from mosaicvi.data import MultiDataset
    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.factor._factor_module import FactorModule

N_DRAWS, N_ROUGH = 8, 2
"""Draws of factors and weights a value of the bound is averaged over, the same for all compared;
and for a first look."""

MOST_CELLS, MOST_VALUES = 1000, 10_000_000
"""Training cells, and values of theirs, that the bound is compared on."""

N_TRIED, N_COMPARED = 8, 2
"""Moves whose bound is looked at a round, those that lose least by a quadratic estimate; and the
best of these, whose bound is computed with all draws."""

N_RESCALED = 3
"""Times that scales are moved to their fixed point."""


@dataclass(frozen=True)
class Move:
    """Make one factor of two, or drop one.

    Attributes
    ----------
    removed
        Number of the factor that goes.
    lost
        Estimate of what the likelihood loses, in nats per cell.
    kept
        Number of the factor that stands for both; None: the other is dropped, and none changes.
    mixture
        The two, kept and removed, as multiples of the one that stays, ``(2,)``.
    """

    removed: int
    lost: float
    kept: int | None = None
    mixture: np.ndarray | None = None


@torch.no_grad()
def reduce_factors(
    module: FactorModule, dataset: MultiDataset, indices: np.ndarray, *, seed: int
) -> list[int]:
    r"""Merge or drop factors as long as the evidence lower bound rises, in place.

    A fit that starts with too many factors ends in a local optimum where one true factor is split
    over two: gradients cannot leave it, although one factor has the better bound (decisions,
    "FactorVI: surplus factors are a local optimum"). The best move of each round is found by the
    best factor of rank one for each pair: with the second moments :math:`G` of two factors over
    cells and :math:`H` of their weights over features, each feature counting by its information, it
    is the first eigenvector of :math:`L^\top H L`, :math:`G = L L^\top`, and the second eigenvalue
    is what it loses. Before that, scales are moved to their fixed point, :math:`E[z_k^2] = 1`.

    Parameters
    ----------
    module
        The network.
    dataset
        Cells with their frozen projections.
    indices
        Training cells.
    seed
        Seed of the cells and of the draws.

    Returns
    -------
    Numbers of the factors that are left, as they were before.

    Notes
    -----
    Named factors, whose prior says what they are, are neither merged nor dropped.
    """
    batch, n_train = bound_batch(module, dataset, indices, seed), len(indices)
    _rescale_all(module, batch, n_train, seed)
    left = _drop_empty(module, list(range(module.n_latent)))
    now = negative_bound(module, batch, n_train, seed)
    while module.n_latent > 1:
        moves = sorted(_moves(module, batch, n_train), key=lambda move: move.lost)[:N_TRIED]
        tried = [_moved(module, move) for move in moves]
        rough = [negative_bound(each, batch, n_train, seed, N_ROUGH) for each in tried]
        found = [
            (negative_bound(tried[place], batch, n_train, seed), place)
            for place in np.argsort(rough, kind="stable")[:N_COMPARED]
        ]
        loss, best = min(found, default=(np.inf, -1))
        if loss >= now:
            break
        module.become(tried[best])
        del left[moves[best].removed]
        _rescale_all(module, batch, n_train, seed)
        now = negative_bound(module, batch, n_train, seed)
    return left


def bound_batch(
    module: FactorModule, dataset: MultiDataset, indices: np.ndarray, seed: int
) -> MultiBatch:
    """Training cells that bounds are compared on."""
    rng = np.random.default_rng(seed)
    n_features = sum(len(weights.loc) for weights in module.weights.values())
    n_cells = min(len(indices), MOST_CELLS, max(100, MOST_VALUES // n_features))
    chosen = np.sort(rng.choice(indices, n_cells, replace=False))
    return dataset.fetch(chosen).to(module.device)


def _drop_empty(module: FactorModule, left: list[int]) -> list[int]:
    """Keep factors with a weight that is more likely there than not, and named ones, in place.

    What an empty factor spends is less than what draws differ by when a factor goes.
    """
    used = torch.stack([(w.acting() > 0.5).any(0) for w in module.weights.values()]).any(0)
    free = set(free_factors(module))
    kept = [k for k, has in enumerate(used.tolist()) if has or k not in free]
    if kept and len(kept) < len(left):
        module.keep(torch.as_tensor(kept, device=module.device))
        return [left[k] for k in kept]
    return left


@torch.no_grad()
def negative_bound(
    module: FactorModule, batch: MultiBatch, n_train: int, seed: int, n_draws: int = N_DRAWS
) -> float:
    """Negative bound in nats per cell, averaged over draws of the same seeds for all modules.

    With a factor less the same seed gives other noise, so that small differences are of the draws.
    """
    objective, total = FactorObjective(n_train), 0.0
    devices = [batch.indices.device] if batch.indices.device.type == "cuda" else []
    for draw in range(n_draws):
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed + draw)
            total += float(objective(module, batch).total)
    return total / n_draws


def free_factors(module: FactorModule) -> list[int]:
    """Factors without a prior on which features they act on."""
    named = torch.stack([(w.log_odds != 0).any(0) for w in module.weights.values()]).any(0)
    return [number for number, known in enumerate(named.tolist()) if not known]


def _moves(module: FactorModule, batch: MultiBatch, n_train: int) -> list[Move]:
    """Merge each pair, drop each factor; without those that lose more than could be gained."""
    posterior = module.posterior(module.experts(batch))
    z, variance = posterior.mean.double(), posterior.variance.double()
    second = (z.T @ z / len(z)).cpu().numpy()
    spent = 0.5 * (z.square() + variance - 1 - variance.log()).mean(0).cpu().numpy()
    products = np.zeros_like(second)
    for weights in module.weights.values():
        q, p = weights.posterior(), weights.prior()
        spent += (torch.distributions.kl_divergence(q, p).sum(0) / n_train).double().cpu().numpy()
        mean = weights.mean().double()
        # Precision of a weight: what all cells say about it.
        information = (-2 * weights.log_scale.double()).exp().mean(1, keepdim=True) / n_train
        products += (mean.T @ (information * mean)).cpu().numpy()
    free = free_factors(module)
    moves = [Move(k, float(0.5 * second[k, k] * products[k, k])) for k in free]
    # Weights that must not be negative have no place for two factors of opposite signs.
    signed = not any(weights.nonnegative for weights in module.weights.values())
    for j, k in itertools.combinations(free, 2):
        pair = np.ix_([j, k], [j, k])
        mixture, lost = _rank_one(second[pair], products[pair])
        if signed or (mixture >= 0).all():
            moves.append(Move(k, lost, j, mixture))
    return [move for move in moves if move.lost < 2 * spent[move.removed] + 1]


@torch.no_grad()
def strengths(module: FactorModule, batch: MultiBatch, n_train: int) -> np.ndarray:
    """Estimate of what the likelihood loses without each factor, in nats per cell."""
    z = module.posterior(module.experts(batch)).mean
    total = torch.zeros(module.n_latent, device=z.device)
    for weights in module.weights.values():
        information = (-2 * weights.log_scale).exp().mean(1, keepdim=True) / n_train
        total += (information * weights.mean().square()).sum(0)
    return np.asarray((0.5 * z.square().mean(0) * total).cpu())


def _rank_one(second: np.ndarray, products: np.ndarray) -> tuple[np.ndarray, float]:
    """Two factors as multiples of the best one, and what is lost."""
    root = np.linalg.cholesky(second + 1e-9 * np.eye(2))
    values, vectors = np.linalg.eigh(root.T @ products @ root)
    mixture = root @ vectors[:, 1]
    return mixture * (np.sign(mixture.sum()) or 1.0), float(0.5 * values[0])


def _moved(module: FactorModule, move: Move) -> FactorModule:
    """Copy of the network after a move."""
    after = copy.deepcopy(module)
    if move.kept is not None:
        pair = [move.kept, move.removed]
        mixture = torch.as_tensor(move.mixture, dtype=torch.float32, device=module.device)
        for name in after.modalities:
            after.weights[name].merge(pair, mixture)
            loadings = after.recognition[name].loadings
            loadings[:, move.kept] = loadings[:, pair] @ mixture
    left = [number for number in range(module.n_latent) if number != move.removed]
    after.keep(torch.as_tensor(left, device=module.device))
    for weights in after.weights.values():
        weights.settle()
    return after


def _rescale_all(module: FactorModule, batch: MultiBatch, n_train: int, seed: int) -> None:
    """Give free factors second moments of one over cells, where the bound rises by it.

    Few draws will do: their noise is the same before and after.
    """
    free = free_factors(module)
    now = negative_bound(module, batch, n_train, seed, N_ROUGH)
    for _ in range(N_RESCALED):
        posterior = module.posterior(module.experts(batch))
        moments = (posterior.mean.square() + posterior.variance).mean(0)
        scale = torch.ones_like(moments)
        if len(module.group_variance) == 1:
            scale[free] = moments[free].sqrt().clamp(0.3, 3.0)
        after = copy.deepcopy(module)
        for name in after.modalities:
            after.weights[name].rescale(scale)
            after.recognition[name].loadings.mul_(scale)
            after.weights[name].settle()
        loss = negative_bound(after, batch, n_train, seed, N_ROUGH)
        if loss >= now:
            break
        module.become(after)
        now = loss
