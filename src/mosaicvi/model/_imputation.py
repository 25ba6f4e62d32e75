"""Impute one modality from others, with intervals, as an AnnData of all selected cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from mosaicvi import _keys, likelihoods
from mosaicvi.model._answers import check_evidence
from mosaicvi.model._summaries import Summaries

if TYPE_CHECKING:
    from mosaicvi.data import MosaicData
    from mosaicvi.model._chunks import PredictiveRequest
    from mosaicvi.model._posterior import PosteriorSampler

IMPUTABLE_CORRELATION = 0.5
"""A feature whose held-out Pearson correlation (log1p) is below this is flagged not imputable."""

MIN_CHECK_CELLS = 20
MAX_CHECK_CELLS = 1000
"""Held-out cells on which imputability is measured: fewer give NaN, more are subsampled."""


@dataclass(frozen=True)
class Imputability:
    """How well each feature was predicted for cells that did not train the model.

    Attributes
    ----------
    correlation
        Pearson correlation of predicted and measured values (log1p for counts, logs for positive
        values), ``(n_features,)``.
    n_cells
        Cells on which it was measured.
    """

    correlation: np.ndarray
    n_cells: int


def impute(
    sampler: PosteriorSampler,
    indices: np.ndarray,
    request: PredictiveRequest,
    *,
    quantiles: tuple[float, ...],
    scale: str,
    imputability: Imputability,
) -> AnnData:
    """Summarise the posterior predictive of every selected cell.

    Returns
    -------
    AnnData of shape ``(n_cells, n_features)``; see :meth:`mosaicvi.MosaicVI.impute`.
    """
    data = sampler.data
    modality = data.modalities[request.modality]
    likelihood = likelihoods.get(modality.spec.likelihood)
    summaries = Summaries(
        len(indices), len(modality.var_names), quantiles, scale, likelihood.is_count
    )
    for chunk in sampler.predictive(indices, request):
        summaries.add(chunk)
    check_evidence(summaries.evidence, request.from_modalities, f"imputed {request.modality!r}")
    obs = pd.DataFrame(
        {
            _keys.OBS_MEASURED: modality.rows[indices] >= 0,
            _keys.OBS_EVIDENCE: summaries.evidence,
        },
        index=pd.Index(data.obs_names[indices].astype(str)),
    )
    var = pd.DataFrame(
        {
            _keys.VAR_IMPUTABILITY: imputability.correlation.astype(np.float32),
            _keys.VAR_IMPUTABLE: imputability.correlation >= IMPUTABLE_CORRELATION,
        },
        index=pd.Index(np.asarray(modality.var_names, dtype=str)),
    )
    answer = AnnData(X=summaries.mean, obs=obs, var=var, layers=summaries.layers)
    answer.uns[_keys.UNS] = {
        "modality": request.modality,
        "likelihood": likelihood.name,
        "from_modalities": list(request.from_modalities),
        "n_samples": request.n_samples,
        "scale": scale,
        "seed": sampler.seed,
        "imputability_cells": imputability.n_cells,
    }
    return answer


def check_cells(
    data: MosaicData, modality: str, from_modalities: tuple[str, ...], held_out: np.ndarray
) -> np.ndarray:
    """Held-out cells that hold both the answer and some evidence, at most ``MAX_CHECK_CELLS``."""
    has_answer = data.modalities[modality].rows[held_out] >= 0
    has_evidence = np.zeros(len(held_out), dtype=bool)
    for name in from_modalities:
        if name in data.modalities:
            has_evidence |= data.modalities[name].rows[held_out] >= 0
    cells: np.ndarray = held_out[has_answer & has_evidence]
    # In the order of names: the same cells are chosen, and summed, however the rows are ordered.
    cells = cells[np.argsort(data.obs_names[cells].astype(str), kind="stable")]
    if len(cells) > MAX_CHECK_CELLS:
        chosen = np.random.default_rng(0).choice(len(cells), MAX_CHECK_CELLS, replace=False)
        cells = cells[np.sort(chosen)]
    return cells


def measure_imputability(
    sampler: PosteriorSampler, held_out: np.ndarray, request: PredictiveRequest
) -> Imputability:
    """Correlate predicted with measured values of held-out cells, feature by feature."""
    modality = sampler.data.modalities[request.modality]
    n_features = len(modality.var_names)
    cells = check_cells(sampler.data, request.modality, request.from_modalities, held_out)
    if len(cells) < MIN_CHECK_CELLS:
        return Imputability(np.full(n_features, np.nan), len(cells))
    likelihood = likelihoods.get(modality.spec.likelihood)
    is_count = likelihood.is_count
    summaries = Summaries(len(cells), n_features, (), "counts", is_count)
    for chunk in sampler.predictive(cells, request):
        summaries.add(chunk)
    predicted = summaries.layers["log1p_mean"] if is_count else summaries.mean
    values = modality.shown(modality.rows[cells])
    measured = values if isinstance(values, np.ndarray) else values.toarray()
    if is_count:
        measured = np.log1p(measured)
    elif likelihood.positive:
        # A few large values would decide the correlation of such values themselves.
        predicted, measured = np.log(predicted), np.log(measured)
    panel = modality.measured(modality.rows[cells])
    if panel is not None:
        # A zero at a feature that the batch did not measure is no value.
        measured = np.where(panel, measured, np.nan)
    return Imputability(_correlation(predicted, measured), len(cells))


def _correlation(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Pearson correlation of each column over rows where both are known; NaN if constant."""
    known = np.isfinite(left) & np.isfinite(right)
    count = np.maximum(known.sum(0), 1)

    def centred(values: np.ndarray) -> np.ndarray:
        filled = np.where(known, values, 0.0).astype(np.float64)
        return np.asarray(np.where(known, filled - filled.sum(0) / count, 0.0))

    left, right = centred(left), centred(right)
    spread = np.sqrt((left**2).sum(0) * (right**2).sum(0))
    product = (left * right).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 1e-12, product / spread, np.nan)
