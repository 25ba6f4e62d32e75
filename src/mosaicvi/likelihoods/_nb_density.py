"""Density of negative binomial counts, of entries and of cells, with its derivatives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mosaicvi._compiled import SMALLEST_MEAN
from mosaicvi._types import Bool, Float, Int, SparseCounts
from mosaicvi.likelihoods._math import (
    at_stored,
    choose,
    log_excess,
    put_stored,
    row_sums,
    stirling_error,
    stirling_errors,
    weigh_stored,
    without_graph,
)
from mosaicvi.likelihoods._small_counts import negative_binomial_table, split_small

_LOG_2PI = math.log(2.0 * math.pi)


def negative_binomial(
    x: Float[Tensor, "*#entries"],
    mean: Float[Tensor, "*#entries"],
    theta: Float[Tensor, "*#entries"],
    *,
    gradients: bool,
    theta_errors: tuple[Float[Tensor, "..."], Float[Tensor, "..."]] | None = None,
) -> tuple[
    Float[Tensor, "*entries"],
    Float[Tensor, "*entries"] | Float[Tensor, "0"],
    Float[Tensor, "*entries"] | Float[Tensor, "0"],
]:
    r"""Log density of counts ``x >= 0``, and its derivatives, entry by entry, without autograd.

    With :math:`n = x + \theta`, :math:`\delta = (x - \mu) / (\mu + \theta)`,
    :math:`\epsilon = -\theta \delta / x` and :math:`f(u) = u - \log(1 + u)`,

    .. math::
        \log p = s(n) - s(\theta) - s(x) + \tfrac12 \log \frac{\theta}{2 \pi x n}
                 - x f(\epsilon) - \theta f(\delta),

    where :math:`s` is the error of Stirling's formula; no two large terms cancel (Loader 2000,
    with a real number of trials). At zero it is
    :math:`\theta \log(\theta / (\theta + \mu))`.

    Parameters
    ----------
    x, mean, theta
        Counts, mean and inverse dispersion, broadcastable to each other. What depends on counts
        and dispersion alone is computed at their common shape.
    gradients
        Whether to compute derivatives, which are empty otherwise.
    theta_errors
        :func:`stirling_error` of ``theta``, where it is known already.

    Returns
    -------
    Log density in nats; its derivative by the log mean; its derivative by ``theta``.
    """
    empty = x <= 0
    count = x.masked_fill(empty, 1.0)
    total = x + theta
    parts = (total, count) if theta_errors else (total, count, theta)
    errors = stirling_errors(*parts, slope=gradients)
    (error_total, slope_total), (error_count, _) = errors[:2]
    error_theta, slope_theta = theta_errors or errors[2]
    constant = error_total - error_theta - error_count
    constant = constant + 0.5 * (theta.log() - (count * total).log() - _LOG_2PI)
    present = (~empty).to(x.dtype)
    constant = constant * present

    mean = mean.clamp(min=SMALLEST_MEAN)
    denominator = mean + theta
    delta = (x - mean) / denominator
    excess = log_excess(delta, total / denominator)
    tilt = theta * delta
    deviance = count * log_excess(-tilt / count, (mean / denominator) * (total / count))
    # x f(epsilon) tends to -theta delta as x tends to zero
    deviance = choose(empty, -tilt, deviance)
    value = constant - deviance - theta * excess
    if not gradients:
        return value, x.new_empty(0), x.new_empty(0)
    return value, tilt, (slope_total - slope_theta) * present - excess


class _Entries(torch.autograd.Function):
    """Log density of each entry of dense counts."""

    @staticmethod
    def forward(
        ctx: Any,
        log_mean: Float[Tensor, "*#entries"],
        theta: Float[Tensor, "*#entries"],
        x: Float[Tensor, "*#entries"],
    ) -> Float[Tensor, "*entries"]:
        gradients = any(ctx.needs_input_grad[:2])
        value, by_mean, by_theta = negative_binomial(x, log_mean.exp(), theta, gradients=gradients)
        if gradients:
            ctx.save_for_backward(by_mean, by_theta)
            ctx.shapes = log_mean.shape, theta.shape
        return value

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, "*entries"]
    ) -> tuple[Float[Tensor, "*#entries"], Float[Tensor, "*#entries"], None]:
        by_mean, by_theta = ctx.saved_tensors
        mean_shape, theta_shape = ctx.shapes
        return (
            (gradient * by_mean).sum_to_size(mean_shape),
            (gradient * by_theta).sum_to_size(theta_shape),
            None,
        )


def negative_binomial_at_stored(
    values: Float[SparseCounts, "cells features"],
    mean: Float[Tensor, "*draws cells features"],
    theta: Float[Tensor, "*#entries"],
    *,
    gradients: bool,
) -> tuple[
    Float[Tensor, "*draws stored"],
    Float[Tensor, "*draws stored"] | Float[Tensor, "0"],
    Float[Tensor, "*draws stored"] | Float[Tensor, "0"],
]:
    """:func:`negative_binomial` at stored entries.

    On a processor, small counts are looked up; see :mod:`~mosaicvi.likelihoods._small_counts`.
    """
    if theta.dim() != 1 or mean.device.type != "cpu":
        return _series_at_stored(values, mean, theta, None, gradients=gradients)
    numbers, others = split_small(values.values)
    places = numbers.mul_(values.n_features).add_(values.indices)
    constant, slope = negative_binomial_table(theta, gradients=gradients)
    x, at_mean = values.values, at_stored(mean, values).clamp_(min=SMALLEST_MEAN)
    at_theta = theta.index_select(0, values.indices)
    ratio = at_mean / at_theta
    log_ratio = ratio.log1p()
    value = at_mean.log().mul_(x).sub_((x + at_theta) * log_ratio)
    value.add_(constant.view(-1).index_select(0, places))
    by_mean = by_theta = x.new_empty(0)
    if slope is not None:
        by_mean = (x - at_mean).div_(ratio.add_(1.0))
        by_theta = slope.view(-1).index_select(0, places) - log_ratio.add_(by_mean / at_theta)
    if others is not None:
        exact = _series_at_stored(values, mean, theta, others, gradients=gradients)
        for whole, part in zip((value, by_mean, by_theta), exact, strict=True):
            if whole.numel():
                whole[..., others] = part
    return value, by_mean, by_theta


def _series_at_stored(
    values: Float[SparseCounts, "cells features"],
    mean: Float[Tensor, "*draws cells features"],
    theta: Float[Tensor, "*#entries"],
    chosen: Int[Tensor, " chosen"] | None,
    *,
    gradients: bool,
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."], Float[Tensor, "..."]]:
    """:func:`negative_binomial` at some stored entries; a dispersion's series are summed once."""
    error, slope = stirling_error(theta, slope=gradients)
    return negative_binomial(
        values.values if chosen is None else values.values[chosen],
        at_stored(mean, values, chosen),
        at_stored(theta, values, chosen),
        gradients=gradients,
        theta_errors=(
            at_stored(error, values, chosen),
            at_stored(slope, values, chosen) if gradients else slope,
        ),
    )


