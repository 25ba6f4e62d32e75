"""Weights of one modality: sparse a feature, and switched off a factor where nothing acts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mosaicvi._noise import CellNoise
from mosaicvi.factor._spike_slab import LEAST, SpikeAndSlab

SLAB_COUNT, SLAB_START = 2.0, 1.0
"""The slab's variance counts a prior value of one for this many weights."""

SHARE_PRIOR = (1.0, 1.0)
"""Beta prior of the share of features that a factor acts on."""

DAMPING = 0.1
"""Share of a step by which closed-form quantities move."""

N_SETTLED = 20
"""Damped steps of three tenths that bring closed-form quantities to their optima."""

INSIDE, OUTSIDE = 1.0, -4.0
"""Log odds of a gene-set prior for features of the set and for all others: a weight needs evidence
to join a set, and little against it to leave."""


class SparseWeights(nn.Module):
    r"""Spike-and-slab weights with a scale and a share a factor (ARD).

    .. math:: w_{fk} \sim \theta_k\, N(0, \tau_k^2) + (1 - \theta_k)\, \delta_0

    Means and standard deviations are trained by gradients. Inclusion probabilities, slab variances
    and shares have closed-form optima given these, to which :meth:`update` moves them.

    Parameters
    ----------
    n_features, n_factors
        Sizes.
    nonnegative
        Whether weights are at least zero.
    """

    inclusion: Tensor
    slab_variance: Tensor
    share: Tensor
    log_odds: Tensor

    def __init__(self, n_features: int, n_factors: int, *, nonnegative: bool = False) -> None:
        super().__init__()
        shape = (n_features, n_factors)
        self.nonnegative = nonnegative
        self.loc = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.full(shape, -3.0))
        self.register_buffer("inclusion", torch.full(shape, 0.5))
        self.register_buffer("slab_variance", torch.full((n_factors,), SLAB_START))
        self.register_buffer("share", torch.full((n_factors,), 0.5))
        self.register_buffer("log_odds", torch.zeros(shape))

    def prior(self) -> SpikeAndSlab:
        """Prior of every weight."""
        theta = torch.sigmoid(torch.logit(self.share, LEAST) + self.log_odds)
        return SpikeAndSlab(theta, torch.zeros_like(self.loc), self.slab_variance.sqrt())

    def posterior(self) -> SpikeAndSlab:
        """Variational posterior of every weight."""
        return SpikeAndSlab(self.inclusion, self.loc, self.log_scale.clamp(-12, 3).exp())

    def shaped(self, weights: Tensor) -> Tensor:
        """Weights as decoders read them: clipped at zero where they must not be negative."""
        return weights.clamp_min(0.0) if self.nonnegative else weights

    def mean(self) -> Tensor:
        """Posterior mean, shape ``(n_features, n_factors)``."""
        return self.shaped(self.posterior().mean)

    def acting(self) -> Tensor:
        """Posterior probability that a weight is not zero, ``(n_features, n_factors)``."""
        if not self.nonnegative:
            return self.inclusion
        probability: Tensor = self.inclusion * torch.special.ndtr(self.loc / self.posterior().scale)
        return probability

    def spread(self) -> Tensor:
        """Posterior standard deviation, ``(n_features, n_factors)``."""
        posterior = self.posterior()
        if not self.nonnegative:
            return posterior.variance.clamp_min(0).sqrt()
        # Of a normal that is clipped at zero.
        loc, scale, share = posterior.loc, posterior.scale, posterior.inclusion
        above = torch.special.ndtr(loc / scale)
        density = scale * torch.exp(-0.5 * (loc / scale).square()) / math.sqrt(2 * math.pi)
        first = share * (loc * above + density)
        second = share * ((loc.square() + scale.square()) * above + loc * density)
        sd: Tensor = (second - first.square()).clamp_min(0).sqrt()
        return sd

    def draw(self, n_samples: int, seed: int, purpose: str) -> Tensor:
        """Posterior draws, shape ``(n_samples, n_features, n_factors)``, from the family itself."""
        n_features, n_factors = self.loc.shape
        noise = CellNoise(seed, ["weights"], purpose=purpose)
        normal = noise.normal(n_samples, 1, n_features * n_factors)
        uniform = noise.uniform(n_samples, 1, n_features * n_factors)
        shape = (n_samples, n_features, n_factors)
        device = self.loc.device
        slab = self.loc + self.log_scale.exp() * normal.view(shape).to(device)
        return self.shaped(slab * (uniform.view(shape).to(device) < self.inclusion))

    @torch.no_grad()
    def update(self, damping: float = DAMPING) -> None:
        r"""Move inclusion, slab variance and share towards their optima.

        .. math::
            \operatorname{logit} \gamma = \operatorname{logit} \theta
            + \tfrac12 \log(\sigma^2 / \tau^2) + \tfrac12 \mu^2 / \sigma^2
        """
        variance = (2 * self.log_scale.clamp(-12, 3)).exp()
        variance = torch.minimum(variance, self.slab_variance)
        odds = torch.logit(self.share, LEAST) + self.log_odds
        odds = odds + 0.5 * ((variance / self.slab_variance).log() + self.loc.square() / variance)
        gamma = torch.sigmoid(odds).clamp(LEAST, 1 - LEAST)
        self.inclusion.lerp_(gamma, damping)
        total = self.inclusion.sum(0)
        square = (self.inclusion * (self.loc.square() + variance)).sum(0)
        slab = (square + SLAB_COUNT * SLAB_START * 0.01) / (total + SLAB_COUNT)
        self.slab_variance.lerp_(slab.clamp_min(1e-6), damping)
        free = self.log_odds == 0
        known = free.sum(0).clamp_min(1)
        first, second = SHARE_PRIOR
        share = ((self.inclusion * free).sum(0) + first) / (known + first + second)
        # A named factor has no free features: its share is that of its own prior.
        named = ~free.any(0)
        self.share.lerp_(torch.where(named, torch.full_like(share, 0.5), share), damping)

    @torch.no_grad()
    def settle(self) -> None:
        """Bring all closed-form quantities to their optima, about."""
        for _ in range(N_SETTLED):
            self.update(0.3)

    @torch.no_grad()
    def merge(self, pair: list[int], mixture: Tensor) -> None:
        """Let the first factor of a pair act as both: ``mixture`` of their weights."""
        first, _second = pair
        self.loc[:, first] = self.posterior().mean[:, pair] @ mixture
        self.log_scale[:, first] = self.log_scale[:, pair].amin(1)
        self.inclusion[:, first] = self.inclusion[:, pair].amax(1)
        self.slab_variance[first] = self.slab_variance[pair].amax()
        self.share[first] = self.share[pair].amax()

    def errors(self) -> Tensor:
        """Error of each weight if it is not zero, ``(n_features, n_factors)``.

        Of one that likely is, nothing holds the slab: the smallest of the feature's others counts.
        """
        scale = self.log_scale.clamp(-12, 3).exp()
        held = torch.where(self.inclusion > 0.5, scale, torch.inf).amin(1, keepdim=True)
        return torch.where(self.inclusion > 0.5, scale, torch.minimum(scale, held))

    @torch.no_grad()
    def lower(self, level: Tensor) -> None:
        """Take a number a factor from all of its weights."""
        mean, errors = self.posterior().mean, self.errors()
        self.loc.copy_(mean - level)
        self.log_scale.copy_(errors.log())
        self.settle()

    @torch.no_grad()
    def take(self, other: SparseWeights, factor: int) -> None:
        """Become another in one factor."""
        for name in ("loc", "log_scale", "inclusion", "slab_variance", "share"):
            getattr(self, name)[..., factor] = getattr(other, name)[..., factor]

    @torch.no_grad()
    def rescale(self, scale: Tensor) -> None:
        """Multiply weights by a number a factor."""
        self.loc.mul_(scale)
        self.log_scale.add_(scale.log())
        self.slab_variance.mul_(scale.square())

    def keep(self, order: Tensor) -> None:
        """Keep some factors, in an order."""
        for name in ("loc", "log_scale"):
            setattr(self, name, nn.Parameter(getattr(self, name).detach()[:, order].clone()))
        for name in ("inclusion", "log_odds"):
            setattr(self, name, getattr(self, name)[:, order].clone())
        for name in ("slab_variance", "share"):
            setattr(self, name, getattr(self, name)[order].clone())
