"""Adversarial alignment: a discriminator tells modalities apart, encoders learn that it cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mosaicvi._types import Float, Int


class _Reverse(torch.autograd.Function):
    """The identity, whose gradient is turned around (Ganin et al. 2016)."""

    @staticmethod
    def forward(
        ctx: Any, values: Float[Tensor, "cells latent"], scale: float
    ) -> Float[Tensor, "cells latent"]:
        ctx.scale = scale
        return values.view_as(values)

    @staticmethod
    def backward(
        ctx: Any, gradient: Float[Tensor, "cells latent"]
    ) -> tuple[Float[Tensor, "cells latent"], None]:
        return -ctx.scale * gradient, None


def reverse(values: Float[Tensor, "cells latent"], scale: float) -> Float[Tensor, "cells latent"]:
    """``values``, with the gradient that flows back through them turned around, times ``scale``."""
    reversed_values: Tensor = _Reverse.apply(values, scale)
    return reversed_values


def discrimination(
    logits: Float[Tensor, "cells modalities"],
    modality: Int[Tensor, " cells"],
    weight: Float[Tensor, " cells"],
) -> Float[Tensor, ""]:
    """Cross-entropy of the modalities, in nats, each modality counting alike, a scalar.

    Parameters
    ----------
    logits
        Of each modality, shape ``(n_cells, n_modalities)``.
    modality
        True modality, shape ``(n_cells,)``.
    weight
        Weight of each cell within its modality, shape ``(n_cells,)``; a cell of a kind that the
        other modality lacks weighs nothing, and need not look like any of its cells.
    """
    nats = torch.nn.functional.cross_entropy(logits, modality, reduction="none")
    n_modalities = logits.shape[1]
    mass = torch.zeros(n_modalities, device=logits.device).index_add(0, modality, weight)
    total = torch.zeros(n_modalities, device=logits.device).index_add(0, modality, weight * nats)
    seen = mass > 0
    return (total[seen] / mass[seen]).mean()


def balancing_weights(
    groups: list[Int[np.ndarray, " _"]],
) -> list[Float[np.ndarray, " _"]]:
    r"""Weights under which all modalities hold the same share of each group of cells.

    :math:`w = \min_n p_n(g) / p_m(g)` for a cell of group g and modality m, where
    :math:`p_m(g)` is the group's share of the modality; zero where another modality lacks the group
    (the purpose of GLUE's balancing; Cao and Gao 2022).

    Parameters
    ----------
    groups
        Group of each cell, from 0, one array a modality.
    """
    n_groups = max(int(codes.max()) for codes in groups) + 1
    shares = np.stack([np.bincount(codes, minlength=n_groups) / len(codes) for codes in groups])
    least = shares.min(0)
    return [
        np.asarray((least / np.maximum(share, 1e-12))[codes])
        for share, codes in zip(shares, groups, strict=True)
    ]
