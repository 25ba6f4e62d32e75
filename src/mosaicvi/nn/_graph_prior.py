r"""Feature embeddings tied by the feature graph, and what the graph says of them.

With edges of sign :math:`s_{ij}` and weight :math:`w_{ij}`,

.. math::
    v_i = \frac{e_i}{d_i} + \sum_j \frac{s_{ij} w_{ij}}{\sqrt{d_i d_j}} e_j,
    \qquad d_i = 1 + \sum_j w_{ij}

one step of graph convolution (Kipf and Welling 2017; Cao and Gao 2022) over the free embeddings
:math:`e \sim N(0, \sigma^2)`. A feature without edges has :math:`v_i = e_i`. An edge is scored by
:math:`\operatorname{sigmoid}(a\, s_{ij} v_i \cdot v_j)` against pairs drawn by degree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mosaicvi._types import Float, Float32, Int, Real

N_SCORED = 4096
"""Edges scored in a step."""

DEGREE_POWER = 0.75
"""Negatives are drawn by degree to this power (Mikolov et al. 2013)."""


@dataclass(frozen=True)
class GraphArrays:
    """Edges between features numbered through all modalities.

    Attributes
    ----------
    source, target
        Features of each edge, int64, shape ``(n_edges,)``.
    sign
        1 or -1, shape ``(n_edges,)``.
    weight
        In (0, 1], shape ``(n_edges,)``: that of the graph, times how far cells bear the edge out.
    n_features
        Features of each modality, in order.
    """

    source: Int[np.ndarray, " edges"]
    target: Int[np.ndarray, " edges"]
    sign: Real[np.ndarray, " edges"]
    weight: Float[np.ndarray, " edges"]
    n_features: tuple[int, ...]

    @classmethod
    def blank(cls, n_edges: int, n_features: tuple[int, ...]) -> GraphArrays:
        """Edges of a number, to be overwritten from a file."""
        zeros = np.zeros(n_edges, dtype=np.int64)
        return cls(zeros, zeros, np.ones(n_edges), np.ones(n_edges), n_features)


class FeatureGraphPrior(nn.Module):
    """Embeddings of all features, each from its own and its neighbours' free parts.

    Parameters
    ----------
    arrays
        Edges.
    n_latent
        Dimensions of the latent space.
    prior_scale
        Standard deviation of the free embeddings' entries.
    """

    source: Tensor
    target: Tensor
    sign: Tensor
    weight: Tensor

    def __init__(self, arrays: GraphArrays, n_latent: int, *, prior_scale: float) -> None:
        super().__init__()
        self.prior_scale = prior_scale
        n_total = sum(arrays.n_features)
        self.sizes = arrays.n_features
        # Copied: a graph's arrays are read-only, and a tensor that shared them would not be.
        for name, values, dtype in (
            ("source", arrays.source, torch.int64),
            ("target", arrays.target, torch.int64),
            ("sign", arrays.sign, torch.float32),
            ("weight", arrays.weight, torch.float32),
        ):
            self.register_buffer(name, torch.as_tensor(np.array(values), dtype=dtype))
        self.own = nn.Parameter(torch.randn(n_total, n_latent) * 0.05)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def embeddings(self) -> Float[Tensor, "features latent"]:
        """Embeddings of the features of all modalities, shape ``(n_features, n_latent)``."""
        both = torch.cat([self.source, self.target])
        other = torch.cat([self.target, self.source])
        twice = torch.cat([self.weight, self.weight])
        degree = torch.ones(self.own.shape[0], device=self.own.device).index_add(0, both, twice)
        signed = twice * torch.cat([self.sign, self.sign])
        share = (signed * (degree[both] * degree[other]).rsqrt()).unsqueeze(-1)
        near = torch.zeros_like(self.own).index_add(0, both, share * self.own[other])
        return self.own / degree.unsqueeze(-1) + near

    def split(
        self, embeddings: Float[Tensor, "features latent"]
    ) -> tuple[Float[Tensor, "..."], ...]:
        """Embeddings of each modality's features, in order."""
        return torch.split(embeddings, list(self.sizes))

    def edge_loss(self, embeddings: Float[Tensor, "features latent"]) -> Float32[Tensor, ""]:
        """Cost of the edges against drawn pairs, in nats per edge, a scalar.

        Edges are drawn by weight, so the expectation is the weighted mean over edges however many
        are drawn. A negative takes the place of an edge's target, drawn by degree within the
        target's modality.
        """
        if not len(self.weight):
            return torch.zeros((), device=self.own.device)
        chosen = torch.multinomial(self.weight, N_SCORED, replacement=True)
        source, target, sign = self.source[chosen], self.target[chosen], self.sign[chosen]
        wrong = self._negatives(target)
        scale = self.log_scale.exp()
        right_score = scale * sign * (embeddings[source] * embeddings[target]).sum(-1)
        wrong_score = scale * sign * (embeddings[source] * embeddings[wrong]).sum(-1)
        return (softplus(-right_score) + softplus(wrong_score)).mean()

    def _negatives(self, target: Int[Tensor, " edges"]) -> Int[Tensor, " edges"]:
        """Features of the targets' modalities, drawn by degree."""
        ends = torch.cumsum(torch.tensor(self.sizes, device=target.device), 0)
        modality = torch.bucketize(target, ends, right=True)
        both = torch.cat([self.source, self.target])
        # An edge of weight zero is no edge.
        counted = (torch.cat([self.weight, self.weight]) > 0).float()
        degree = torch.zeros(len(self.own), device=target.device).index_add(0, both, counted)
        drawn = torch.empty_like(target)
        for code in range(len(self.sizes)):
            here = modality == code
            n_here = int(here.sum())
            if n_here:
                stop = int(ends[code])
                mass = degree[stop - self.sizes[code] : stop] ** DEGREE_POWER
                draws = torch.multinomial(mass, n_here, replacement=True)
                drawn[here] = draws + stop - self.sizes[code]
        return drawn

    def negative_log_prior(self) -> Float[Tensor, ""]:
        """Negative log prior of the free embeddings up to a constant, in nats, a scalar."""
        return 0.5 * self.own.square().sum() / self.prior_scale**2
