"""Stable special functions that the count densities share.

Every function works in float32 and float64 and loses no more than a few units in the last place
of its result, for counts up to 1e6 and dispersions from 1e-3 to 1e5. Differences of large
``lgamma`` values never appear: densities are written as Stirling errors plus deviances, after
Loader (2000), "Fast and accurate computation of binomial probabilities".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mosaicvi._types import Bool, Float, Int, Shaped, SparseCounts, Values

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)

_BLOCK_ENTRIES = 1 << 20
"""Entries a block: 4 MB a temporary in float32, whatever the number of cells and samples."""
_SHIFT = 4.0
"""Arguments below this are shifted up by it, so that five series terms leave an error of 5e-10."""
_STIRLING = (1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0)
_DIGAMMA = (-1.0 / 12.0, 1.0 / 120.0, -1.0 / 252.0, 1.0 / 240.0, -1.0 / 132.0)
_ATANH = tuple(-2.0 / (2 * k + 3) for k in range(6))
"""Coefficients of ``2 v - log(1 + u)`` over ``v^3``; see :func:`log_excess`."""


def full_precision(value: Float[Tensor, "*entries"]) -> Float[Tensor, "*entries"]:
    """Widen half-precision tensors (autocast) to float32; others unchanged."""
    return value.float() if value.dtype in {torch.float16, torch.bfloat16} else value


def _horner(
    x: Float[Tensor, "*entries"], coefficients: Sequence[float]
) -> Float[Tensor, "*entries"]:
    """Polynomial with ascending coefficients, at least two."""
    result = (x * coefficients[-1]).add_(coefficients[-2])
    for coefficient in reversed(coefficients[:-2]):
        result.mul_(x).add_(coefficient)
    return result


def _terms(
    x: Float[Tensor, "..."], coefficients: Sequence[float], in_float32: int
) -> Sequence[float]:
    """As many series coefficients as the dtype can tell apart."""
    return coefficients if x.dtype == torch.float64 else coefficients[:in_float32]


def choose(
    condition: Bool[Tensor, "*#entries"],
    when_true: Float[Tensor, "*entries"],
    when_false: Float[Tensor, "*#entries"],
) -> Float[Tensor, "*entries"]:
    """``torch.where`` for finite fresh tensors, which it overwrites.

    Without branches, which makes it several times faster on a CPU where conditions are mixed.
    """
    mask = condition.to(when_true.dtype)
    return when_true.mul_(mask).add_(when_false.mul_(1.0 - mask))


def stirling_error(
    z: Float[Tensor, "*entries"], *, slope: bool
) -> tuple[Float[Tensor, "*entries"], Float[Tensor, "*entries"] | Float[Tensor, "0"]]:
    """Error of Stirling's formula, and of its derivative.

    Parameters
    ----------
    z
        Positive values, any shape.
    slope
        Whether to compute the second result, which is empty otherwise.

    Returns
    -------
    ``lgamma(z) - ((z - 1/2) log z - z + 1/2 log(2 pi))`` and ``digamma(z) - log z``.
    """
    small = (z < _SHIFT).to(z.dtype)
    shifted = z + _SHIFT * small
    inverse = shifted.reciprocal()
    square = inverse * inverse
    error = _horner(square, _terms(z, _STIRLING, 3)).mul_(inverse)
    # lgamma(z) = lgamma(z + 4) - log(z (z + 1) (z + 2) (z + 3)); the clamp only avoids overflow
    low = z.clamp(max=_SHIFT)
    log_shifted, log_z = shifted.log(), z.log()
    product = (low * (low + 1.0)).mul_(low + 2.0).mul_(low + 3.0)
    correction = (shifted - 0.5).mul_(log_shifted).sub_((z - 0.5).mul_(log_z))
    error.add_(correction.sub_(_SHIFT).sub_(product.log()).mul_(small))
    if not slope:
        return error, z.new_empty(0)
    derivative = _horner(square, _terms(z, _DIGAMMA, 3)).mul_(square).sub_(0.5 * inverse)
    # digamma(z) = digamma(z + 4) - 1/z - 1/(z + 1) - 1/(z + 2) - 1/(z + 3)
    harmonic = low.reciprocal()
    for step in (1.0, 2.0, 3.0):
        harmonic.add_((low + step).reciprocal_())
    derivative.add_((log_shifted - log_z).sub_(harmonic).mul_(small))
    return error, derivative


def stirling_errors(
    *parts: Float[Tensor, "..."], slope: bool
) -> list[tuple[Float[Tensor, "..."], Float[Tensor, "..."]]]:
    """:func:`stirling_error` of several tensors in one pass: small tensors cost calls, not sums."""
    error, derivative = stirling_error(torch.cat([p.reshape(-1) for p in parts]), slope=slope)
    sizes = [part.numel() for part in parts]
    errors = [e.view(p.shape) for e, p in zip(error.split(sizes), parts, strict=True)]
    if not slope:
        return [(each, derivative) for each in errors]
    slopes = [d.view(p.shape) for d, p in zip(derivative.split(sizes), parts, strict=True)]
    return list(zip(errors, slopes, strict=True))


def log_excess(
    u: Float[Tensor, "*entries"], ratio: Float[Tensor, "*entries"]
) -> Float[Tensor, "*entries"]:
    """``u - log(1 + u)``, to relative precision where ``u`` is small.

    Parameters
    ----------
    u
        Values above -1.
    ratio
        ``1 + u``, computed so that it keeps its relative precision where ``u`` is close to -1.
    """
    # v = u / (2 + u) gives log(1 + u) = 2 atanh(v) and u - 2 v = u v without cancellation
    v = u / (u + 2.0)
    square = v * v
    series = _horner(square, _terms(u, _ATANH, 4)).mul_(square).add_(u).mul_(v)
    return choose(u.abs() < 0.2, series, u - ratio.log())


class _OneWayClamp(torch.autograd.Function):
    """Clamp whose gradient outside the range passes only where descent leads back inside."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*entries"], low: float, high: float
    ) -> Float[Tensor, "*entries"]:
        ctx.save_for_backward(x)
        ctx.range = low, high
        return x.clamp(low, high)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, "*entries"]
    ) -> tuple[Float[Tensor, "*entries"], None, None]:
        (x,) = ctx.saved_tensors
        low, high = ctx.range
        leaves = ((x < low) & (gradient > 0)) | ((x > high) & (gradient < 0))
        return gradient.masked_fill(leaves, 0.0), None, None


