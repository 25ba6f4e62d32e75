"""How the log-probability of values changes with what the factors add to a decoder's heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mosaicvi import _compiled
from mosaicvi._types import as_dense
from mosaicvi.likelihoods._composition import (
    SMALLEST_LIBRARY,
    CompositionLikelihood,
    composition_logits,
    dispersion_from_log,
    library_of,
)
from mosaicvi.likelihoods._nb import NegativeBinomial

if TYPE_CHECKING:
    from mosaicvi.data._batch import ModalityBatch
    from mosaicvi.likelihoods._base import Parameters
    from mosaicvi.likelihoods._composition import MeanSlope
    from mosaicvi.nn._decoder import Decoder


@dataclass(frozen=True)
class Slope:
    """Log-probability of the values of some rows, and where it rises.

    Attributes
    ----------
    nats
        Log-probability, shape ``(n_rows,)``.
    heads
        Derivative by the factors' part of the heads, ``(n_rows, n_features)``.
    depth, depth_information
        Derivative by the log of the library size, and its information, ``(n_rows,)``; zero where
        depth is taken as it is.
    """

    nats: Tensor
    heads: Tensor
    depth: Tensor
    depth_information: Tensor


def shown_entries(decoder: Decoder, part: ModalityBatch) -> Tensor | None:
    """Entries that were measured, bool ``(n_rows, n_features)``; None: all."""
    panel = part.measured(decoder.panel(part.batch))
    if panel is None:
        return part.observed
    return panel if part.observed is None else part.observed & panel


def head_slope(
    decoder: Decoder,
    part: ModalityBatch,
    z: Tensor,
    weights: Tensor,
    *,
    covariates: Tensor | None = None,
    observed: Tensor | None = None,
    log_depth: Tensor | None = None,
) -> Slope:
    """Log-probability of a modality's values, and its derivative by the factors' part of the heads.

    Parameters
    ----------
    decoder
        Decoder of the modality.
    part
        Its rows.
    z
        Factors of these rows, shape ``(n_rows, n_factors)``.
    weights
        Shape ``(n_features, n_factors)``.
    covariates
        Design matrix of these rows.
    observed
        Entries that count, bool ``(n_rows, n_features)``; None: those that were measured.
    log_depth
        What is added to the log of the library sizes, ``(n_rows,)``; None: they are as counted.
    """
    likelihood = decoder.likelihood
    feature = {k: v.detach() for k, v in decoder.feature_parameters.items()}
    panel = part.measured(decoder.panel(part.batch))
    observed = shown_entries(decoder, part) if observed is None else observed
    zeros = torch.zeros(len(z), device=z.device)
    with torch.enable_grad():
        offsets = {k: v.detach() for k, v in decoder.batch_offsets(part.batch).items()}
        heads = {k: v.detach() for k, v in decoder(z, offsets, covariates, weights).items()}
        common = torch.zeros_like(heads[decoder.mean_head], requires_grad=True)
        shifted = {
            name: value
            + common * (decoder.loadings[name].detach() if name in decoder.loadings else 1.0)
            for name, value in heads.items()
        }
        if log_depth is None:
            nats = likelihood.log_prob_of_heads(
                part.values,
                shifted,
                feature,
                library_size=part.library_size if likelihood.uses_library_size else None,
                panel=panel,
                observed=observed,
            )
            (slope,) = torch.autograd.grad(nats.sum(), common)
            return Slope(nats.detach(), slope, zeros, zeros)
        # Fused densities have no derivative by the library size.
        depth = log_depth.detach().clone().requires_grad_()
        library = part.library_size * depth.exp()
        parameters = likelihood.parameters(shifted, feature, library_size=library, panel=panel)
        entries = likelihood.log_prob_entries(as_dense(part.values), parameters)
        if observed is not None:
            entries = torch.where(observed, entries, 0.0)
        nats = entries.sum(-1)
        slopes = torch.autograd.grad(nats.sum(), (common, depth))
    with torch.no_grad():
        mean = likelihood.mean(parameters)
        theta = dispersion_from_log(feature["log_dispersion"])
        information = mean * theta / (mean + theta)
        if observed is not None:
            information = torch.where(observed, information, 0.0)
    return Slope(nats.detach(), slopes[0], slopes[1], information.sum(-1).detach())


@torch.no_grad()
def closed_slope(
    decoder: Decoder,
    part: ModalityBatch,
    z: Tensor,
    weights: Tensor,
    *,
    covariates: Tensor | None,
    observed: Tensor,
    log_depth: Tensor | None,
    values: Tensor | None = None,
) -> Slope | None:
    """As :func:`head_slope`, where the density of counts by their mean is a short formula.

    Log-probabilities lack what factors do not change. None: no formula is known. It spares what
    automatic differentiation computes of dispersions and factorials. Dense ``values`` of the rows
    spare making them.
    """
    if type(decoder.likelihood) is NegativeBinomial and z.device.type == "cpu":
        dense = as_dense(part.values) if values is None else values
        if dense.dtype == z.dtype == torch.float32:
            return _compiled_slope(
                decoder, part, z, weights, dense, covariates, observed, log_depth
            )
    found = mean_slope(decoder, part, z, weights, covariates=covariates, log_depth=log_depth)
    if found is None:
        return None
    parameters, mean = found
    counts = observed.to(mean.slope.dtype)
    slope = mean.slope * counts
    total = slope.sum(-1)
    # Shares add up to one: a head that rises lowers all others.
    counted = parameters["mean"].sum(-1).clamp_min(SMALLEST_LIBRARY)
    heads = slope - parameters["mean"] * (total / counted).unsqueeze(-1)
    information = torch.zeros_like(total)
    if log_depth is not None:
        information = torch.linalg.vecdot(mean.information, counts)
    return Slope(torch.linalg.vecdot(mean.entries, counts), heads, total, information)


def _compiled_slope(
    decoder: Decoder,
    part: ModalityBatch,
    z: Tensor,
    weights: Tensor,
    values: Tensor,
    covariates: Tensor | None,
    observed: Tensor,
    log_depth: Tensor | None,
) -> Slope:
    """The same of negative binomial counts on a processor, a row at a time."""
    heads = decoder(z, decoder.batch_offsets(part.batch), covariates, weights)[decoder.mean_head]
    logits = (
        composition_logits(heads, part.measured(decoder.panel(part.batch))).contiguous().numpy()
    )
    library = part.library_size if log_depth is None else part.library_size * log_depth.exp()
    theta = dispersion_from_log(decoder.feature_parameters["log_dispersion"]).numpy()
    given = (values.numpy(), observed.numpy(), library_of(library, heads).numpy(), logits, theta)
    slopes, sums = np.empty_like(logits), np.zeros((len(logits), 3))

    def work(_number: int, rows: tuple[int, int]) -> None:
        _compiled.count_slopes(rows, *given, slopes, sums)

    _compiled.each_block(_compiled.row_blocks(len(logits)), work)
    nats, depth, information = torch.as_tensor(sums, dtype=z.dtype).unbind(1)
    if log_depth is None:
        information = torch.zeros_like(nats)
    return Slope(nats, torch.as_tensor(slopes), depth, information)


@torch.no_grad()
def mean_slope(
    decoder: Decoder,
    part: ModalityBatch,
    z: Tensor,
    weights: Tensor,
    *,
    covariates: Tensor | None,
    log_depth: Tensor | None,
) -> tuple[Parameters, MeanSlope] | None:
    """Distribution of a modality's values, and how every entry's density rises with its log mean.

    None where no formula is known.
    """
    likelihood = decoder.likelihood
    if not isinstance(likelihood, CompositionLikelihood):
        return None
    library = part.library_size if log_depth is None else part.library_size * log_depth.exp()
    parameters = decoder.distribution(
        z,
        part.batch,
        library,
        covariates=covariates,
        panel=part.measured(decoder.panel(part.batch)),
        linked=weights,
    )
    found = likelihood.mean_slope(as_dense(part.values), parameters)
    return None if found is None else (parameters, found)


@torch.no_grad()
def depth_variance(decoder: Decoder) -> float | None:
    r"""How far a cell's counts are from its depth, by overdispersion alone; None: no farther.

    Counts that vary together in features with a large share, such as :math:`x_f = L p_f g_f` with
    gamma noise :math:`g_f` of variance :math:`1 / \theta_f`, sum to :math:`L \sum_f p_f g_f`, whose
    relative variance is :math:`\sum_f p_f^2 / \theta_f`. All other features then seem to have moved
    against these, and that is no factor. Twice the standard deviation is allowed for: shares of
    single cells are more uneven than those of the mean.
    """
    if (
        not decoder.likelihood.uses_library_size
        or "log_dispersion" not in decoder.feature_parameters
    ):
        return None
    share = decoder.biases[decoder.mean_head].softmax(-1)
    theta = dispersion_from_log(decoder.feature_parameters["log_dispersion"])
    return 4 * float((share.square() / theta).sum())
