"""Which modalities speak for a cell in a term, and latent draws from what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mosaicvi.fusion import GaussianMixture


def random_evidence(present: Tensor, target: int) -> Tensor:
    """Draw, for each cell, a non-empty subset of its modalities other than the target, uniformly.

    Parameters
    ----------
    present
        Bool ``(n_modalities, n_cells)``.
    target
        Number of the modality that the subset must not hold.

    Returns
    -------
    Bool of the same shape; cells with nothing but the target get the empty subset.
    """
    others = present.clone()
    others[target] = False
    # A number from 1 to 2^n - 1 whose bits are the cell's n other modalities: never none.
    n_subsets = 2.0 ** others.sum(0) - 1
    uniform = torch.rand(n_subsets.shape, device=present.device)
    number = 1 + torch.minimum((uniform * n_subsets).floor(), n_subsets - 1).long()
    bit = (others.long().cumsum(0) - 1).clamp_min(0)
    return others & ((number >> bit) & 1).bool()


def draw(posterior: GaussianMixture, n_samples: int | None = None) -> Tensor:
    """Reparametrised draws, shape ``(n_cells, n_latent)`` or ``(n_samples, n_cells, n_latent)``."""
    leading = () if n_samples is None else (n_samples,)
    like = posterior.means[0]
    noise = torch.randn((*leading, *like.shape), device=like.device)
    if posterior.n_components == 1:
        return posterior.rsample(noise)
    return posterior.rsample(noise, torch.rand((*leading, like.shape[0]), device=like.device))
