"""Poisson counts."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Int, Matrix, Real, SparseCounts, Values
from mosaicvi.likelihoods._base import FeatureStart, Parameters
from mosaicvi.likelihoods._composition import (
    CompositionLikelihood,
    as_counts,
    log_mean_of,
    start_composition,
)
from mosaicvi.likelihoods._math import (
    SMALLEST_MEAN,
    at_stored,
    broadcast_shape,
    log_excess,
    put_stored,
    row_sums,
    stirling_error,
    without_graph,
)


def poisson(
    x: Float[Tensor, "*#entries"], mean: Float[Tensor, "*#entries"]
) -> Float[Tensor, "*entries"]:
    r"""Log density of counts, entry by entry, without autograd.

    :math:`-s(x) - x f((\mu - x) / x) - \tfrac12 \log(2 \pi x)`, with :math:`s` the error of
    Stirling's formula and :math:`f(u) = u - \log(1 + u)` (Loader 2000);
    :math:`-\mu` at zero.
    """
    empty = x <= 0
    count = x.masked_fill(empty, 1.0)
    error, _ = stirling_error(count, slope=False)
    mean = mean.clamp(min=SMALLEST_MEAN)
    deviance = count * log_excess((mean - count) / count, mean / count)
    constant = -error - 0.5 * (2.0 * math.pi * count).log()
    return torch.where(empty, -mean, constant - deviance)


class _Entries(torch.autograd.Function):
    """Log density of each entry of dense counts."""

    @staticmethod
    def forward(
        ctx: Any, log_mean: Float[Tensor, "*#entries"], x: Float[Tensor, "*#entries"]
    ) -> Float[Tensor, "*entries"]:
        mean = log_mean.exp()
        ctx.save_for_backward(x - mean)
        ctx.mean_shape = log_mean.shape
        return poisson(x, mean)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, "*entries"]
    ) -> tuple[Float[Tensor, "*#entries"], None]:
        (by_mean,) = ctx.saved_tensors
        return (gradient * by_mean).sum_to_size(ctx.mean_shape), None


class _SparseRows(torch.autograd.Function):
    """Log density of each cell, with special functions of counts at stored entries only."""

    @staticmethod
    def forward(
        ctx: Any,
        log_mean: Float[Tensor, "*draws cells features"],
        mean: Float[Tensor, "*draws cells features"],
        values: Float[SparseCounts, "cells features"],
        observed: Bool[Tensor, "cells features"] | None,
    ) -> Float[Tensor, "*draws cells"]:
        x, stored_mean = values.values, at_stored(mean, values)
        stored = poisson(x, stored_mean)
        by_mean = -mean
        put_stored(by_mean, values, 0.0)
        if observed is not None:
            hidden = ~at_stored(observed, values)
            by_mean.masked_fill_(~observed, 0.0)
            stored = stored.masked_fill(hidden, 0.0)
        value = row_sums(stored, values) + by_mean.sum(-1)
        if ctx.needs_input_grad[0]:
            stored_slope = x - stored_mean
            if observed is not None:
                stored_slope = stored_slope.masked_fill(hidden, 0.0)
            put_stored(by_mean, values, stored_slope)
            ctx.save_for_backward(by_mean)
        return value

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, "*draws cells"]
    ) -> tuple[Float[Tensor, "*draws cells features"], None, None, None]:
        (by_mean,) = ctx.saved_tensors
        return by_mean * gradient.unsqueeze(-1), None, None, None


class Poisson(CompositionLikelihood):
    r"""``x ~ Poisson(mean mu)``: :math:`\log p(x) = x \log \mu - \mu - \log\Gamma(x + 1)`."""

    name: ClassVar[str] = "poisson"
    label: ClassVar[str] = "Poisson"

    def log_prob(
        self,
        values: Float[Values, "cells features"],
        parameters: Parameters,
        *,
        observed: Bool[Tensor, "cells features"] | None = None,
    ) -> Float[Tensor, "*draws cells"]:
        """Log-probability of each cell, shape ``(..., n_cells)``, in nats."""
        counts = as_counts(values)
        (log_mean,) = without_graph(log_mean_of(parameters))
        shape = broadcast_shape(log_mean, values=counts)
        mean = parameters["mean"].detach().expand(shape)
        value: Tensor = _SparseRows.apply(log_mean.expand(shape), mean, counts, observed)
        return value

    def log_prob_entries(
        self, values: Float[Tensor, "*#draws cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        """Log-probability of each entry, shape ``(..., n_cells, n_features)``, in nats."""
        (log_mean,) = without_graph(log_mean_of(parameters))
        value: Tensor = _Entries.apply(log_mean, values)
        return value

    def sample(
        self, parameters: Parameters, noise: CellNoise
    ) -> Float[Tensor, "*draws cells features"]:
        """Draw counts, shape ``(..., n_cells, n_features)``."""
        return noise.poisson(parameters["mean"])

    def start(
        self,
        values: Real[Matrix, "cells features"],
        library_size: Real[np.ndarray, " cells"],
        *,
        background: Float[np.ndarray, " features"] | None = None,
        panel: Bool[np.ndarray, "batches features"] | None = None,
        batch: Int[np.ndarray, " cells"] | None = None,
    ) -> FeatureStart:
        """Log mean proportion."""
        proportion, _ = start_composition(values, library_size, panel=panel, batch=batch)
        return FeatureStart({"mean": proportion}, {})
