"""Continuous values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Int, Matrix, Real, Values, as_dense
from mosaicvi.likelihoods._base import FeatureStart, Head, Likelihood, Parameters
from mosaicvi.likelihoods._math import HALF_LOG_2PI, full_precision, one_way_clamp

LOG_SD_RANGE = (-7.0, 7.0)
"""Range of the log standard deviation, in the feature's scale, so that a constant feature keeps a
finite density whatever its unit."""

LOG_SCALE_RANGE = (-22.0, 40.0)
"""Range of a feature's log scale: units from 3e-10 to 2e17, whose squares float32 holds."""

UNITS = (math.exp(LOG_SCALE_RANGE[0]), math.exp(LOG_SCALE_RANGE[1]))
"""The same, of values."""


def fixed_scale(
    log_scale: Float[Tensor, "*entries"], low: float, high: float
) -> Float[Tensor, "*entries"]:
    """Log scale of a feature, between two bounds, as it was at the start.

    It is not learnt: where a mean is a thousand scales away from zero, a step would move it by ten.
    """
    return full_precision(log_scale.detach()).clamp(low, high)


class Normal(Likelihood):
    r"""``x ~ N(mean, sd)``, one standard deviation a feature.

    .. math::
        \log p(x) = -\tfrac12 ((x - m) / \sigma)^2 - \log \sigma - \tfrac12 \log 2 \pi

    The mean is the head times the feature's scale, its standard deviation at the start: heads, and
    the priors on what they are made of, have no unit.
    """

    name: ClassVar[str] = "normal"
    label: ClassVar[str] = "normal"
    is_count: ClassVar[bool] = False
    uses_library_size: ClassVar[bool] = False
    is_normal: ClassVar[bool] = True
    units: ClassVar[tuple[float, float] | None] = UNITS
    heads: ClassVar[tuple[Head, ...]] = (Head("mean", batch_bias=True, bilinear=True, loading=1.0),)
    feature_parameters: ClassVar[tuple[str, ...]] = ("log_sd", "log_scale")

    def encode(
        self,
        values: Float[Values, "cells features"],
        library_size: Float[Tensor, " cells"],
        *,
        target_sum: float,
    ) -> Float[Values, "cells features"]:
        """Values as they are; ``library_size`` and ``target_sum`` are ignored."""
        del library_size, target_sum
        return values

    def parameters(
        self,
        heads: Mapping[str, Float[Tensor, "*draws cells features"]],
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None = None,
        panel: Bool[Tensor, "cells features"] | None = None,
    ) -> dict[str, Float[Tensor, "*#entries"]]:
        """``"mean"`` and ``"sd"`` (and ``"log_sd"``); ``library_size``, ``panel`` are ignored."""
        del library_size, panel
        relative = one_way_clamp(full_precision(feature_parameters["log_sd"]), *LOG_SD_RANGE)
        log_scale = fixed_scale(feature_parameters["log_scale"], *LOG_SCALE_RANGE)
        log_sd = relative + log_scale
        mean = full_precision(heads["mean"]) * log_scale.exp()
        return {"mean": mean, "sd": log_sd.exp(), "log_sd": log_sd}

    def log_prob(
        self,
        values: Float[Values, "cells features"],
        parameters: Parameters,
        *,
        observed: Bool[Tensor, "cells features"] | None = None,
    ) -> Float[Tensor, "*draws cells"]:
        """Log-probability of each cell, shape ``(..., n_cells)``, in nats.

        Entries that are not observed may hold NaN.
        """
        dense = as_dense(values)
        if observed is None:
            return self.log_prob_entries(dense, parameters).sum(-1)
        # the value is replaced before it enters: NaN times zero would be NaN in the gradient
        entries = self.log_prob_entries(dense.masked_fill(~observed, 0.0), parameters)
        return entries.masked_fill(~observed, 0.0).sum(-1)

    def log_prob_entries(
        self, values: Float[Tensor, "*#draws cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        """Log-probability of each entry, shape ``(..., n_cells, n_features)``, in nats."""
        log_sd = parameters["log_sd"] if "log_sd" in parameters else parameters["sd"].log()
        score = (values - parameters["mean"]) * torch.exp(-log_sd)
        return -0.5 * score.square() - log_sd - HALF_LOG_2PI

    def mean(self, parameters: Parameters) -> Float[Tensor, "*draws cells features"]:
        """Mean, shape ``(..., n_cells, n_features)``."""
        return parameters["mean"]

    def sample(
        self, parameters: Parameters, noise: CellNoise
    ) -> Float[Tensor, "*draws cells features"]:
        """Draw values, shape ``(..., n_cells, n_features)``."""
        mean = parameters["mean"]
        shape = torch.broadcast_shapes(mean.shape, parameters["sd"].shape)
        return mean + parameters["sd"] * noise.normal(*shape).to(mean)

    def start(
        self,
        values: Real[Matrix, "cells features"],
        library_size: Real[np.ndarray, " cells"],
        *,
        background: Float[np.ndarray, " features"] | None = None,
        panel: Bool[np.ndarray, "batches features"] | None = None,
        batch: Int[np.ndarray, " cells"] | None = None,
    ) -> FeatureStart:
        """Mean and standard deviation of the values that were measured."""
        del library_size, background
        dense = values if isinstance(values, np.ndarray) else values.toarray()
        shown = np.isfinite(dense)
        if panel is not None and batch is not None:
            shown &= panel[batch]
        known = np.maximum(shown.sum(axis=0), 1)
        mean = np.where(shown, dense, 0.0).sum(axis=0, dtype=np.float64) / known
        spread = np.where(shown, dense - mean, 0.0).astype(np.float64) ** 2
        sd = np.sqrt(spread.sum(axis=0) / known)
        # a feature with one value or a constant one starts from unit spread
        constant = sd <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
        log_sd = np.log(np.where(constant, 1.0, sd))
        bias = (mean * np.exp(-log_sd)).astype(np.float32)
        log_scale = log_sd.astype(np.float32)
        return FeatureStart(
            {"mean": bias}, {"log_sd": np.zeros_like(log_scale), "log_scale": log_scale}
        )
