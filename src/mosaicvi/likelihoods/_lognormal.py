"""Positive continuous values, such as intensities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from torch import Tensor

from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Int, Matrix, Real, Values, as_dense
from mosaicvi.likelihoods._base import FeatureStart, Parameters
from mosaicvi.likelihoods._math import full_precision, one_way_clamp
from mosaicvi.likelihoods._normal import LOG_SD_RANGE, Normal, fixed_scale

SMALLEST = 1e-30
"""Floor of a value under the logarithm: only what is hidden is ever below it."""

LOG_SCALE_RANGE = (-12.0, 12.0)
"""Range of the log of a feature's scale, which is that of its logs."""

LARGEST_LOG = 80.0
"""Range of a log mean, so that float32 holds the mean."""


def _log(values: Float[Values, "cells features"]) -> Float[Tensor, "cells features"]:
    dense = as_dense(values)
    return dense.clamp_min(SMALLEST).log()


class LogNormal(Normal):
    r"""``log x ~ N(location, sd)``, one standard deviation a feature.

    .. math::
        \log p(x) = -\tfrac12 ((\log x - m) / \sigma)^2 - \log \sigma - \log x
        - \tfrac12 \log 2 \pi

    with mean :math:`e^{m + \sigma^2 / 2}`. The location is the head times the feature's scale, the
    standard deviation of its logs at the start, as for ``normal``.
    """

    name: ClassVar[str] = "lognormal"
    label: ClassVar[str] = "log-normal"
    positive: ClassVar[bool] = True
    is_normal: ClassVar[bool] = False
    units: ClassVar[tuple[float, float] | None] = None

    def encode(
        self,
        values: Float[Values, "cells features"],
        library_size: Float[Tensor, " cells"],
        *,
        target_sum: float,
    ) -> Float[Values, "cells features"]:
        """Logs of the values; ``library_size`` and ``target_sum`` are ignored."""
        del library_size, target_sum
        return _log(values)

    def parameters(
        self,
        heads: Mapping[str, Float[Tensor, "*draws cells features"]],
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None = None,
        panel: Bool[Tensor, "cells features"] | None = None,
    ) -> dict[str, Float[Tensor, "*#entries"]]:
        """``"location"`` and ``"log_sd"`` of the logs; ``library_size``, ``panel`` are ignored."""
        del library_size, panel
        relative = one_way_clamp(full_precision(feature_parameters["log_sd"]), *LOG_SD_RANGE)
        log_scale = fixed_scale(feature_parameters["log_scale"], *LOG_SCALE_RANGE)
        location = full_precision(heads["mean"]) * log_scale.exp()
        return {"location": location, "log_sd": relative + log_scale}

    def log_prob_entries(
        self, values: Float[Tensor, "*#draws cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        """Log-probability of each entry, shape ``(..., n_cells, n_features)``, in nats."""
        logs = _log(values)
        normal = {"mean": parameters["location"], "log_sd": parameters["log_sd"]}
        return super().log_prob_entries(logs, normal) - logs

    def deviance(
        self, values: Float[Tensor, "cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        """Squared error of the logs, of each entry."""
        return (_log(values) - parameters["location"]).square()

    def mean(self, parameters: Parameters) -> Float[Tensor, "*draws cells features"]:
        """Mean, shape ``(..., n_cells, n_features)``."""
        half_variance = 0.5 * (2 * parameters["log_sd"]).exp()
        return (parameters["location"] + half_variance).clamp(-LARGEST_LOG, LARGEST_LOG).exp()

    def sample(
        self, parameters: Parameters, noise: CellNoise
    ) -> Float[Tensor, "*draws cells features"]:
        """Draw values, shape ``(..., n_cells, n_features)``."""
        normal = {"mean": parameters["location"], "sd": parameters["log_sd"].exp()}
        return super().sample(normal, noise).clamp(-LARGEST_LOG, LARGEST_LOG).exp()

    def start(
        self,
        values: Real[Matrix, "cells features"],
        library_size: Real[np.ndarray, " cells"],
        *,
        background: Float[np.ndarray, " features"] | None = None,
        panel: Bool[np.ndarray, "batches features"] | None = None,
        batch: Int[np.ndarray, " cells"] | None = None,
    ) -> FeatureStart:
        """Mean and standard deviation of the logs of the values that were measured."""
        dense = values if isinstance(values, np.ndarray) else values.toarray()
        return super().start(
            np.log(np.maximum(dense, SMALLEST)),
            library_size,
            background=background,
            panel=panel,
            batch=batch,
        )