def negative_binomial_rows(
    values: Float[SparseCounts, "cells features"],
    mean: Float[Tensor, "*draws cells features"],
    theta: Float[Tensor, "*#entries"],
    *,
    observed: Bool[Tensor, "cells features"] | None,
    weights: Float[Tensor, " features"] | None,
    gradients: bool,
) -> tuple[Float[Tensor, "..."], ...]:
    """Log density of cells, and derivatives of entries by log mean and dispersion if asked for."""
    stored, by_mean, by_theta = negative_binomial_at_stored(
        values, mean, theta, gradients=gradients
    )
    # an entry that is not stored is zero: -theta log1p(mu / theta)
    ratio = mean / theta
    log_ratio = ratio.log1p()
    put_stored(log_ratio, values, 0.0)
    if observed is not None:
        log_ratio.masked_fill_(~observed, 0.0)
        stored = stored.masked_fill(~at_stored(observed, values), 0.0)
    value = row_sums(weigh_stored(stored, values, weights), values)
    scale = theta if weights is None else theta * weights
    value -= log_ratio @ scale if scale.dim() == 1 else (log_ratio * scale).sum(-1)
    if not gradients:
        return (value,)
    share = ratio.div_(ratio + 1.0)
    slope = log_ratio.neg_().add_(share)
    put_stored(slope, values, by_theta)
    share.mul_(theta).neg_()
    put_stored(share, values, by_mean)
    if observed is not None:
        share.masked_fill_(~observed, 0.0)
        slope.masked_fill_(~observed, 0.0)
    return value, share, slope


def negative_binomial_entries(
    x: Float[Tensor, "*#entries"],
    log_mean: Float[Tensor, "*#entries"],
    theta: Float[Tensor, "*#entries"],
) -> Float[Tensor, "*entries"]:
    """Log density of each entry, differentiable once by log mean and dispersion."""
    log_mean, theta = without_graph(log_mean, theta)
    value: Tensor = _Entries.apply(log_mean, theta, x)
    return value
