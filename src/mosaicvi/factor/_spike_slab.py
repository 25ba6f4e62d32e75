r"""Spike and slab: a weight is zero, or it is normal.

Prior and posterior of a weight share one family,

.. math:: s \sim \mathrm{Bernoulli}(\gamma), \quad w \mid s = 1 \sim N(\mu, \sigma^2), \quad
    w \mid s = 0 \;\text{is}\; 0,

as in MOFA (Titsias and Lazaro-Gredilla 2011; Argelaguet et al. 2018). Divergences are exact. A draw
has the family's mean and variance but is normal: its likelihood is then that of the family for
every log-likelihood that is quadratic in one weight, and gradients flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, kl_divergence, register_kl

if TYPE_CHECKING:
    from mosaicvi.fusion import FullGaussian

LEAST = 1e-6
"""Inclusion probabilities stay within this and one minus this."""


class SpikeAndSlab(TorchDistribution):
    """Spike and slab of each weight.

    Parameters
    ----------
    inclusion
        Probability that the weight is not zero.
    loc, scale
        Mean and standard deviation of the slab.
    """

    arg_constraints = {  # noqa: RUF012 (as torch declares it)
        "inclusion": constraints.unit_interval,
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    support = constraints.real
    has_rsample = True

    def __init__(self, inclusion: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.inclusion, self.loc, self.scale = torch.broadcast_tensors(inclusion, loc, scale)
        super().__init__(self.loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Mean, inclusion times slab mean."""
        mean: Tensor = self.inclusion * self.loc
        return mean

    @property
    def variance(self) -> Tensor:
        """Variance of spike and slab together."""
        second = self.scale.square() + self.loc.square()
        variance: Tensor = self.inclusion * second - self.mean.square()
        return variance

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Normal draw of the same mean and variance."""
        noise = torch.randn(
            *sample_shape, *self.batch_shape, device=self.loc.device, dtype=self.loc.dtype
        )
        drawn: Tensor = self.mean + self.variance.clamp_min(1e-12).sqrt() * noise
        return drawn

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of the slab plus log inclusion; only :func:`kl_divergence` is exact here."""
        slab = dist.Normal(self.loc, self.scale, validate_args=False).log_prob(value)
        density: Tensor = slab + self.inclusion.clamp_min(LEAST).log()
        return density

    def expand(self, batch_shape: Any, _instance: Any = None) -> SpikeAndSlab:
        """Broadcast parameters."""
        return SpikeAndSlab(
            self.inclusion.expand(batch_shape),
            self.loc.expand(batch_shape),
            self.scale.expand(batch_shape),
        )


@register_kl(SpikeAndSlab, SpikeAndSlab)
def spike_slab_kl(q: SpikeAndSlab, p: SpikeAndSlab) -> Tensor:
    r"""``KL(q || p)`` of each weight, in nats.

    .. math:: \gamma\, \mathrm{KL}(N_q \| N_p) + \mathrm{KL}(\mathrm{Bern}(\gamma) \|
        \mathrm{Bern}(\theta))
    """
    gamma = q.inclusion.clamp(LEAST, 1 - LEAST)
    theta = p.inclusion.clamp(LEAST, 1 - LEAST)
    ratio = (q.scale / p.scale).square()
    slab = 0.5 * (ratio + ((q.loc - p.loc) / p.scale).square() - 1 - ratio.log())
    switch = gamma * (gamma / theta).log() + (1 - gamma) * ((1 - gamma) / (1 - theta)).log()
    nats: Tensor = gamma * slab + switch
    return nats


class CellPosterior(TorchDistribution):
    """The posterior of cells' factors as a Pyro distribution.

    Parameters
    ----------
    gaussian
        One Gaussian a cell.
    """

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, gaussian: FullGaussian) -> None:
        self.gaussian = gaussian
        shape = gaussian.pull.shape
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw of every cell."""
        pull = self.gaussian.pull
        noise = torch.randn(*sample_shape, *pull.shape, device=pull.device, dtype=pull.dtype)
        return self.gaussian.rsample(noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, up to the constant; only the divergence is used."""
        root = self.gaussian.cholesky.mT @ (value - self.gaussian.mean).unsqueeze(-1)
        log_determinant = self.gaussian.cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        density: Tensor = log_determinant - 0.5 * root.square().sum((-2, -1))
        return density

    def expand(self, batch_shape: Any, _instance: Any = None) -> CellPosterior:
        """Return itself: cells are as many as they are."""
        return self


class CellPrior(TorchDistribution):
    """``N(0, diag(variance))`` of each cell.

    Parameters
    ----------
    variance
        Shape ``(n_cells, n_factors)``.
    """

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(self, variance: Tensor) -> None:
        self.prior_variance = variance
        super().__init__(variance.shape[:-1], variance.shape[-1:], validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw of every cell."""
        return self.prior_variance.sqrt() * torch.randn(*sample_shape, *self.prior_variance.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density up to the constant."""
        variance = self.prior_variance
        return -0.5 * (value.square() / variance + variance.log()).sum(-1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> CellPrior:
        """Return itself: cells are as many as they are."""
        return self


@register_kl(CellPosterior, CellPrior)
def cell_kl(q: CellPosterior, p: CellPrior) -> Tensor:
    """``KL(q || p)`` of each cell, in nats."""
    return q.gaussian.kl_to(p.prior_variance)


__all__ = ["CellPosterior", "CellPrior", "SpikeAndSlab", "kl_divergence"]
