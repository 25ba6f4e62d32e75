"""Poisson counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mosaicvi._compiled import SMALLEST_MEAN
from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Int, Matrix, Real, Values
from mosaicvi.likelihoods._base import FeatureStart, Parameters, Product
from mosaicvi.likelihoods._composition import (
    MeanSlope,
    as_counts,
    composition_logits,
    library_of,
    log_mean_of,
    start_composition,
)
from mosaicvi.likelihoods._fused import CompiledRates
from mosaicvi.likelihoods._math import log_excess, stirling_error
from mosaicvi.likelihoods._rate import RateLikelihood, rate_rows
from mosaicvi.likelihoods._rows import rows_from_logits
from mosaicvi.likelihoods._small_counts import log_factorials, split_small
from mosaicvi.likelihoods._wide import wide_rates


def poisson(
    x: Float[Tensor, "*#entries"], mean: Float[Tensor, "*#entries"]
) -> Float[Tensor, "*entries"]:
    r"""Log density of counts, entry by entry, without autograd.

    :math:`-s(x) - x f((\mu - x) / x) - \tfrac12 \log(2 \pi x)`, with :math:`s` the error of
    Stirling's formula and :math:`f(u) = u - \log(1 + u)` (Loader 2000);
    :math:`-\mu` at zero. Where all counts are small and whole, :math:`\log x!` is looked up.
    """
    mean = mean.clamp(min=SMALLEST_MEAN)
    if x.device.type == "cpu":
        numbers, others = split_small(x)
        if others is None:
            return (mean.log() * x).sub_(mean).sub_(log_factorials(x)[numbers])
    empty = x <= 0
    count = x.masked_fill(empty, 1.0)
    error, _ = stirling_error(count, slope=False)
    deviance = count * log_excess((mean - count) / count, mean / count)
    constant = -error - 0.5 * (2.0 * math.pi * count).log()
    return torch.where(empty, -mean, constant - deviance)


class Poisson(RateLikelihood):
    r"""``x ~ Poisson(mean mu)``: :math:`\log p(x) = x \log \mu - \mu - \log\Gamma(x + 1)`."""

    name: ClassVar[str] = "poisson"
    label: ClassVar[str] = "Poisson"
    takes_samples: ClassVar[bool] = True

    @staticmethod
    def entry(
        x: Float[Tensor, "*#entries"], mean: Float[Tensor, "*#entries"]
    ) -> tuple[Float[Tensor, "*entries"], Float[Tensor, "*entries"]]:
        """Log density of counts, and its derivative by the log mean."""
        return poisson(x, mean), x - mean

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
        del feature_parameters
        return rows_from_logits(
            partial(rate_rows, entry=self.entry),
            as_counts(values),
            observed,
            library_of(library_size, heads["mean"]),
            composition_logits(heads["mean"], panel),
            weights=weights,
            compiled=CompiledRates(binary=False),
        )

    def log_prob_of_product(
        self,
        values: Float[Values, "cells features"],
        product: Product,
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None,
        weights: Float[Tensor, " features"] | None = None,
    ) -> Float[Tensor, " cells"] | None:
        """Log-probability of each cell, shape ``(n_cells,)``, a few features at a time."""
        del feature_parameters
        library = library_of(library_size, product.inputs)
        return wide_rates(as_counts(values), library, product, None, binary=False, weights=weights)

    def mean_slope(
        self, values: Float[Tensor, "cells features"], parameters: Parameters
    ) -> MeanSlope | None:
        r"""As for all compositions: :math:`x \log \mu - \mu`, and its derivatives."""
        mean = parameters["mean"]
        return MeanSlope(values * log_mean_of(parameters) - mean, values - mean, mean)

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
