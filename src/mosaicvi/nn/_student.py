"""Offsets around their mean over batches, and their Student prior."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mosaicvi import _compiled
from mosaicvi._types import Bool, Float


def centred(
    raw: Float[Tensor, "batches features"],
    present: Bool[Tensor, "batches features"] | None,
    counts: Float[Tensor, " features"],
) -> Float[Tensor, "batches features"]:
    """Offsets around their mean over the batches that count, and zero in the others.

    Parameters
    ----------
    raw
        Shape ``(n_batches, n_features)``.
    present
        Which count, of the same shape; None: all.
    counts
        How many do, at least one, shape ``(n_features,)``.
    """
    if present is None:
        return raw - raw.mean(0)
    mask = present.to(raw.dtype)
    return (raw - (raw * mask).sum(0) / counts) * mask


class _Student(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        raw: Float[Tensor, "batches features"],
        present: Bool[Tensor, "batches features"] | None,
        counts: Float[Tensor, " features"],
        weight: Float[Tensor, " features"],
        scale: float,
    ) -> Float[Tensor, ""]:
        # Derivatives by offsets add up to zero over batches, so centring leaves them as they are.
        if raw.device.type == "cpu" and raw.dtype == torch.float32:
            slope = torch.empty_like(raw, memory_format=torch.contiguous_format)
            mask = np.empty((0, 0), bool) if present is None else present.contiguous().numpy()
            given = raw.contiguous().numpy(), mask, counts.numpy(), weight.numpy(), scale
            value = raw.new_tensor(_compiled.student_prior(*given, slope.numpy()))
        else:
            table = centred(raw, present, counts)
            squares = scale + table.square().sum(0)
            slope = table * (weight / squares)
            value = 0.5 * (weight * (squares / scale).log()).sum()
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, "batches features"] | None, ...]:
        (slope,) = ctx.saved_tensors
        return slope * gradient, None, None, None, None


def student(
    raw: Float[Tensor, "batches features"],
    present: Bool[Tensor, "batches features"] | None,
    counts: Float[Tensor, " features"],
    weight: Float[Tensor, " features"],
    scale: float,
) -> Float[Tensor, ""]:
    r"""Sum over features of :math:`\frac{w_f}{2} \log(1 + \sum_s \delta_{sf}^2 / c)`, a scalar.

    :math:`\delta` is ``raw`` as :func:`centred`, whose parameters are the first three.

    Parameters
    ----------
    raw
        What is learnt, by which is differentiated.
    present, counts
        Which offsets count, and how many of a feature.
    weight, scale
        :math:`w` and :math:`c`.
    """
    value: Tensor = _Student.apply(raw, present, counts, weight, scale)
    return value
