"""Contrast of paired embeddings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mosaicvi._types import Float, Int


def infonce(
    left: Float[Tensor, "pairs dimensions"],
    right: Float[Tensor, "pairs dimensions"],
    *,
    temperature: Float[Tensor, ""],
    groups: Int[Tensor, " pairs"] | None = None,
) -> Float[Tensor, " pairs"]:
    r"""Symmetric InfoNCE of each pair, in nats.

    With cosine similarities :math:`s_{ij} = \cos(l_i, r_j) / \tau`,

    .. math::
        -\tfrac12 \log \frac{e^{s_{ii}}}{\sum_{j \in g(i)} e^{s_{ij}}}
        -\tfrac12 \log \frac{e^{s_{ii}}}{\sum_{j \in g(i)} e^{s_{ji}}}

    (van den Oord et al. 2018, in the symmetric form of CLIP, Radford et al. 2021).
    A pair that is alone in its group contributes exactly zero.

    Parameters
    ----------
    left, right
        Embeddings of the two sides, shape ``(n_pairs, n_dimensions)``; normalised here.
    temperature
        :math:`\tau > 0`, a scalar tensor; the caller clamps it.
    groups
        Group (batch) of each pair, shape ``(n_pairs,)``: negatives come from the same group, so
        that telling batches apart earns nothing. None: one group.

    Returns
    -------
    Shape ``(n_pairs,)``.
    """
    similarity = normalize(left, dim=-1) @ normalize(right, dim=-1).T / temperature
    if groups is not None:
        similarity = similarity.masked_fill(groups[:, None] != groups[None, :], -torch.inf)
    matched = similarity.diagonal()
    forward = torch.logsumexp(similarity, dim=1) - matched
    backward = torch.logsumexp(similarity, dim=0) - matched
    return 0.5 * (forward + backward)
