"""What the likelihoods share that follow from one rate, and have probability exp(-rate) at zero."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mosaicvi._types import Bool, Float, Float32, Matrix, Real, SparseCounts, Values
from mosaicvi.likelihoods._base import Parameters
from mosaicvi.likelihoods._composition import (
    CompositionLikelihood,
    as_counts,
    log_mean_of,
)
from mosaicvi.likelihoods._math import (
    at_stored,
    put_stored,
    row_sums,
    weigh_stored,
    without_graph,
)
from mosaicvi.likelihoods._rows import rows_from_means

Entry = Callable[
    [Float[Tensor, "*#entries"], Float[Tensor, "*#entries"]],
    tuple[Float[Tensor, "*entries"], Float[Tensor, "*entries"]],
]
"""Values and rates to log-probability and its derivative by the log rate, entry by entry."""


class _Entries(torch.autograd.Function):
    """Log-probability of each entry of dense values."""

    @staticmethod
    def forward(
        ctx: Any, log_mean: Float[Tensor, "*#entries"], x: Float[Tensor, "*#entries"], entry: Entry
    ) -> Float[Tensor, "*entries"]:
        value, slope = entry(x, log_mean.exp())
        ctx.save_for_backward(slope)
        ctx.mean_shape = log_mean.shape
        return value

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, "*entries"]
    ) -> tuple[Float[Tensor, "*#entries"], None, None]:
        (by_mean,) = ctx.saved_tensors
        return (gradient * by_mean).sum_to_size(ctx.mean_shape), None, None


def rate_rows(
    values: Float[SparseCounts, "cells features"],
    mean: Float[Tensor, "*draws cells features"],
    *,
    entry: Entry,
    observed: Bool[Tensor, "cells features"] | None,
    weights: Float[Tensor, " features"] | None,
    gradients: bool,
) -> tuple[Float[Tensor, "..."], ...]:
    """Log-probability of cells, and the derivative of entries by the log rate if asked for."""
    stored, slope = entry(values.values, at_stored(mean, values))
    by_mean = -mean
    put_stored(by_mean, values, 0.0)
    if observed is not None:
        hidden = ~at_stored(observed, values)
        by_mean.masked_fill_(~observed, 0.0)
        stored, slope = stored.masked_fill(hidden, 0.0), slope.masked_fill(hidden, 0.0)
    zeros = by_mean.sum(-1) if weights is None else by_mean @ weights
    value = row_sums(weigh_stored(stored, values, weights), values) + zeros
    if not gradients:
        return (value,)
    put_stored(by_mean, values, slope)
    return value, by_mean


class RateLikelihood(CompositionLikelihood):
    """Values that follow from one rate, the parameter ``"mean"``; ``log p(0) = -rate``."""

    @staticmethod
    @abstractmethod
    def entry(
        x: Float[Tensor, "*#entries"], mean: Float[Tensor, "*#entries"]
    ) -> tuple[Float[Tensor, "*entries"], Float[Tensor, "*entries"]]:
        """Log-probability of values and its derivative by the log rate, without autograd."""

    def feature_weights(
        self, values: Real[Matrix, "cells features"]
    ) -> Float32[np.ndarray, " features"]:
        """Inverse document frequency, ``log1p(n_cells / n_seen)``, shape ``(n_features,)``.

        ``n_seen`` is the number of cells in which a feature is not zero. With the encoded ``log1p``
        of a feature's share this is TF-IDF: a region that is open everywhere tells cells apart
        least, and dense counts all weigh alike.
        """
        matrix = sp.csr_matrix(values)
        n_seen = np.maximum(
            np.bincount(matrix.indices[matrix.data > 0], minlength=matrix.shape[1]), 1
        )
        weights: np.ndarray = np.log1p(max(matrix.shape[0], 1) / n_seen).astype(np.float32)
        return weights

    def log_prob(
        self,
        values: Float[Values, "cells features"],
        parameters: Parameters,
        *,
        observed: Bool[Tensor, "cells features"] | None = None,
    ) -> Float[Tensor, "*draws cells"]:
        """Log-probability of each cell, shape ``(..., n_cells)``, in nats."""
        return rows_from_means(
            partial(rate_rows, entry=self.entry),
            as_counts(values),
            observed,
            parameters["mean"],
            log_mean_of(parameters),
        )

    def log_prob_entries(
        self, values: Float[Tensor, "*#draws cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        """Log-probability of each entry, shape ``(..., n_cells, n_features)``, in nats."""
        (log_mean,) = without_graph(log_mean_of(parameters))
        value: Tensor = _Entries.apply(log_mean, values, self.entry)
        return value
