"""Open or closed: accessibility of a region in a cell."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mosaicvi._compiled import SMALLEST_MEAN
from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Int, Matrix, Real, SparseCounts, Values
from mosaicvi.likelihoods._base import FeatureStart, Parameters, Product
from mosaicvi.likelihoods._composition import (
    SMALLEST_LIBRARY,
    as_counts,
    composition_logits,
    library_of,
    measured_library,
)
from mosaicvi.likelihoods._fused import CompiledRates
from mosaicvi.likelihoods._math import full_precision, one_way_clamp
from mosaicvi.likelihoods._rate import Entry, RateLikelihood, rate_rows
from mosaicvi.likelihoods._rows import rows_from_logits
from mosaicvi.likelihoods._wide import wide_rates

LOG_FACTOR_RANGE = (-10.0, 10.0)
"""Range of the log of a region's own factor."""


def log_open(mean: Float[Tensor, "*entries"]) -> Float[Tensor, "*entries"]:
    """``log(1 - exp(-mean))``, to relative precision where the mean is small or large."""
    small = mean < 0.6931
    exponent = torch.exp(-mean)
    return torch.where(
        small, torch.log(-torch.expm1(-mean)), torch.log1p(-exponent.masked_fill(small, 0.0))
    )


def open_slope(mean: Float[Tensor, "*entries"]) -> Float[Tensor, "*entries"]:
    """Derivative of :func:`log_open` by the log of the mean: ``mean / (exp(mean) - 1)``."""
    return mean / torch.expm1(mean.clamp(max=80.0))


def fragments_seen(
    n_open: Float[Tensor, "*draws cells"], n_regions: Real[Tensor, "*#draws #cells"] | float
) -> Float[Tensor, "*draws cells"]:
    """Fragments that leave ``n_open`` of ``n_regions`` equal regions open, of ``n_open``'s shape.

    A cell with all regions open is taken to have all but half a region.
    """
    total = torch.as_tensor(n_regions, dtype=n_open.dtype, device=n_open.device).clamp(min=1.0)
    return -total * torch.log1p(-torch.minimum(n_open, total - 0.5) / total)


def _log_factor(
    feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
) -> Float[Tensor, "*#cells features"]:
    """Log of each region's own factor, within its range."""
    low, high = LOG_FACTOR_RANGE
    return one_way_clamp(full_precision(feature_parameters["log_factor"]), low, high)


def _rows(
    values: Float[SparseCounts, "cells features"],
    mean: Float[Tensor, "*draws cells features"],
    log_factor: Float[Tensor, " features"],
    *,
    entry: Entry,
    observed: Bool[Tensor, "cells features"] | None,
    weights: Float[Tensor, " features"] | None,
    gradients: bool,
) -> tuple[Float[Tensor, "..."], ...]:
    """:func:`rate_rows` of rates that are means times a factor, by log mean and by log factor."""
    value, *slopes = rate_rows(
        values,
        mean * log_factor.exp(),
        entry=entry,
        observed=observed,
        weights=weights,
        gradients=gradients,
    )
    return (value, slopes[0], slopes[0].clone()) if gradients else (value,)


