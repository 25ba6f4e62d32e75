"""What the getters of a fitted model compute, given a sampler; imputation has its own file."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mosaicvi import likelihoods
from mosaicvi._errors import MosaicviWarning, RequestError, check_whole
from mosaicvi.likelihoods import NegativeBinomialMixture

if TYPE_CHECKING:
    from mosaicvi.model._chunks import LatentChunk, PredictiveRequest
    from mosaicvi.model._posterior import PosteriorSampler


def check_evidence(evidence: np.ndarray, from_modalities: tuple[str, ...], what: str) -> None:
    """Warn about cells without evidence; refuse when no cell has any.

    Raises
    ------
    RequestError
        If no selected cell holds any of ``from_modalities``.
    """
    lacking = int((~evidence).sum())
    if lacking == 0:
        return
    names = ", ".join(map(repr, from_modalities)) or "a modality other than the one asked for"
    if lacking == len(evidence):
        raise RequestError(
            f"none of the {lacking} selected cells holds {names}",
            key="from_modalities",
            expected="at least one cell with evidence",
            remedy="choose modalities that the cells have, or other cells",
        )
    warnings.warn(
        f"{lacking} of {len(evidence)} cells hold none of {names}; their {what} is NaN. "
        "Remedy: pass indices= for cells that have evidence, or other from_modalities.",
        MosaicviWarning,
        stacklevel=4,
    )


def latent_representation(
    sampler: PosteriorSampler,
    indices: np.ndarray,
    from_modalities: tuple[str, ...] | None,
    *,
    give_mean: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (or one draw) and variance of each cell's latent posterior.

    Returns
    -------
    Two arrays of shape ``(n_cells, n_latent)``; NaN for cells without evidence.
    """
    shape = (len(indices), sampler.module.n_latent)
    location = np.full(shape, np.nan, dtype=np.float32)
    variance = np.full(shape, np.nan, dtype=np.float32)
    evidence = np.zeros(len(indices), dtype=bool)
    for chunk in sampler.latent(indices, from_modalities):
        posterior = chunk.posterior
        point = posterior.mean if give_mean else sampler.draw_latent(chunk, 1)[0]
        keep, places = chunk.evidence, chunk.places[chunk.evidence]
        location[places] = point.cpu().numpy()[keep]
        variance[places] = posterior.variance.cpu().numpy()[keep]
        evidence[chunk.places] = keep
    check_evidence(evidence, from_modalities or sampler.module.modalities, "latent representation")
    return location, variance


def predictive_sample(
    sampler: PosteriorSampler, indices: np.ndarray, request: PredictiveRequest
) -> np.ndarray:
    """Posterior predictive draws with count noise.

    Returns
    -------
    Array of shape ``(n_samples, n_cells, n_features)``, float32; NaN for cells without evidence.
    """
    n_features = sampler.n_features(request.modality)
    drawn = np.full((request.n_samples, len(indices), n_features), np.nan, dtype=np.float32)
    evidence = np.zeros(len(indices), dtype=bool)
    for chunk in sampler.predictive(indices, request):
        keep = chunk.evidence
        drawn[:, chunk.places[keep]] = chunk.counts().cpu().numpy()[:, keep]
        evidence[chunk.places] = keep
    check_evidence(evidence, request.from_modalities, f"{request.modality!r}")
    return drawn


def normalized_expression(
    sampler: PosteriorSampler, indices: np.ndarray, request: PredictiveRequest
) -> np.ndarray:
    """Mean of the likelihood, averaged over latent draws; shape ``(n_cells, n_features)``."""
    mean = np.full((len(indices), sampler.n_features(request.modality)), np.nan, np.float32)
    evidence = np.zeros(len(indices), dtype=bool)
    for chunk in sampler.predictive(indices, request):
        keep = chunk.evidence
        mean[chunk.places[keep]] = chunk.mean().mean(0).cpu().numpy()[keep]
        evidence[chunk.places] = keep
    check_evidence(evidence, request.from_modalities, f"normalized {request.modality!r}")
    return mean


