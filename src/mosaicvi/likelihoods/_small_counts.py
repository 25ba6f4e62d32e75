r"""What a small whole count and its feature say alone: tables instead of series.

Most stored counts are ones and twos, and what their density needs of gamma functions is a short
sum: for a negative binomial with :math:`r = \mu / \theta`,

.. math::
    \log p(x) = \sum_{k < x} \log(1 + k / \theta) - \log x!
                + x \log \mu - (x + \theta) \log(1 + r),

whose first two terms depend on the count and the feature alone. For counts up to
:data:`LARGEST` no term is large, so nothing cancels that single precision would miss; larger counts
and numbers that are not whole need the series of :mod:`~mosaicvi.likelihoods._math`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mosaicvi._types import Float, Int

LARGEST = 15
"""Largest count that is looked up."""


def split_small(
    x: Float[Tensor, "*entries"],
) -> tuple[Int[Tensor, "*entries"], Int[Tensor, " others"] | None]:
    """Counts as row numbers of a table, and positions of those that are not in it.

    Returns
    -------
    Int64 of the same shape, from 0 to :data:`LARGEST`; numbers of the other entries where ``x`` is
    flattened, or None where there are none.
    """
    numbers = x.clamp(0, LARGEST).long()
    others = torch.nonzero((numbers != x).flatten()).squeeze(-1)
    return numbers, others if others.numel() else None


def log_factorials(like: Float[Tensor, "..."]) -> Float[Tensor, " counts"]:
    """``log x!`` for counts 0 to :data:`LARGEST`."""
    counts = torch.arange(LARGEST + 1, dtype=like.dtype, device=like.device)
    return torch.lgamma(counts + 1.0)


def negative_binomial_table(
    theta: Float[Tensor, " features"], *, gradients: bool
) -> tuple[Float[Tensor, "counts features"], Float[Tensor, "counts features"] | None]:
    r"""What a count and a feature add to the density and to its derivative.

    Parameters
    ----------
    theta
        Dispersion of each feature, shape ``(n_features,)``.
    gradients
        Whether to compute the second array.

    Returns
    -------
    The density's first two terms, and :math:`\sum_{k < x} 1 / (\theta + k)`, the derivative by
    ``theta`` of :math:`\log \Gamma(x + \theta) - \log \Gamma(\theta)`; each of shape
    ``(LARGEST + 1, n_features)``, with a row for every count from zero.
    """
    steps = torch.arange(LARGEST, dtype=theta.dtype, device=theta.device).unsqueeze(-1)
    none = theta.new_zeros(1, theta.shape[0])
    sums = (steps / theta).log1p_().cumsum(0)
    constant = torch.cat([none, sums]) - log_factorials(theta).unsqueeze(-1)
    if not gradients:
        return constant, None
    return constant, torch.cat([none, (steps + theta).reciprocal_().cumsum(0)])