class Bernoulli(RateLikelihood):
    r"""``x`` is 1 with probability :math:`1 - e^{-\mu}`, else 0.

    A region is seen open where at least one of Poisson(:math:`\mu`) fragments falls into it. The
    rates :math:`\mu` of a cell are a composition times a number of fragments: with :math:`n` of
    :math:`F` measured regions seen open, :math:`-F \log(1 - n / F)`, which would be that number if
    all regions were alike, times a factor of each region that is learnt because they are not.
    """

    name: ClassVar[str] = "bernoulli"
    label: ClassVar[str] = "Bernoulli"
    feature_parameters: ClassVar[tuple[str, ...]] = ("log_factor",)
    largest: ClassVar[float | None] = 1.0
    takes_samples: ClassVar[bool] = True

    @staticmethod
    def entry(
        x: Float[Tensor, "*#entries"], mean: Float[Tensor, "*#entries"]
    ) -> tuple[Float[Tensor, "*entries"], Float[Tensor, "*entries"]]:
        """Log-probability of open (above zero) and closed regions, and its derivative."""
        mean = mean.clamp(min=SMALLEST_MEAN)
        is_open = x > 0
        value = torch.where(is_open, log_open(mean), -mean)
        return value, torch.where(is_open, open_slope(mean), -mean)

    def parameters(
        self,
        heads: Mapping[str, Float[Tensor, "*draws cells features"]],
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None,
        panel: Bool[Tensor, "cells features"] | None,
    ) -> dict[str, Float[Tensor, "*#entries"]]:
        """Rates ``"mean"`` and ``"log_mean"``; ``library_size`` is the number of open regions."""
        n_regions = heads["mean"].shape[-1] if panel is None else panel.sum(-1)
        fragments = None if library_size is None else fragments_seen(library_size, n_regions)
        rates = super().parameters(heads, {}, library_size=fragments, panel=panel)
        log_mean = rates["log_mean"] + _log_factor(feature_parameters)
        return {"mean": log_mean.exp(), "log_mean": log_mean}

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
        library = self._library(library_size, heads["mean"], panel, weights)
        return rows_from_logits(
            partial(_rows, entry=self.entry),
            as_counts(values),
            observed,
            library,
            composition_logits(heads["mean"], panel),
            _log_factor(feature_parameters),
            weights=weights,
            compiled=CompiledRates(binary=True),
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
        like = product.inputs.new_empty(()).expand(len(product.inputs), len(product.embeddings))
        library = self._library(library_size, like, None, weights)
        return wide_rates(
            as_counts(values),
            library,
            product,
            _log_factor(feature_parameters),
            binary=True,
            weights=weights,
        )

    @staticmethod
    def _library(
        library_size: Float[Tensor, "*#draws #cells"] | None,
        like: Float[Tensor, "*draws cells features"],
        panel: Bool[Tensor, "#cells features"] | None,
        weights: Float[Tensor, " features"] | None,
    ) -> Float[Tensor, "*#draws #cells"]:
        """Fragments of each cell; of a sample of regions, each counts as many as it stands for."""
        share = panel if weights is None or panel is None else panel * weights
        total = like.shape[-1] if weights is None else weights.sum().expand(1)
        n_regions = total if share is None else share.sum(-1)
        fragments = None if library_size is None else fragments_seen(library_size, n_regions)
        return library_of(fragments, like)

    def composition(
        self,
        parameters: Parameters,
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
    ) -> Float[Tensor, "*draws cells features"]:
        """Shares of the fragments, without the factors of regions."""
        rates = parameters["log_mean"] - _log_factor(feature_parameters)
        return torch.softmax(rates, -1)

    def complete_library(
        self,
        library_size: Float[Tensor, "*#draws #cells"],
        share: Float[Tensor, "*draws cells"],
        n_counted: Int[Tensor, "*#draws #cells"],
        n_features: int,
    ) -> Float[Tensor, "*draws cells"]:
        """Open regions of all, of a number of open ones among some: fragments are what adds up."""
        seen = fragments_seen(library_size.clamp_min(SMALLEST_LIBRARY), n_counted)
        return -n_features * torch.expm1(-seen / share / n_features)

    def mean(self, parameters: Parameters) -> Float[Tensor, "*draws cells features"]:
        """Probability of each region to be seen open, shape ``(..., n_cells, n_features)``."""
        return -torch.expm1(-parameters["mean"])

    def deviance(
        self, values: Float[Tensor, "cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        r"""Bernoulli deviance, :math:`-2 \log p(x)`, of each entry."""
        p = self.mean(parameters).clamp(1e-7, 1 - 1e-7)
        return -2 * (values * p.log() + (1 - values) * torch.log1p(-p))

    def sample(
        self, parameters: Parameters, noise: CellNoise
    ) -> Float[Tensor, "*draws cells features"]:
        """Draw zeros and ones, shape ``(..., n_cells, n_features)``."""
        probability = self.mean(parameters)
        uniform = noise.uniform(*probability.shape).to(probability)
        return (uniform < probability).to(probability.dtype)

    def start(
        self,
        values: Real[Matrix, "cells features"],
        library_size: Real[np.ndarray, " cells"],
        *,
        background: Float[np.ndarray, " features"] | None = None,
        panel: Bool[np.ndarray, "batches features"] | None = None,
        batch: Int[np.ndarray, " cells"] | None = None,
    ) -> FeatureStart:
        """Rates at which the average cell shows each region open as often as was seen."""
        del background
        matrix = sp.csr_matrix(values)
        n_features = matrix.shape[1]
        n_cells, _ = measured_library(values, np.ones(matrix.shape[0]), panel, batch)
        n_open = np.minimum(np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel(), n_cells)
        rate = -np.log1p(-(n_open + 0.5) / (n_cells + 1.0))
        n_measured: float | Tensor = n_features
        if panel is not None and batch is not None:
            n_measured = torch.as_tensor(panel[batch].sum(1))
        library = torch.as_tensor(np.asarray(library_size, dtype=np.float64))
        fragments = fragments_seen(library, n_measured).mean() if len(library) else library.sum()
        factor = np.log(rate.sum() / max(float(fragments), 1.0))
        return FeatureStart(
            {"mean": np.log(rate / rate.sum()).astype(np.float32)},
            {"log_factor": np.full(n_features, factor, dtype=np.float32)},
        )
