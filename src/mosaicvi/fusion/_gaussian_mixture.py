"""The distribution that fusion returns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mosaicvi._types import Bool, Float, Int

_LOG_2PI = math.log(2.0 * math.pi)


def gaussian_kl(
    mean: Float[Tensor, "*#points latent"],
    variance: Float[Tensor, "*#points latent"],
    other_mean: Float[Tensor, "*#points latent"] | float,
    other_variance: Float[Tensor, "*#points latent"] | float,
) -> Float[Tensor, "*points"]:
    r"""Kullback-Leibler divergence between diagonal Gaussians, summed over the last axis, in nats.

    .. math:: \tfrac12 \sum (v/w - 1 - \log(v/w) + (m - n)^2 / w)
    """
    ratio = variance / other_variance
    distance = (mean - other_mean).square() / other_variance
    return 0.5 * (ratio - 1.0 - ratio.log() + distance).sum(-1)


def _log_weights(weights: Float[Tensor, "components cells"]) -> Float[Tensor, "components cells"]:
    """Log weights, minus infinity at zero, with zero gradient there."""
    used = weights > 0
    return torch.where(used, weights, 1.0).log().masked_fill(~used, -torch.inf)


@dataclass(frozen=True)
class GaussianMixture:
    """One mixture of diagonal Gaussians a cell.

    Attributes
    ----------
    weights
        Shape ``(n_components, n_cells)``, summing to one over components; a component of weight
        zero must still have finite parameters.
    means
        Shape ``(n_components, n_cells, n_latent)``.
    variances
        Shape ``(n_components, n_cells, n_latent)``, positive.
    """

    weights: Float[Tensor, "components cells"]
    means: Float[Tensor, "components cells latent"]
    variances: Float[Tensor, "components cells latent"]

    @property
    def n_components(self) -> int:
        """Number of components."""
        return int(self.weights.shape[0])

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.weights.shape[1])

    @property
    def mean(self) -> Float[Tensor, "cells latent"]:
        """Mean, shape ``(n_cells, n_latent)``."""
        if self.n_components == 1:
            return self.means[0]
        return (self.weights.unsqueeze(-1) * self.means).sum(0)

    @property
    def variance(self) -> Float[Tensor, "cells latent"]:
        """Marginal variance of each coordinate, shape ``(n_cells, n_latent)``."""
        if self.n_components == 1:
            return self.variances[0]
        spread = self.variances + (self.means - self.mean).square()
        return (self.weights.unsqueeze(-1) * spread).sum(0)

    def take(self, cells: Int[Tensor, " taken"] | Bool[Tensor, " cells"]) -> GaussianMixture:
        """Mixtures of some cells, by position (int64 or bool)."""
        return GaussianMixture(
            self.weights[:, cells], self.means[:, cells], self.variances[:, cells]
        )

    def split(self, n_cells: int) -> list[GaussianMixture]:
        """Mixtures of runs of ``n_cells`` cells, as views."""
        parts = (each.split(n_cells, 1) for each in (self.weights, self.means, self.variances))
        return [GaussianMixture(*each) for each in zip(*parts, strict=True)]

    def detach(self) -> GaussianMixture:
        """The same mixtures without gradient."""
        return GaussianMixture(self.weights.detach(), self.means.detach(), self.variances.detach())

    def rsample(
        self,
        noise: Float[Tensor, "*draws cells latent"],
        uniforms: Float[Tensor, "*draws cells"] | None = None,
    ) -> Float[Tensor, "*draws cells latent"]:
        """Draw by reparametrisation; the choice of component carries no gradient.

        Parameters
        ----------
        noise
            Standard normal draws, shape ``(..., n_cells, n_latent)``.
        uniforms
            Uniform draws on [0, 1) that choose the component, shape ``(..., n_cells)``; not
            needed for one component.

        Returns
        -------
        Shape ``(..., n_cells, n_latent)``.

        Raises
        ------
        ValueError
            ``uniforms`` is missing though there are several components.
        """
        if self.n_components == 1:
            return self.means[0] + self.variances[0].sqrt() * noise
        if uniforms is None:
            raise ValueError("a mixture of several Gaussians needs uniforms to choose components")
        edges = self.weights.detach().cumsum(0)
        # components of weight zero are never chosen, not even where the sum ends below one
        last = (self.weights > 0).long().cumsum(0).argmax(0)
        # an edge equal to the draw belongs to the component above: weight zero is an empty interval
        chosen = uniforms.unsqueeze(0) >= edges.view(
            -1, *([1] * (uniforms.dim() - 1)), self.n_cells
        )
        component = torch.minimum(chosen.long().sum(0), last)
        cells = torch.arange(self.n_cells, device=noise.device).expand(component.shape)
        scale = self.variances[component, cells].sqrt()
        drawn: Tensor = self.means[component, cells] + scale * noise
        return drawn

    def log_prob(
        self, latent: Float[Tensor, "*draws cells latent"]
    ) -> Float[Tensor, "*draws cells"]:
        """Log density in nats of points ``(..., n_cells, n_latent)``, shape ``(..., n_cells)``."""
        per_component: list[Tensor] = [
            -0.5 * ((latent - mean).square() / variance + variance.log() + _LOG_2PI).sum(-1)
            for mean, variance in zip(self.means, self.variances, strict=True)
        ]
        if self.n_components == 1:
            return per_component[0]
        stacked = torch.stack(per_component, -1) + _log_weights(self.weights).T
        return torch.logsumexp(stacked, -1)

    def kl_to_prior(self) -> Float[Tensor, " cells"]:
        r"""Kullback-Leibler divergence to N(0, I) of each cell, shape ``(n_cells,)``, in nats.

        Exact for one component. For a mixture, an upper bound without sampling, so that an
        evidence lower bound that uses it stays one:

        .. math::
            \sum_i w_i \mathrm{KL}(q_i \| p)
            + \sum_i w_i \log \sum_j w_j e^{-B(q_i, q_j)},

        with the Bhattacharyya distance :math:`B` (Kolchinsky and Tracey 2017: lower bound of a
        mixture's entropy). It is exact where components coincide or are far apart.
        """
        per_component = gaussian_kl(self.means, self.variances, 0.0, 1.0)
        if self.n_components == 1:
            return per_component[0]
        overlap = torch.logsumexp(_log_weights(self.weights) - self._bhattacharyya(), dim=1)
        used = self.weights > 0
        terms = per_component + overlap.masked_fill(~used, 0.0)
        return (self.weights * terms).sum(0)

    def _bhattacharyya(self) -> Float[Tensor, "components components cells"]:
        """Distances between components, shape ``(n_components, n_components, n_cells)``."""
        left, right = self.variances.unsqueeze(1), self.variances.unsqueeze(0)
        middle = 0.5 * (left + right)
        gap = (self.means.unsqueeze(1) - self.means.unsqueeze(0)).square() / middle
        shape = middle.log() - 0.5 * (left.log() + right.log())
        return (0.125 * gap + 0.5 * shape).sum(-1)


def _cross_kl(
    q: GaussianMixture, p: GaussianMixture
) -> Float[Tensor, "{q.n_components} {p.n_components} cells"]:
    """Divergence of every pair of components, ``(q.n_components, p.n_components, n_cells)``."""
    return gaussian_kl(
        q.means.unsqueeze(1),
        q.variances.unsqueeze(1),
        p.means.unsqueeze(0),
        p.variances.unsqueeze(0),
    )


def kl(q: GaussianMixture, p: GaussianMixture) -> Float[Tensor, " {q.n_cells}"]:
    r"""Kullback-Leibler divergence ``KL(q || p)`` of each cell, shape ``(n_cells,)``, in nats.

    Exact where both are single Gaussians. For mixtures, the variational approximation

    .. math::
        \sum_i w_i \log \frac{\sum_j w_j e^{-\mathrm{KL}(q_i \| q_j)}}
                             {\sum_k u_k e^{-\mathrm{KL}(q_i \| p_k)}}

    (Hershey and Olsen 2007), which is zero where ``q`` equals ``p``; it is neither
    an upper nor a lower bound, and may be slightly negative.

    Parameters
    ----------
    q, p
        Mixtures of the same cells and latent dimensions.
    """
    across = _cross_kl(q, p)
    if q.n_components == 1 and p.n_components == 1:
        return across[0, 0]
    outside = torch.logsumexp(_log_weights(p.weights) - across, dim=1)
    inside = torch.logsumexp(_log_weights(q.weights) - _cross_kl(q, q), dim=1)
    return (q.weights * (inside - outside)).sum(0)
