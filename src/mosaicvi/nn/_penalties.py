"""Priors of large parameters, whose gradients are one pass over them.

What autograd keeps and passes over for a square or a centred table takes several times as long, in
every step, however few features the step decodes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mosaicvi._types import Float


class _HalfSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*entries"]) -> Float[Tensor, ""]:
        ctx.save_for_backward(x)
        flat = x.reshape(-1)
        return 0.5 * torch.dot(flat, flat)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, ""]) -> Float[Tensor, "*entries"]:
        (x,) = ctx.saved_tensors
        slope: Tensor = x * gradient
        return slope


class _Student(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        raw: Float[Tensor, "batches features"],
        centred: Float[Tensor, "batches features"],
        weight: Float[Tensor, " features"],
        scale: float,
    ) -> Float[Tensor, ""]:
        squares = scale + centred.square().sum(0)
        # Derivatives by offsets add up to zero over batches, so centring leaves them as they are.
        ctx.save_for_backward(centred * (weight / squares))
        return 0.5 * torch.dot(weight, (squares / scale).log())

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, "batches features"] | None, ...]:
        (slope,) = ctx.saved_tensors
        return slope * gradient, None, None, None


def half_squares(x: Float[Tensor, "*entries"]) -> Float[Tensor, ""]:
    """Half the sum of squares, a scalar."""
    value: Tensor = _HalfSquares.apply(x)
    return value


def student(
    raw: Float[Tensor, "batches features"],
    centred: Float[Tensor, "batches features"],
    weight: Float[Tensor, " features"],
    scale: float,
) -> Float[Tensor, ""]:
    r"""Sum over features of :math:`\frac{w_f}{2} \log(1 + \sum_s \delta_{sf}^2 / c)`, a scalar.

    Parameters
    ----------
    raw
        What is learnt, by which is differentiated.
    centred
        :math:`\delta`: ``raw`` around its mean over the batches that count, zero in the others.
    weight, scale
        :math:`w` and :math:`c`.
    """
    value: Tensor = _Student.apply(raw, centred, weight, scale)
    return value
