"""Open or closed: accessibility of a region in a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Int, Matrix, Real
from mosaicvi.likelihoods._base import FeatureStart, Parameters
from mosaicvi.likelihoods._composition import measured_library
from mosaicvi.likelihoods._math import SMALLEST_MEAN, full_precision, one_way_clamp
from mosaicvi.likelihoods._rate import RateLikelihood

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
        fragments = library_size
        if library_size is not None:
            n_features = heads["mean"].shape[-1]
            n_measured = n_features if panel is None else panel.sum(-1)
            fragments = fragments_seen(library_size, n_measured)
        rates = super().parameters(heads, {}, library_size=fragments, panel=panel)
        low, high = LOG_FACTOR_RANGE
        factor = one_way_clamp(full_precision(feature_parameters["log_factor"]), low, high)
        log_mean = rates["log_mean"] + factor
        return {"mean": log_mean.exp(), "log_mean": log_mean}

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
