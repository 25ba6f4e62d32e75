"""Scores of an imputation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mosaicvi import metrics
from mosaicvi._errors import RequestError

if TYPE_CHECKING:
    from mosaicvi.bm._input import Prediction

LEVELS = (0.5, 0.8, 0.95)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """The hidden part of an imputation task.

    Parameters
    ----------
    measured
        Hidden counts of the query cells, ``(n_query, n_features)``.
    features
        Names of the features.
    types
        Type of each query cell, shape ``(n_query,)``.
    gate
        Gate of each feature on log1p, from training values, shape ``(n_features,)``.
    measured_gate
        Gate of the measured values, if their scale is another.
    unit
        Slope and intercept from training to test scale, if they differ.
    """

    measured: Floats
    features: tuple[str, ...]
    types: NDArray[np.str_]
    gate: Floats
    measured_gate: Floats | None = None
    unit: tuple[Floats, Floats] | None = None


def _summary(values: Floats, within: Floats | None = None) -> dict[str, Any]:
    """Mean over features, and the features' own values; NaN becomes None, which JSON has."""

    def plain(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    def mean(table: Floats) -> float | None:
        return plain(float(np.nanmean(table))) if np.isfinite(table).any() else None

    summary: dict[str, Any] = {
        "mean": mean(values),
        "per_feature": [plain(value) for value in values],
    }
    if within is not None:
        summary["within_type"] = mean(within)
        summary["within_type_per_feature"] = [plain(value) for value in within]
    return summary


def _check(prediction: Prediction, truth: Truth) -> None:
    shape = truth.measured.shape
    if prediction.draws.shape[1:] != shape or prediction.mean.shape != shape:
        raise RequestError(
            f"a prediction with shape {prediction.draws.shape}",
            expected=f"(n_draws, {shape[0]}, {shape[1]})",
        )
    finite = np.isfinite(prediction.mean).all() and np.isfinite(prediction.draws).all()
    if not finite or prediction.draws.min() < 0:
        raise RequestError(
            "a prediction with values that are not finite, or below 0",
            expected="counts for every hidden entry",
        )


def _point_scores(predicted: Floats, scaled: Floats, log1p: Floats, truth: Truth) -> dict[str, Any]:
    def both(score: Any, values: Floats) -> dict[str, Any]:
        within = metrics.within_type(score, values, log1p, truth.types)
        return _summary(score(values, log1p), within)

    gates = metrics.gate_scores(predicted, log1p, truth.gate, truth.measured_gate)
    return {
        "pearson": both(metrics.pearson, predicted),
        "spearman": both(metrics.spearman, predicted),
        "rmse_log1p": both(metrics.rmse, scaled),
        "gate_precision": _summary(gates.precision),
        "gate_precision_positive": _summary(gates.precision_positive),
        "gate_precision_negative": _summary(gates.precision_negative),
        "gate_recall_positive": _summary(gates.recall_positive),
        "gate_auc": _summary(gates.auc),
    }


def score(prediction: Prediction, truth: Truth) -> dict[str, Any]:
    """Every score of one prediction.

    Pearson, Spearman and gates are scored as predicted. RMSE, CRPS and PIT are scored after the
    change of unit, where the task has one. Widths are those of the draws as predicted, in log1p,
    so that they can be held against the widths within the training data.

    Parameters
    ----------
    prediction
        The answer of a method.
    truth
        The hidden part of the task.

    Returns
    -------
    Name of a score -> mean over features, value per feature, and within types where it has a
    meaning. RMSE also "pooled": the root of the mean square over cells and features together.
    JSON-able.

    Raises
    ------
    RequestError
        If the prediction has another shape, or values that are not finite or negative.
    """
    _check(prediction, truth)
    log1p = np.log1p(truth.measured)
    log1p_draws, mean = np.log1p(prediction.draws), prediction.mean
    count_draws, scaled_draws, scaled_mean = prediction.draws, log1p_draws, mean
    if truth.unit is not None:
        slope, intercept = truth.unit
        scaled_mean = intercept + slope * mean
        scaled_draws = np.maximum(intercept + slope * log1p_draws, 0.0).astype(np.float32)
        count_draws = np.expm1(scaled_draws)
    scores = _point_scores(mean, scaled_mean, log1p, truth)
    squared = np.square(np.array(scores["rmse_log1p"]["per_feature"], dtype=np.float64))
    scores["rmse_log1p"]["pooled"] = float(np.sqrt(np.nanmean(squared)))
    crps = metrics.crps_from_samples(scaled_draws, log1p)
    on_counts = metrics.crps_from_samples(count_draws, truth.measured)
    # Ranks are of counts: log1p of equal ones may differ in the last bit, and they were no ties. In
    # another unit only zeros can be, and their log1p is exact.
    ranked = (scaled_draws, log1p) if truth.unit is not None else (count_draws, truth.measured)
    pit = metrics.randomised_pit(ranked[0], ranked[1].astype(np.float32))
    covered, widths = metrics.coverage(pit, LEVELS), metrics.interval_width(log1p_draws, LEVELS)
    missed = metrics.miscoverage(pit, LEVELS)
    scores["crps_log1p"] = _summary(np.nanmean(crps, axis=0))
    scores["crps_counts"] = _summary(np.nanmean(on_counts, axis=0))
    scores["miscoverage"] = {**_summary(missed), "worst": truth.features[int(np.nanargmax(missed))]}
    scores["pit_distance"] = _summary(metrics.pit_distance(pit))
    for row, level in enumerate(LEVELS):
        scores[f"coverage_{level:.0%}"] = _summary(covered[row])
        scores[f"width_{level:.0%}"] = _summary(widths[row])
    return scores