def one_way_clamp(
    x: Float[Tensor, "*entries"], low: float, high: float
) -> Float[Tensor, "*entries"]:
    """Clamp to ``[low, high]`` for values that are minimised by gradient descent.

    An ordinary clamp has no gradient outside its range, so an optimiser step that overshoots
    freezes the parameter for good. Here the gradient that leads back inside passes.
    """
    clamped: Tensor = _OneWayClamp.apply(x, low, high)
    return clamped


def at_stored(
    parameter: Shaped[Tensor, "..."],
    values: Float[SparseCounts, "cells features"],
    chosen: Int[Tensor, " chosen"] | None = None,
) -> Shaped[Tensor, "... stored"]:
    """Gather a parameter at the stored entries, without materialising its broadcast shape.

    Parameters
    ----------
    parameter
        Broadcastable to ``(..., n_cells, n_features)``.
    values
        Counts whose pattern is read.
    chosen
        Which of the stored entries, by number; None: all.

    Returns
    -------
    Shape ``(..., n_stored)``; leading axes are those of the parameter.
    """
    if parameter.shape[-1] == 1:
        parameter = parameter.expand(*parameter.shape[:-1], values.n_features)
    per_feature = parameter.dim() == 1 or parameter.shape[-2] == 1
    places = values.indices if per_feature else values.flat
    if chosen is not None:
        places = places.index_select(0, chosen)
    leading = parameter.shape[: -1 if parameter.dim() == 1 else -2]
    return parameter.reshape(*leading, -1).index_select(-1, places)


def weigh_stored(
    stored: Float[Tensor, "*draws stored"],
    values: Float[SparseCounts, "cells features"],
    weights: Float[Tensor, " features"] | None,
) -> Float[Tensor, "*draws stored"]:
    """Numbers at stored entries, times the weight of their feature."""
    return stored if weights is None else stored * weights[values.indices]


def put_stored(
    dense: Float[Tensor, "*draws cells features"],
    values: Float[SparseCounts, "cells features"],
    stored: Float[Tensor, "*#draws stored"] | float,
) -> None:
    """Write ``stored`` (``(..., n_stored)`` or a number) into a contiguous dense tensor."""
    flat = dense.view(math.prod(dense.shape[:-2]), values.n_cells * values.n_features)
    positions = values.flat
    if not isinstance(stored, Tensor):
        flat.index_fill_(1, positions, stored)
        return
    # one leading axis at a time: torch's indexing is slow on more than one axis
    parts = stored.expand(*dense.shape[:-2], positions.shape[0]).reshape(flat.shape[0], -1)
    for row, part in zip(flat, parts, strict=True):
        row.scatter_(0, positions, part)


