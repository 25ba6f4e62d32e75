"""The compiled mixture of two negative binomials as a function that torch can differentiate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mosaicvi import _compiled
from mosaicvi._types import Bool, Float
from mosaicvi.likelihoods._fused import NO_MASK


class _Mixture(torch.autograd.Function):
    """Log density of rows by the three heads and the two dispersions."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "cells features"],
        observed: Bool[Tensor, "..."],
        background: Float[Tensor, "cells features"],
        foreground: Float[Tensor, "cells features"],
        logit: Float[Tensor, "cells features"],
        theta: Float[Tensor, "2 features"],
    ) -> Float[Tensor, " cells"]:
        gradients = any(ctx.needs_input_grad)
        n_rows, n_features = x.shape
        size = n_rows * n_features if gradients else 0
        value = torch.empty(n_rows)
        slopes = [torch.empty(size) for _ in range(3)]
        by_theta = torch.empty(2, size)
        heads = [each.reshape(-1).numpy() for each in (background, foreground, logit)]
        given = x.reshape(-1).numpy(), observed.numpy(), theta.numpy(), *heads
        out = [each.numpy() for each in (value, *slopes, by_theta)]

        def work(_: int, rows: tuple[int, int]) -> None:
            _compiled.mixtures_forward(rows, *given, gradients, *out)

        _compiled.each_block(_compiled.row_blocks(n_rows), work)
        if gradients:
            ctx.save_for_backward(observed, background, foreground, *slopes, by_theta)
        return value

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, " cells"]
    ) -> tuple[Float[Tensor, "..."] | None, ...]:
        observed, background, foreground, *kept, by_theta = ctx.saved_tensors
        # A graph that is kept may be run backward again, so what is overwritten is a copy.
        low, high, logit = (each.clone() for each in kept)
        shape = background.shape
        blocks = _compiled.row_blocks(len(background))
        sums = torch.zeros(len(blocks), 2, shape[1])
        given = observed.numpy(), *(e.reshape(-1).numpy() for e in (background, foreground))
        out = gradient.contiguous().numpy(), *(e.numpy() for e in (low, high, logit, by_theta))

        def work(number: int, rows: tuple[int, int]) -> None:
            _compiled.mixtures_backward(rows, *given, *out, sums[number].numpy())

        _compiled.each_block(blocks, work)
        heads = (each.view(shape) for each in (low, high, logit))
        return None, None, *heads, sums.sum(0)


def fused_mixture(
    x: Float[Tensor, "cells features"],
    observed: Bool[Tensor, "cells features"] | None,
    heads: tuple[Float[Tensor, "..."], ...],
    theta: tuple[Float[Tensor, "..."], ...],
) -> Float[Tensor, "*draws cells"] | None:
    """Log density of cells; None where it is not compiled for what is given.

    Parameters
    ----------
    x
        Counts, shape ``(n_cells, n_features)``.
    observed
        Which of them count; None: all.
    heads
        Log background mean, foreground excess and logit of background, ``(n_cells, n_features)``.
    theta
        Dispersions of background and foreground, ``(n_features,)`` each.
    """
    parts = (x, *heads, *theta)
    if any(each.device.type != "cpu" or each.dtype != torch.float32 for each in parts):
        return None
    if any(each.shape != x.shape for each in heads) or not x.numel():
        return None
    if any(each.shape != x.shape[-1:] for each in theta):
        return None
    if observed is not None and observed.shape != x.shape:
        return None
    mask = NO_MASK if observed is None else observed.contiguous()
    contiguous = (each.contiguous() for each in heads)
    value: Tensor = _Mixture.apply(x.contiguous(), mask, *contiguous, torch.stack(theta))
    return value
