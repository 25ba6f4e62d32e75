"""Continuous values with heavy tails, such as intensities with outliers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Int, Matrix, Real
from mosaicvi.likelihoods._base import FeatureStart, Parameters
from mosaicvi.likelihoods._math import full_precision, one_way_clamp
from mosaicvi.likelihoods._normal import Normal

LEAST_DF = 2.0
"""Degrees of freedom are above, so that draws have a variance."""

LOG_DF_RANGE = (-3.0, 5.0)
"""Range of the log of what they are above it: from 2.05 to 150, where the density is a normal."""

START_DF = 6.0
"""Degrees of freedom at the start of training."""

NORMAL_MAD = 0.6744897501960817
"""Median absolute deviation of a standard normal."""

LEAST_MAD = 1e-3
"""Share of the standard deviation below which the median deviation is no scale: most values are
one and the same."""


class Student(Normal):
    r"""``x ~ t(location, scale, df)``, one scale and one number of degrees of freedom a feature.

    .. math::
        \log p(x) = \log \Gamma(\tfrac{\nu + 1}{2}) - \log \Gamma(\tfrac{\nu}{2})
        - \tfrac12 \log(\nu \pi) - \log \sigma
        - \tfrac{\nu + 1}{2} \log\left(1 + \frac{(x - m)^2}{\nu \sigma^2}\right)

    A value far off moves location and scale little (Lange, Little and Taylor 1989). The location
    is the head times the feature's scale at the start, as for ``normal``; that is the median
    absolute deviation.
    """

    name: ClassVar[str] = "student"
    label: ClassVar[str] = "Student t"
    is_normal: ClassVar[bool] = False
    feature_parameters: ClassVar[tuple[str, ...]] = ("log_sd", "log_scale", "log_df")

    def parameters(
        self,
        heads: Mapping[str, Float[Tensor, "*draws cells features"]],
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None = None,
        panel: Bool[Tensor, "cells features"] | None = None,
    ) -> dict[str, Float[Tensor, "*#entries"]]:
        """``"mean"``, the scale ``"sd"`` (and ``"log_sd"``), ``"df"``; the others are ignored."""
        found = super().parameters(
            heads, feature_parameters, library_size=library_size, panel=panel
        )
        log_df = one_way_clamp(full_precision(feature_parameters["log_df"]), *LOG_DF_RANGE)
        return {**found, "df": LEAST_DF + log_df.exp()}

    def log_prob_entries(
        self, values: Float[Tensor, "*#draws cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        """Log-probability of each entry, shape ``(..., n_cells, n_features)``, in nats."""
        df, log_sd = parameters["df"], parameters["log_sd"]
        score = (values - parameters["mean"]) * torch.exp(-log_sd)
        half = (df + 1) / 2
        level = torch.lgamma(half) - torch.lgamma(df / 2) - 0.5 * torch.log(df * math.pi)
        return level - log_sd - half * torch.log1p(score.square() / df)

    def deviance(
        self, values: Float[Tensor, "cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        r"""Squared error :math:`e^2` where it is small, of which one value may be all.

        .. math:: (\nu + 1) \sigma^2 \log(1 + e^2 / (\nu \sigma^2))
        """
        df, variance = parameters["df"], parameters["sd"].square()
        error = (values - parameters["mean"]).square()
        return (df + 1) * variance * torch.log1p(error / (df * variance))

    def sample(
        self, parameters: Parameters, noise: CellNoise
    ) -> Float[Tensor, "*draws cells features"]:
        """Draw values, shape ``(..., n_cells, n_features)``."""
        half = parameters["df"] / 2
        shape = torch.broadcast_shapes(parameters["mean"].shape, half.shape)
        normal = {"mean": torch.zeros_like(parameters["mean"]), "sd": parameters["sd"]}
        spread = noise.gamma(half.expand(shape).contiguous()) / half
        return parameters["mean"] + super().sample(normal, noise) * spread.rsqrt()

    def start(
        self,
        values: Real[Matrix, "cells features"],
        library_size: Real[np.ndarray, " cells"],
        *,
        background: Float[np.ndarray, " features"] | None = None,
        panel: Bool[np.ndarray, "batches features"] | None = None,
        batch: Int[np.ndarray, " cells"] | None = None,
    ) -> FeatureStart:
        """Median and median absolute deviation of the values that were measured."""
        usual = super().start(values, library_size, background=background, panel=panel, batch=batch)
        dense = np.array(values if isinstance(values, np.ndarray) else values.toarray(), float)
        dense[~np.isfinite(dense)] = np.nan
        if panel is not None and batch is not None:
            dense[~panel[batch]] = np.nan
        # A feature without a value has no median.
        dense[:, np.isnan(dense).all(axis=0)] = 0.0
        median = np.nanmedian(dense, axis=0)
        deviation = np.nanmedian(np.abs(dense - median), axis=0) / NORMAL_MAD
        sd = np.exp(usual.parameters["log_scale"].astype(np.float64))
        scale = np.where(deviation > LEAST_MAD * sd, deviation, sd)
        log_scale = np.log(scale).astype(np.float32)
        excess = np.full_like(log_scale, math.log(START_DF - LEAST_DF))
        return FeatureStart(
            {"mean": (median / scale).astype(np.float32)},
            {"log_sd": np.zeros_like(log_scale), "log_scale": log_scale, "log_df": excess},
        )
