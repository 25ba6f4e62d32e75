"""Negative binomial counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Int, Matrix, Real, Values
from mosaicvi.likelihoods._base import FeatureStart, Parameters
from mosaicvi.likelihoods._composition import (
    CompositionLikelihood,
    MeanSlope,
    as_counts,
    composition_logits,
    dispersion_from_log,
    gamma_poisson,
    library_of,
    log_mean_of,
    start_composition,
)
from mosaicvi.likelihoods._fused import CompiledCounts
from mosaicvi.likelihoods._nb_density import negative_binomial_entries, negative_binomial_rows
from mosaicvi.likelihoods._rows import rows_from_logits, rows_from_means


class NegativeBinomial(CompositionLikelihood):
    r"""``x ~ NB(mean mu, dispersion theta)``, variance ``mu + mu^2 / theta``.

    .. math::
        \log p(x) = \log\Gamma(x + \theta) - \log\Gamma(\theta) - \log\Gamma(x + 1)
            + \theta \log\frac{\theta}{\theta + \mu} + x \log\frac{\mu}{\theta + \mu}
    """

    name: ClassVar[str] = "nb"
    label: ClassVar[str] = "negative binomial"
    takes_samples: ClassVar[bool] = True
    feature_parameters: ClassVar[tuple[str, ...]] = ("log_dispersion",)

    def parameters(
        self,
        heads: Mapping[str, Float[Tensor, "*draws cells features"]],
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None,
        panel: Bool[Tensor, "cells features"] | None,
    ) -> dict[str, Float[Tensor, "*#entries"]]:
        """``"mean"``, ``"log_mean"`` and ``"dispersion"`` (inverse: large is Poisson)."""
        parameters = super().parameters(
            heads, feature_parameters, library_size=library_size, panel=panel
        )
        parameters["dispersion"] = dispersion_from_log(feature_parameters["log_dispersion"])
        return parameters

    def log_prob(
        self,
        values: Float[Values, "cells features"],
        parameters: Parameters,
        *,
        observed: Bool[Tensor, "cells features"] | None = None,
    ) -> Float[Tensor, "*draws cells"]:
        """Log-probability of each cell, shape ``(..., n_cells)``, in nats."""
        return rows_from_means(
            negative_binomial_rows,
            as_counts(values),
            observed,
            parameters["mean"],
            log_mean_of(parameters),
            parameters["dispersion"],
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
            negative_binomial_rows,
            as_counts(values),
            observed,
            library_of(library_size, heads["mean"]),
            composition_logits(heads["mean"], panel),
            dispersion_from_log(feature_parameters["log_dispersion"]),
            weights=weights,
            compiled=CompiledCounts(),
        )

    def log_prob_entries(
        self, values: Float[Tensor, "*#draws cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        """Log-probability of each entry, shape ``(..., n_cells, n_features)``, in nats."""
        return negative_binomial_entries(values, log_mean_of(parameters), parameters["dispersion"])

    def mean_slope(
        self, values: Float[Tensor, "cells features"], parameters: Parameters
    ) -> MeanSlope | None:
        r"""As for all compositions.

        The density is :math:`x \log(\mu / \theta) - (x + \theta) \log(1 + \mu / \theta)`, its
        derivative by :math:`\log \mu` is :math:`(x - \mu) \theta / (\theta + \mu)`, and the
        information :math:`\mu \theta / (\theta + \mu)`.
        """
        theta, mean = parameters["dispersion"], parameters["mean"]
        entries = values * (log_mean_of(parameters) - theta.log())
        entries = entries - (values + theta) * torch.log1p(mean / theta)
        share = theta / (theta + mean)
        return MeanSlope(entries, (values - mean) * share, mean * share)

    def sample(
        self, parameters: Parameters, noise: CellNoise
    ) -> Float[Tensor, "*draws cells features"]:
        """Draw counts, shape ``(..., n_cells, n_features)``."""
        return gamma_poisson(parameters["mean"], parameters["dispersion"], noise)

    def start(
        self,
        values: Real[Matrix, "cells features"],
        library_size: Real[np.ndarray, " cells"],
        *,
        background: Float[np.ndarray, " features"] | None = None,
        panel: Bool[np.ndarray, "batches features"] | None = None,
        batch: Int[np.ndarray, " cells"] | None = None,
    ) -> FeatureStart:
        """Log mean proportion and moment dispersion."""
        proportion, dispersion = start_composition(values, library_size, panel=panel, batch=batch)
        return FeatureStart({"mean": proportion}, {"log_dispersion": dispersion})
