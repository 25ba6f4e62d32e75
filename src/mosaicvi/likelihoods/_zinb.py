"""Zero-inflated negative binomial counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Int, Matrix, Real, SparseCounts, Values
from mosaicvi.likelihoods._base import FeatureStart, Head, Parameters
from mosaicvi.likelihoods._composition import (
    MeanSlope,
    as_counts,
    composition_logits,
    dispersion_from_log,
    library_of,
    log_mean_of,
)
from mosaicvi.likelihoods._fused import CompiledCounts
from mosaicvi.likelihoods._math import (
    at_stored,
    broadcast_shape,
    full_precision,
    log_sigmoids,
    put_stored,
    row_sums,
    sum_log,
    weigh_stored,
)
from mosaicvi.likelihoods._nb import NegativeBinomial
from mosaicvi.likelihoods._nb_density import (
    negative_binomial_at_stored,
    negative_binomial_entries,
)
from mosaicvi.likelihoods._rows import rows_from_logits, rows_from_means

START_LOGIT = -3.0
"""Dropout starts at 5 %: low, so that data have to argue for it."""

SMALLEST_FAST_LOGIT = -20.0
"""Above this ``p(0)`` is no smaller than 2e-9, and its log may be taken of products."""


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


def _zeros(
    log_ratio: Float[Tensor, "*draws cells features"],
    theta: Float[Tensor, "*#entries"],
    logit: Float[Tensor, "*draws cells features"],
) -> tuple[Float[Tensor, "*draws cells features"], Float[Tensor, "*draws cells features"]]:
    r"""Shares of dropout: in all entries, and among zeros.

    With the NB's log-probability of zero :math:`z = -\theta` ``log_ratio``, they are
    :math:`\pi = \sigma(l)` and :math:`\sigma(l - z)`, by which :math:`p(0)` is their quotient.
    """
    among_zeros = torch.addcmul(logit, theta, log_ratio).sigmoid_()
    return logit.sigmoid(), among_zeros


def _zero_inflated_rows(
    values: Float[SparseCounts, "cells features"],
    mean: Float[Tensor, "*draws cells features"],
    theta: Float[Tensor, "*#entries"],
    logit: Float[Tensor, "*draws cells features"],
    *,
    observed: Bool[Tensor, "cells features"] | None,
    weights: Float[Tensor, " features"] | None,
    gradients: bool,
) -> tuple[Float[Tensor, "..."], ...]:
    """Log density of cells, and derivatives of entries by log mean, dispersion and logit."""
    stored_logit = at_stored(logit, values)
    stored, stored_mean, stored_theta = negative_binomial_at_stored(
        values, mean, theta, gradients=gradients
    )
    stored = stored + log_sigmoids(stored_logit)[1]
    ratio = mean / theta
    log_ratio = ratio.log1p()
    dropped, among_zeros = _zeros(log_ratio, theta, logit)
    # a stored zero is a zero like any other
    empty = values.values <= 0
    has_empty = mean.device.type != "cpu" or bool(empty.any())

    def finish(
        dense: Float[Tensor, "*draws cells features"],
        at_count: Float[Tensor, "*draws stored"] | float,
        hidden: float = 0.0,
    ) -> Float[Tensor, "*draws cells features"]:
        if has_empty:
            at_count = torch.where(empty, at_stored(dense, values), at_count)
        put_stored(dense, values, at_count)
        return dense if observed is None else dense.masked_fill_(~observed, hidden)

    if mean.device.type == "cpu" and float(logit.min()) > SMALLEST_FAST_LOGIT:
        zeros = finish(dropped / among_zeros, 1.0, 1.0)
        value = sum_log(zeros) if weights is None else zeros.log_() @ weights
        if observed is not None:
            stored = stored.masked_fill(~at_stored(observed, values), 0.0)
        stored = stored.masked_fill(empty, 0.0) if has_empty else stored
        value += row_sums(weigh_stored(stored, values, weights), values)
    else:
        dense = finish(log_zero_inflated(-theta * log_ratio, logit), stored)
        value = dense.sum(-1) if weights is None else dense @ weights
    if not gradients:
        return (value,)
    own = 1.0 - among_zeros  # posterior that a zero is the NB's own
    slope = ratio.div_(ratio + 1.0)
    by_theta = log_ratio.neg_().add_(slope).mul_(own)
    by_mean = slope.mul_(theta).mul_(own).neg_()
    by_logit = among_zeros.sub_(dropped)
    return (
        value,
        finish(by_mean, stored_mean),
        finish(by_theta, stored_theta),
        finish(by_logit, -torch.sigmoid(stored_logit)),
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
        return rows_from_means(
            _zero_inflated_rows,
            counts,
            observed,
            parameters["mean"],
            log_mean,
            theta,
            logit.expand(shape),
        )

    def log_prob_of_heads(
        self,
        values: Float[Values, "cells features"],
        heads: Mapping[str, Float[Tensor, "*draws cells features"]],
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None,
        panel: Bool[Tensor, "cells features"] | None,
        observed: Bool[Tensor, "cells features"] | None = None,
        weights: Float[Tensor, " features"] | None = None,
    ) -> Float[Tensor, "*draws cells"]:
        """Log-probability of each cell, ``(..., n_cells)``: softmax and density at once."""
        return rows_from_logits(
            _zero_inflated_rows,
            as_counts(values),
            observed,
            library_of(library_size, heads["mean"]),
            composition_logits(heads["mean"], panel),
            dispersion_from_log(feature_parameters["log_dispersion"]),
            full_precision(heads["dropout"]),
            weights=weights,
            compiled=CompiledCounts(),
        )

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

    def mean_slope(
        self, values: Float[Tensor, "cells features"], parameters: Parameters
    ) -> MeanSlope | None:
        """No short formula: zeros have two sources."""
        del values, parameters
        return None

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
