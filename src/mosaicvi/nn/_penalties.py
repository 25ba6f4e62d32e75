"""Priors of large parameters, whose gradients are one pass over them.

What autograd keeps and passes over for a square takes several times as long, in every step,
however few features the step decodes.
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


def half_squares(x: Float[Tensor, "*entries"]) -> Float[Tensor, ""]:
    """Half the sum of squares, a scalar."""
    value: Tensor = _HalfSquares.apply(x)
    return value