def sum_log(x: Float[Tensor, "*draws cells features"]) -> Float[Tensor, "*draws cells"]:
    """Sum over features of ``log(x)``, for ``x`` between 1e-9 and 1e9.

    Products of four neither over- nor underflow, and cost less than three logarithms.
    """
    total = x.new_zeros(())
    for _ in range(2):
        half = x.shape[-1] // 2
        if x.shape[-1] % 2:
            total = total + x[..., -1].log()
        x = x[..., :half] * x[..., half : 2 * half]
    return x.log_().sum(-1) + total


def row_sums(
    stored: Float[Tensor, "*draws stored"], values: Float[SparseCounts, "cells features"]
) -> Float[Tensor, "*draws cells"]:
    """Sum stored numbers over each cell, ``(..., n_stored)`` to ``(..., n_cells)``.

    A segment sum, because it adds in one order on every device, unlike an atomic scatter.
    """
    leading = stored.shape[:-1]
    flat = stored.reshape(math.prod(leading), stored.shape[-1])
    starts = torch.arange(flat.shape[0], device=stored.device)[:, None] * flat.shape[1]
    offsets = torch.cat(
        [(starts + values.indptr[:-1]).flatten(), starts.new_tensor([flat.numel()])]
    )
    sums: Tensor = torch.segment_reduce(flat.flatten(), "sum", offsets=offsets, initial=0.0)
    return sums.view(*leading, values.n_cells)


def log_sigmoids(
    logit: Float[Tensor, "*entries"],
) -> tuple[Float[Tensor, "*entries"], Float[Tensor, "*entries"]]:
    """``log sigmoid(l)`` and ``log sigmoid(-l)``, both without cancellation."""
    tail = logit.abs().neg_().exp_().log1p_()
    return logit.clamp(max=0.0).sub_(tail), logit.clamp(min=0.0).neg_().sub_(tail)


def row_blocks(shape: torch.Size, device: torch.device) -> Iterator[slice]:
    """Cut ``(..., n_cells, n_features)`` into blocks of cells, which bounds memory.

    One block on an accelerator, where large kernels are better and memory is read once.
    """
    n_cells = shape[-2]
    width = math.prod(shape) // max(n_cells, 1)
    size = max(1, _BLOCK_ENTRIES // max(width, 1)) if device.type == "cpu" else max(n_cells, 1)
    for start in range(0, n_cells, size):
        yield slice(start, min(start + size, n_cells))


def take_rows(tensor: Shaped[Tensor, "..."], rows: slice) -> Shaped[Tensor, "..."]:
    """Rows of a tensor that broadcasts to ``(..., n_cells, n_features)``."""
    return tensor if tensor.dim() < 2 or tensor.shape[-2] == 1 else tensor[..., rows, :]


def take_cells(
    values: Float[SparseCounts, "cells features"], rows: slice
) -> Float[SparseCounts, "taken features"]:
    """A run of cells, as views."""
    if rows.start == 0 and rows.stop == values.n_cells:
        return values
    start, stop = int(values.indptr[rows.start]), int(values.indptr[rows.stop])
    return SparseCounts(
        values.indptr[rows.start : rows.stop + 1] - start,
        values.indices[start:stop],
        values.values[start:stop],
        values.n_features,
    )


def broadcast_shape(
    *tensors: Float[Tensor, "*#entries"], values: Float[Values, "*#entries"]
) -> torch.Size:
    """Common shape ``(..., n_cells, n_features)`` of parameters and values."""
    return torch.Size(torch.broadcast_shapes(*(t.shape for t in tensors), torch.Size(values.shape)))


def reduce_to(
    gradient: Float[Tensor, "*draws cells"],
    entries: Float[Tensor, "*draws cells features"],
    shape: torch.Size,
) -> Float[Tensor, "..."]:
    """Weight entry-wise derivatives by the cells' incoming gradients and sum to a shape.

    Parameters
    ----------
    gradient
        Incoming gradient of each cell, shape ``(..., n_cells)``.
    entries
        Derivative of each entry, shape ``(..., n_cells, n_features)``.
    shape
        Shape of the parameter.
    """
    if shape == entries.shape[-1:]:  # one value a feature: a vector-matrix product, no temporary
        return gradient.reshape(1, -1).mm(entries.reshape(-1, entries.shape[-1])).view(shape)
    return (entries * gradient.unsqueeze(-1)).sum_to_size(shape)


def without_graph(*tensors: Float[Tensor, "*#entries"]) -> tuple[Float[Tensor, "*#entries"], ...]:
    """Detach where gradients are off, so that no derivative is computed for nothing."""
    return tensors if torch.is_grad_enabled() else tuple(t.detach() for t in tensors)
