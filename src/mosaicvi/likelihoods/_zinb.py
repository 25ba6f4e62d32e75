"""Zero-inflated negative binomial counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Int, Matrix, Real, SparseCounts, Values
from mosaicvi.likelihoods._base import FeatureStart, Head, Parameters
from mosaicvi.likelihoods._composition import as_counts, log_mean_of
from mosaicvi.likelihoods._math import (
    at_stored,
    broadcast_shape,
    full_precision,
    log_sigmoids,
    put_stored,
    reduce_to,
    row_blocks,
    take_cells,
    take_rows,
    without_graph,
)
from mosaicvi.likelihoods._nb import (
    NegativeBinomial,
    negative_binomial,
    negative_binomial_entries,
)

START_LOGIT = -3.0
"""Dropout starts at 5 %: low, so that data have to argue for it."""


def log_zero_inflated(
    log_zero: Float[Tensor, "*entries"], logit: Float[Tensor, "*#entries"]
) -> Float[Tensor, "*entries"]:
    r"""Log-probability of a zero, :math:`\log(\pi + (1 - \pi) e^z)`, ``z = log_zero``.

    It equals ``softplus(z - l) - softplus(-l)``, whose two terms cancel; written here as
    ``min(0, max(z, l)) + log1p(exp(-|z - l|)) - log1p(exp(-|l|))``, they do not.

    Parameters
    ----------
    log_zero
        Log-probability of zero without inflation.
    logit
        Dropout logit ``l``.
    """
    value = (log_zero - logit).abs_().neg_().exp_().add_(1.0)
    value.div_(logit.abs().neg_().exp_().add_(1.0)).log_()
    return value.add_(torch.maximum(log_zero, logit).clamp_(max=0.0))


def _block(
    values: Float[SparseCounts, "cells features"],
    mean: Float[Tensor, "*draws cells features"],
    theta: Float[Tensor, "*#entries"],
    logit: Float[Tensor, "*draws cells features"],
    observed: Bool[Tensor, "cells features"] | None,
    gradients: bool,
) -> tuple[Float[Tensor, "..."], ...]:
    """Log density of some cells, and derivatives of their entries if asked for."""
    stored_logit = at_stored(logit, values)
    stored, stored_mean, stored_theta = negative_binomial(
        values.values, at_stored(mean, values), at_stored(theta, values), gradients=gradients
    )
    stored = stored + log_sigmoids(stored_logit)[1]
    log_ratio = (mean / theta).log1p_()
    log_zero = (log_ratio * theta).neg_()
    value = log_zero_inflated(log_zero, logit)
    empty = values.values <= 0  # a stored zero is a zero like any other

    def finish(
        dense: Float[Tensor, "*draws cells features"], at_count: Float[Tensor, "*draws stored"]
    ) -> Float[Tensor, "*draws cells features"]:
        at_count = torch.where(empty, at_stored(dense, values), at_count)
        put_stored(dense, values, at_count)
        return dense if observed is None else dense.masked_fill_(~observed, 0.0)

    value = finish(value, stored).sum(-1)
    if not gradients:
        return (value,)
    share = log_zero.sub_(logit).sigmoid_()  # posterior that a zero is the NB's own
    slope = mean / (mean + theta)
    by_theta = log_ratio.neg_().add_(slope).mul_(share)
    by_mean = slope.mul_(theta).mul_(share).neg_()
    by_logit = torch.sigmoid(-logit).sub_(share)
    return (
        value,
        finish(by_mean, stored_mean),
        finish(by_theta, stored_theta),
        finish(by_logit, -torch.sigmoid(stored_logit)),
    )


class _SparseRows(torch.autograd.Function):
    """Log density of each cell, with special functions of counts at stored entries only."""

    @staticmethod
    def forward(
        ctx: Any,
        log_mean: Float[Tensor, "*draws cells features"],
        theta: Float[Tensor, "*#entries"],
        logit: Float[Tensor, "*draws cells features"],
        mean: Float[Tensor, "*draws cells features"],
        values: Float[SparseCounts, "cells features"],
        observed: Bool[Tensor, "cells features"] | None,
    ) -> Float[Tensor, "*draws cells"]:
        gradients = any(ctx.needs_input_grad[:3])
        value = mean.new_empty(mean.shape[:-1])
        derivatives = [torch.empty_like(mean) for _ in range(3)] if gradients else []
        for rows in row_blocks(mean.shape, mean.device):
            value[..., rows], *parts = _block(
                take_cells(values, rows),
                take_rows(mean, rows),
                take_rows(theta, rows),
                take_rows(logit, rows),
                None if observed is None else take_rows(observed, rows),
                gradients,
            )
            for derivative, part in zip(derivatives, parts, strict=True):
                derivative[..., rows, :] = part
        if gradients:
            ctx.save_for_backward(*derivatives)
            ctx.theta_shape = theta.shape
        return value

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, "*draws cells"]
    ) -> tuple[Float[Tensor, "..."] | None, ...]:
        by_mean, by_theta, by_logit = ctx.saved_tensors
        return (
            by_mean * gradient.unsqueeze(-1),
            reduce_to(gradient, by_theta, ctx.theta_shape),
            by_logit * gradient.unsqueeze(-1),
            None,
            None,
            None,
        )


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    r"""Negative binomial that dropout turns to zero with probability ``sigmoid(dropout)``.

    .. math::
        p(0) = \pi + (1 - \pi) \mathrm{NB}(0), \quad p(x) = (1 - \pi) \mathrm{NB}(x), x > 0
    """

    name: ClassVar[str] = "zinb"
    label: ClassVar[str] = "zero-inflated negative binomial"
    heads: ClassVar[tuple[Head, ...]] = (*NegativeBinomial.heads, Head("dropout"))

    def parameters(
        self,
        heads: Mapping[str, Float[Tensor, "*draws cells features"]],
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None,
        panel: Bool[Tensor, "cells features"] | None,
    ) -> dict[str, Float[Tensor, "*#entries"]]:
        """``"mean"`` (before dropout), ``"log_mean"``, ``"dispersion"``, ``"dropout_logit"``."""
        parameters = super().parameters(
            heads, feature_parameters, library_size=library_size, panel=panel
        )
        parameters["dropout_logit"] = full_precision(heads["dropout"])
        return parameters

    def log_prob(
        self,
        values: Float[Values, "cells features"],
        parameters: Parameters,
        *,
        observed: Bool[Tensor, "cells features"] | None = None,
    ) -> Float[Tensor, "*draws cells"]:
        """Log-probability of each cell, shape ``(..., n_cells)``, in nats."""
        counts = as_counts(values)
        log_mean, theta = log_mean_of(parameters), parameters["dispersion"]
        logit = parameters["dropout_logit"]
        shape = broadcast_shape(log_mean, theta, logit, values=counts)
        log_mean, theta, logit = without_graph(log_mean.expand(shape), theta, logit.expand(shape))
        mean = parameters["mean"].detach().expand(shape)
        value: Tensor = _SparseRows.apply(log_mean, theta, logit, mean, counts, observed)
        return value

    def log_prob_entries(
        self, values: Float[Tensor, "*#draws cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        """Log-probability of each entry, shape ``(..., n_cells, n_features)``, in nats."""
        logit = parameters["dropout_logit"]
        count = negative_binomial_entries(values, log_mean_of(parameters), parameters["dispersion"])
        at_zero = torch.logaddexp(logsigmoid(logit), logsigmoid(-logit) + count)
        return torch.where(values > 0, logsigmoid(-logit) + count, at_zero)

    def mean(self, parameters: Parameters) -> Float[Tensor, "*draws cells features"]:
        """Mean counts, dropout included, shape ``(..., n_cells, n_features)``."""
        return parameters["mean"] * torch.sigmoid(-parameters["dropout_logit"])

    def sample(
        self, parameters: Parameters, noise: CellNoise
    ) -> Float[Tensor, "*draws cells features"]:
        """Draw counts, shape ``(..., n_cells, n_features)``."""
        counts = super().sample(parameters, noise)
        dropped = noise.uniform(*counts.shape).to(counts) < torch.sigmoid(
            parameters["dropout_logit"]
        )
        return counts.masked_fill(dropped, 0.0)

    def start(
        self,
        values: Real[Matrix, "cells features"],
        library_size: Real[np.ndarray, " cells"],
        *,
        background: Float[np.ndarray, " features"] | None = None,
        panel: Bool[np.ndarray, "batches features"] | None = None,
        batch: Int[np.ndarray, " cells"] | None = None,
    ) -> FeatureStart:
        """As the negative binomial's, with little dropout."""
        start = super().start(values, library_size, background=background, panel=panel, batch=batch)
        dropout = 0.0 * start.heads["mean"] + START_LOGIT
        return FeatureStart({**start.heads, "dropout": dropout}, start.parameters)