def foreground_probability(
    sampler: PosteriorSampler, indices: np.ndarray, request: PredictiveRequest
) -> np.ndarray:
    """Probability that each entry is foreground, averaged over latent draws.

    Where the cell's own value is known it is conditioned on (Bayes' rule over the two components);
    elsewhere this is the prior probability that the decoder gives.

    Returns
    -------
    Array of shape ``(n_cells, n_features)``; NaN for cells without evidence.

    Raises
    ------
    RequestError
        If the modality's likelihood has no background component.
    """
    decoder = sampler.module.decoders[request.modality]
    likelihood = decoder.likelihood
    if not isinstance(likelihood, NegativeBinomialMixture):
        raise RequestError(
            f"its likelihood {likelihood.name!r} has no background component",
            modality=request.modality,
            expected="the likelihood 'nb_mixture'",
            remedy="set the modality up with 'nb_mixture'",
        )
    answer = np.full((len(indices), sampler.n_features(request.modality)), np.nan, np.float32)
    evidence = np.zeros(len(indices), dtype=bool)
    conditioned = request.modality in request.from_modalities
    for chunk in sampler.predictive(indices, request):
        probability = torch.sigmoid(-chunk.parameters["mixing_logit"])
        part = sampler.dataset.fetch(indices[chunk.places]).modalities.get(request.modality)
        if conditioned and part is not None:
            part = part.to(probability.device)
            own = part.positions
            given = {
                name: value[..., own, :] if value.ndim > 1 else value
                for name, value in chunk.parameters.items()
            }
            known = likelihood.foreground_probability(part.values, given)
            panel = part.measured(decoder.panel(part.batch))
            if panel is not None:
                # An unmeasured feature has no count to condition on.
                known = torch.where(panel, known, probability[..., own, :])
            probability = probability.clone()
            probability[..., own, :] = known
        keep = chunk.evidence
        answer[chunk.places[keep]] = probability.mean(0).cpu().numpy()[keep]
        evidence[chunk.places] = keep
    check_evidence(evidence, request.from_modalities, "foreground probability")
    return answer


@torch.no_grad()
def reconstruction_nats(
    sampler: PosteriorSampler, indices: np.ndarray, n_samples: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Negative expected log-likelihood of each modality, and KL to the prior, of each cell.

    Returns
    -------
    Modality to array ``(n_cells,)`` in nats, NaN where absent; and the KL, ``(n_cells,)``.

    Raises
    ------
    RequestError
        If ``n_samples`` is no number of draws.
    """
    check_whole(n_samples, "n_samples")
    module = sampler.module
    nats = {name: np.full(len(indices), np.nan) for name in module.modalities}
    divergence = np.full(len(indices), np.nan)
    widest = max(sampler.n_features(name) for name in module.modalities)
    size = sampler.chunk_size(n_samples, widest)
    linked = module.feature_embeddings()
    for chunk in sampler.latent(indices, None, n_cells=size, with_values=True):
        z = sampler.draw_latent(chunk, n_samples)
        for name, part in chunk.batch.modalities.items():
            own = chunk.places[part.positions.cpu().numpy()]
            log_prob = module.reconstruct(name, z, chunk.batch, linked=linked.get(name))
            nats[name][own] = -log_prob.mean(0).cpu().numpy()
        divergence[chunk.places] = _divergence(chunk, z).cpu().numpy()
    return nats, divergence


def _divergence(chunk: LatentChunk, z: Tensor) -> Tensor:
    """KL to the prior: exact for one Gaussian, by the drawn points for a mixture."""
    posterior = chunk.mixture
    if posterior.weights.shape[0] == 1:
        return posterior.kl_to_prior()
    log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
    return (posterior.log_prob(z) - log_prior).mean(0)


def modality_contribution(sampler: PosteriorSampler, indices: np.ndarray) -> pd.DataFrame:
    """Share of each modality, and of the prior, in each cell's posterior precision.

    In a mixture of experts, each component is one expert and the prior: a modality has its
    component's weight times its share there.

    Returns
    -------
    DataFrame ``(n_cells, n_modalities + 1)``; rows sum to one, a modality that the cell lacks has
    share zero; shares are means over latent dimensions.
    """
    module = sampler.module
    shares = np.zeros((len(indices), len(module.modalities) + 1), dtype=np.float32)
    with torch.no_grad():
        for chunk in sampler.latent(indices, None):
            experts = module.experts(chunk.batch)
            precision = experts.heard.unsqueeze(-1) / experts.variances
            if chunk.mixture.n_components == 1:
                own = precision / (1 + precision.sum(0))
            else:
                own = chunk.mixture.weights.unsqueeze(-1) * precision / (1 + precision)
            parts = torch.cat([own, 1 - own.sum(0, keepdim=True)])
            shares[chunk.places] = parts.mean(-1).T.cpu().numpy()
    names = sampler.data.obs_names[indices]
    return pd.DataFrame(shares, index=pd.Index(names), columns=[*module.modalities, "prior"])


def check_modality(name: str, known: tuple[str, ...], *, key: str = "modality") -> None:
    """Refuse a modality that the model does not have."""
    if name not in known:
        raise RequestError(
            f"the model has no modality {name!r}",
            key=key,
            expected="one of " + ", ".join(map(repr, known)),
            remedy="give the name under which setup_mudata registered it",
        )


def check_library_size(
    modality: str, likelihood_name: str, library_size: float | str | None
) -> None:
    """Refuse a library size that the likelihood cannot use or that is no size."""
    if library_size is None:
        return
    likelihood = likelihoods.get(likelihood_name)
    if not likelihood.uses_library_size:
        raise RequestError(
            f"likelihood {likelihood_name!r} has no library size",
            modality=modality,
            key="library_size",
            remedy="leave library_size out",
        )
    if isinstance(library_size, str):
        if library_size == "observed":
            return
    elif np.isfinite(library_size) and library_size > 0:
        return
    raise RequestError(
        f"found {library_size!r}",
        modality=modality,
        key="library_size",
        expected="a positive number of counts a cell, 'observed', or None",
    )
