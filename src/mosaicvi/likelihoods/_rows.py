r"""Log density of whole cells, from means or from the logits of a composition, in one function.

Autograd through ``log_softmax``, ``exp`` and a density would keep and pass over a dozen arrays of
``(draws, cells, features)``. Here a density states its derivatives by the log mean, and the chain
rule of the softmax is one further pass: with :math:`\mu_f = l \, \mathrm{softmax}(a)_f`,

.. math::
    \frac{\partial L}{\partial a_f} = \frac{\partial L}{\partial \log \mu_f}
        - \frac{\mu_f}{l} \sum_g \frac{\partial L}{\partial \log \mu_g}.

Where the features are a sample of all, feature f stands for :math:`w_f` of them: it counts so often
in the density and in the sum of the softmax, :math:`\mu_f = l e^{a_f} / \sum_g w_g e^{a_g}`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mosaicvi._types import Bool, Float, SparseCounts
from mosaicvi.likelihoods._fused import CompiledDensity, fused_rows
from mosaicvi.likelihoods._math import (
    broadcast_shape,
    reduce_to,
    row_blocks,
    take_cells,
    take_rows,
    without_graph,
)

Block = Callable[..., tuple[Float[Tensor, "..."], ...]]
"""``block(values, mean, *others, observed=, weights=, gradients=)``: log density of each cell, with
entries weighted by feature, and, if asked for, the derivative of each entry, unweighted, by log
mean and by each of ``others``. It leaves its arguments as they are, and returns arrays that are
nobody else's."""


class _Rows(torch.autograd.Function):
    """Log density of each cell, with derivatives that the density itself states."""

    @staticmethod
    def forward(
        ctx: Any,
        block: Block,
        values: Float[SparseCounts, "cells features"],
        observed: Bool[Tensor, "cells features"] | None,
        weights: Float[Tensor, " features"] | None,
        mean: Float[Tensor, "*draws cells features"],
        library: Float[Tensor, "*#draws #cells"] | None,
        location: Float[Tensor, "*draws cells features"],
        *others: Float[Tensor, "*#entries"],
    ) -> Float[Tensor, "*draws cells"]:
        gradients = any(ctx.needs_input_grad[6:])

        def part(rows: slice) -> tuple[Float[Tensor, "..."], ...]:
            size = None if library is None else take_rows(library.unsqueeze(-1), rows)
            if size is None:
                at_mean = take_rows(mean, rows)
            elif weights is None:
                at_mean = torch.softmax(take_rows(location, rows), -1).mul_(size)
            else:
                at_mean = torch.softmax(take_rows(location, rows) + weights.log(), -1)
                at_mean.mul_(size).div_(weights)
            value, *slopes = block(
                take_cells(values, rows),
                at_mean,
                *(take_rows(other, rows) for other in others),
                observed=None if observed is None else take_rows(observed, rows),
                weights=weights,
                gradients=gradients,
            )
            if gradients and weights is not None:
                for slope in slopes:
                    slope.mul_(weights)
                at_mean = at_mean * weights
            if gradients and size is not None:
                slopes[0].addcmul_(at_mean, slopes[0].sum(-1, keepdim=True) / size, value=-1.0)
            return value, *slopes

        blocks = list(row_blocks(location.shape, location.device))
        # Where networks compute in half precision, sums over features must not.
        with torch.autocast(location.device.type, enabled=False):
            if len(blocks) == 1:
                value, *slopes = part(blocks[0])
            else:
                value = location.new_empty(location.shape[:-1])
                n_slopes = 1 + len(others) if gradients else 0
                slopes = [torch.empty_like(location) for _ in range(n_slopes)]
                for rows in blocks:
                    value[..., rows], *parts = part(rows)
                    for slope, piece in zip(slopes, parts, strict=True):
                        slope[..., rows, :] = piece
        if gradients:
            ctx.save_for_backward(*slopes)
            ctx.shapes = [location.shape, *(other.shape for other in others)]
        return value

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, "*draws cells"]
    ) -> tuple[Float[Tensor, "..."] | None, ...]:
        slopes = zip(ctx.saved_tensors, ctx.shapes, strict=True)
        return *(None,) * 6, *(reduce_to(gradient, s, shape) for s, shape in slopes)


def rows_from_means(
    block: Block,
    values: Float[SparseCounts, "cells features"],
    observed: Bool[Tensor, "cells features"] | None,
    mean: Float[Tensor, "*#entries"],
    log_mean: Float[Tensor, "*#entries"],
    *others: Float[Tensor, "*#entries"],
) -> Float[Tensor, "*draws cells"]:
    """Log density of each cell, differentiable by log mean and the other parameters.

    Parameters
    ----------
    block
        The density.
    values
        Counts, shape ``(n_cells, n_features)``.
    observed
        Bool ``(n_cells, n_features)``; entries that are False add nothing. None: all observed.
    mean, log_mean
        Means, which are read, and their logs, by which is differentiated.
    *others
        The density's further parameters.
    """
    shape = broadcast_shape(log_mean, *others, values=values)
    log_mean, *rest = without_graph(log_mean.expand(shape), *others)
    mean = mean.detach().expand(shape)
    value: Tensor = _Rows.apply(block, values, observed, None, mean, None, log_mean, *rest)
    return value


def rows_from_logits(
    block: Block,
    values: Float[SparseCounts, "cells features"],
    observed: Bool[Tensor, "cells features"] | None,
    library: Float[Tensor, "*#draws #cells"],
    logits: Float[Tensor, "*draws cells features"],
    *others: Float[Tensor, "*#entries"],
    weights: Float[Tensor, " features"] | None = None,
    compiled: CompiledDensity | None = None,
) -> Float[Tensor, "*draws cells"]:
    """As :func:`rows_from_means`, with means ``library * softmax(logits)``, by the logits.

    ``weights`` says for how many features each one stands; None: for itself. ``compiled`` is the
    same density, compiled, which is taken where it can be.
    """
    logits, *rest = without_graph(logits, *others)
    if compiled is not None:
        fused = fused_rows(compiled, values, observed, library, logits, *rest, weights=weights)
        if fused is not None:
            return fused
    value: Tensor = _Rows.apply(block, values, observed, weights, logits, library, logits, *rest)
    return value
