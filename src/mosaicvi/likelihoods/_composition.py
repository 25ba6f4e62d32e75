"""What the likelihoods share whose mean is a composition times library size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Float32, Int, Matrix, Real, SparseCounts, Values
from mosaicvi.likelihoods._base import Head, Likelihood, Parameters
from mosaicvi.likelihoods._math import full_precision, one_way_clamp

LOG_DISPERSION_RANGE = (math.log(1e-3), math.log(1e5))
"""Range of the log dispersion; at 1e5 a negative binomial is a Poisson for all counts seen."""
SMALLEST_LIBRARY = 1e-6
"""Floor of the library size, so that a cell without counts keeps a finite log mean."""
UNMEASURED_LOGIT = -1e30
"""Logit of a feature outside the panel: finite, so that a cell measured nowhere gives no NaN."""


def dispersion_from_log(log_dispersion: Float[Tensor, "*entries"]) -> Float[Tensor, "*entries"]:
    """Dispersion ``theta = exp(clamped log_dispersion)``, in [1e-3, 1e5]."""
    return torch.exp(one_way_clamp(full_precision(log_dispersion), *LOG_DISPERSION_RANGE))


def gamma_poisson(
    mean: Float[Tensor, "*#entries"], dispersion: Float[Tensor, "*#entries"], noise: CellNoise
) -> Float[Tensor, "*entries"]:
    """Draw negative binomial counts: ``Poisson(mean / theta * Gamma(theta))``."""
    shape = torch.broadcast_shapes(mean.shape, dispersion.shape)
    rate = noise.gamma(dispersion.expand(shape)) * (mean / dispersion)
    return noise.poisson(rate)


class MeanSlope(NamedTuple):
    """Log density of counts by their log mean, each ``(n_cells, n_features)``.

    Attributes
    ----------
    entries
        Log density in nats, up to a constant that the mean does not change.
    slope
        Its derivative by the log mean.
    information
        Expected information about the log mean.
    """

    entries: Tensor
    slope: Tensor
    information: Tensor


class CompositionLikelihood(Likelihood):
    """Counts with ``mean = library_size * softmax(mean head over measured features)``."""

    is_count: ClassVar[bool] = True
    uses_library_size: ClassVar[bool] = True
    heads: ClassVar[tuple[Head, ...]] = (Head("mean", batch_bias=True, bilinear=True, loading=1.0),)
    feature_parameters: ClassVar[tuple[str, ...]] = ()

    def encode(
        self,
        values: Float[Values, "cells features"],
        library_size: Float[Tensor, " cells"],
        *,
        target_sum: float,
    ) -> Float[Values, "cells features"]:
        """``log1p(values / library_size * target_sum)``; cells without counts give zeros."""
        factor = torch.where(library_size > 0, target_sum / library_size, 0.0)
        if isinstance(values, SparseCounts):
            return values.with_values(torch.log1p(values.values * factor[values.rows]))
        return torch.log1p(values * factor[:, None])

    def parameters(
        self,
        heads: Mapping[str, Float[Tensor, "*draws cells features"]],
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None,
        panel: Bool[Tensor, "cells features"] | None,
    ) -> dict[str, Float[Tensor, "*#entries"]]:
        """Mean counts ``"mean"``, and ``"log_mean"``, through which gradients flow stably.

        Whoever changes ``"mean"`` must drop or change ``"log_mean"`` too: densities read the
        latter where it is given. Features outside the panel have mean zero.
        """
        log_mean = torch.log_softmax(composition_logits(heads["mean"], panel), dim=-1)
        log_mean = log_mean + library_of(library_size, log_mean).log().unsqueeze(-1)
        return {"mean": log_mean.exp(), "log_mean": log_mean}

    def mean(self, parameters: Parameters) -> Float[Tensor, "*draws cells features"]:
        """Mean counts, shape ``(..., n_cells, n_features)``."""
        return parameters["mean"]

    def mean_slope(
        self, values: Float[Tensor, "cells features"], parameters: Parameters
    ) -> MeanSlope | None:
        """Dense counts' density up to what the mean does not change, and how it rises with it.

        None: a short formula is not known.
        """
        del values, parameters
        return None


def composition_logits(
    head: Float[Tensor, "*draws cells features"], panel: Bool[Tensor, "cells features"] | None
) -> Float[Tensor, "*draws cells features"]:
    """Logits of a softmax over measured features, at full precision."""
    logits = full_precision(head)
    return logits if panel is None else logits.masked_fill(~panel, UNMEASURED_LOGIT)


def library_of(
    library_size: Float[Tensor, "*#draws #cells"] | None,
    like: Float[Tensor, "*draws cells features"],
) -> Float[Tensor, "*#draws #cells"]:
    """Library sizes, none of them zero; one where none is given."""
    if library_size is None:
        return like.new_ones(like.shape[-2])
    return library_size.clamp(min=SMALLEST_LIBRARY)


def log_mean_of(parameters: Parameters) -> Float[Tensor, "*#entries"]:
    """Log mean: ``parameters["log_mean"]`` where it is given, else the log of the mean."""
    if "log_mean" in parameters:
        return parameters["log_mean"]
    return torch.log(parameters["mean"].clamp(min=torch.finfo(parameters["mean"].dtype).tiny))


def as_counts(values: Float[Values, "cells features"]) -> Float[SparseCounts, "cells features"]:
    """Values as sparse counts."""
    return values if isinstance(values, SparseCounts) else SparseCounts.from_dense(values)


def measured_library(
    values: Real[Matrix, "cells features"],
    library_size: Real[np.ndarray, " cells"],
    panel: Bool[np.ndarray, "batches features"] | None,
    batch: Int[np.ndarray, " cells"] | None,
) -> tuple[Float[np.ndarray, " features"], Float[np.ndarray, " features"]]:
    """Sums over the cells that measured each feature, of library size and of its square.

    Returns
    -------
    Two arrays of shape ``(n_features,)``, float64.
    """
    library = np.asarray(library_size, dtype=np.float64)
    n_features = values.shape[1]
    if panel is None or batch is None:
        return np.full(n_features, library.sum()), np.full(n_features, (library**2).sum())
    first = np.bincount(batch, weights=library, minlength=panel.shape[0])
    second = np.bincount(batch, weights=library**2, minlength=panel.shape[0])
    return first @ panel, second @ panel


def start_composition(
    values: Real[Matrix, "cells features"],
    library_size: Real[np.ndarray, " cells"],
    *,
    panel: Bool[np.ndarray, "batches features"] | None,
    batch: Int[np.ndarray, " cells"] | None,
) -> tuple[Float32[np.ndarray, " features"], Float32[np.ndarray, " features"]]:
    """Starting bias of the mean head and starting log dispersion, by moments.

    Proportions are pooled over the cells that measured a feature, with half a count added; the
    inverse dispersion solves ``sum (x - l p)^2 = sum l p + (l p)^2 / theta``, shrunk to the
    pooled value of all features.

    Returns
    -------
    Log proportion and log dispersion, each of shape ``(n_features,)``, float32.
    """
    counts = sp.csr_matrix(values).astype(np.float64)
    library = np.asarray(library_size, dtype=np.float64)
    depth, depth_square = measured_library(values, library, panel, batch)
    total = np.asarray(counts.sum(axis=0)).ravel()
    square = np.asarray(counts.multiply(counts).sum(axis=0)).ravel()
    cross = np.asarray(counts.T @ library).ravel()
    proportion = (total + 0.5) / (depth + 0.5 * max(len(total), 1))
    mean_square = proportion**2 * depth_square
    excess = square - 2.0 * proportion * cross + mean_square - proportion * depth
    pooled = max(excess.sum(), 0.0) / max(mean_square.sum(), 1.0)
    # sampling noise of the excess of a Poisson feature: where it is large, the pooled value rules
    weight = 1.0 + np.sqrt(2.0 * mean_square + proportion * depth)
    inverse = (np.maximum(excess, 0.0) + weight * pooled) / (mean_square + weight)
    log_dispersion = -np.log(np.clip(inverse, 1e-2, 1e1))
    log_proportion = np.log(proportion) - np.log(proportion.sum())
    return log_proportion.astype(np.float32), log_dispersion.astype(np.float32)
