r"""Some of a modality's features, from which a step estimates its likelihood.

A step that decodes every feature spends as much on genes that hardly any cell shows as on those
that tell cells apart. Feature f is drawn with probability :math:`\pi_f` and counts
:math:`w_f = 1 / \pi_f` times, which leaves the expected sum over features as it is (Horvitz and
Thompson 1952). The derivative of a count's log density by its log mean has a variance near the
mean, so :math:`\pi_f \propto \sqrt{p_f}` up to one, where :math:`p_f` is the feature's share of
all counts, gives the least variance for the number of features drawn. The normaliser of a
composition is estimated from the same sample; most of it comes from features that are always drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mosaicvi._types import Float, Int

_ROUNDS = 8


@dataclass(frozen=True)
class FeatureSample:
    """Features that a step decodes.

    Attributes
    ----------
    features
        Their numbers, ascending, shape ``(n_sampled,)``, int64.
    weights
        For how many features each stands, shape ``(n_sampled,)``.
    """

    features: Int[Tensor, " sampled"]
    weights: Float[Tensor, " sampled"]


def inclusion(log_share: Float[Tensor, " features"], n_sampled: int) -> Float[Tensor, " features"]:
    """Probability of each feature to be drawn, ``min(1, c sqrt(share))``; it sums to ``n_sampled``.

    Parameters
    ----------
    log_share
        Log of each feature's share of all counts, up to a constant, shape ``(n_features,)``.
    n_sampled
        Features to draw, on average.
    """
    size = (0.5 * (log_share - log_share.max())).exp().double().clamp_min(1e-12)
    probability = torch.zeros_like(size)
    certain = torch.zeros_like(size, dtype=torch.bool)
    for _ in range(_ROUNDS):
        # Features that would be drawn more than once are always drawn; the others share the rest.
        scale = (n_sampled - certain.sum()) / size.masked_fill(certain, 0.0).sum().clamp_min(1e-12)
        probability = torch.where(certain, 1.0, scale * size)
        over = probability >= 1.0
        if bool((over == certain).all()):
            break
        certain = over
    return probability.clamp(1e-6, 1.0)


def draw_features(
    probability: Float[Tensor, " features"], uniform: Float[Tensor, ""]
) -> FeatureSample:
    """Systematic sample: as many features as the probabilities sum to, to within one.

    Parameters
    ----------
    probability
        Shape ``(n_features,)``.
    uniform
        One draw from [0, 1).
    """
    ends = torch.floor(probability.double().cumsum(0) + uniform)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    features = torch.nonzero(ends > starts).squeeze(-1)
    return FeatureSample(features, probability[features].reciprocal().float())
