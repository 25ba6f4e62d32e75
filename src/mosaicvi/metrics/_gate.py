"""Gates: the threshold between negative and positive cells of a protein, and calls made with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import RequestError
from mosaicvi.metrics._auc import auc
from mosaicvi.metrics._shapes import Floats, as_scored, as_table

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def _split(values: Floats) -> float:
    ordered = np.sort(values)
    distinct = np.flatnonzero(np.diff(ordered) > 0)  # last position of the lower group
    if distinct.size == 0:
        return float("nan")
    n_low = distinct + 1.0
    n_high = ordered.size - n_low
    cumulative = np.cumsum(ordered)
    low = cumulative[distinct] / n_low
    high = (cumulative[-1] - cumulative[distinct]) / n_high
    best = distinct[np.argmax(n_low * n_high * (high - low) ** 2)]
    return float((ordered[best] + ordered[best + 1]) / 2.0)


def gate_threshold(measured: ArrayLike) -> NDArray[np.float64]:
    """Threshold between the two groups of each feature, from measured training values.

    The split of the sorted values that maximises the variance between the two groups,
    ``n0 n1 (m1 - m0)^2`` (Otsu 1979): the exact optimum of two-means in one dimension, so it needs
    no start and no seed. The threshold lies half-way between the neighbours of the split.

    Parameters
    ----------
    measured
        log1p of training counts, shape ``(n_cells, n_features)``; NaN is left out.

    Returns
    -------
    Shape ``(n_features,)``, on the scale given; NaN for a constant feature.

    Raises
    ------
    RequestError
        If there are more than two axes.
    """
    table = as_table(measured, "measured")
    return np.array([_split(column[np.isfinite(column)]) for column in table.T])


@dataclass(frozen=True)
class GateScores:
    """Scores of positive and negative calls, each of shape ``(n_features,)``.

    Parameters
    ----------
    precision_positive
        Share of the cells called positive that are; 0 when none is called although some are.
    precision_negative
        Share of the cells called negative that are; 0 when none is called although some are.
    recall_positive
        Share of the positive cells that are called so.
    auc
        Area under the receiver operating characteristic of the prediction itself.
    """

    precision_positive: Floats
    precision_negative: Floats
    recall_positive: Floats
    auc: Floats

    @property
    def precision(self) -> Floats:
        """Mean of both precisions, shape ``(n_features,)``."""
        return (self.precision_positive + self.precision_negative) / 2.0


def gate_scores(
    predicted: ArrayLike,
    measured: ArrayLike,
    threshold: ArrayLike,
    measured_threshold: ArrayLike | None = None,
    *,
    min_cells: int = 10,
) -> GateScores:
    """Score calls of positive against negative cells.

    Entries that are NaN in either table are left out: a cell without evidence is called neither.

    Parameters
    ----------
    predicted
        Predictive mean of log1p, shape ``(n_cells, n_features)``.
    measured
        Measured log1p, shape ``(n_cells, n_features)``.
    threshold
        Gate of each feature, from training values, shape ``(n_features,)``.
    measured_threshold
        Gate of the measured values where their scale is another (another data set); default: the
        same gate.
    min_cells
        A feature with fewer measured positives, or fewer measured negatives, among its entries is
        not scored (NaN).

    Raises
    ------
    RequestError
        If shapes do not belong together, or a value is infinite.
    """
    left, right, scored = as_scored(predicted, measured)
    gate = np.asarray(threshold, dtype=np.float64)
    truth_gate = (
        gate if measured_threshold is None else np.asarray(measured_threshold, dtype=np.float64)
    )
    for given, key in ((gate, "threshold"), (truth_gate, "measured_threshold")):
        if given.shape != left.shape[1:]:
            raise RequestError(
                f"shape {given.shape} for {left.shape[1]} features",
                key=key,
                expected="(n_features,), a gate of each feature",
                remedy="gate_threshold(training values), or np.full(n_features, threshold)",
            )
    scores = np.full((4, left.shape[1]), np.nan)
    for feature in range(left.shape[1]):
        held = scored[:, feature]
        called = left[held, feature] > gate[feature]
        truth = right[held, feature] > truth_gate[feature]
        unknown = not (np.isfinite(gate[feature]) and np.isfinite(truth_gate[feature]))
        if unknown or truth.sum() < min_cells or (~truth).sum() < min_cells:
            continue
        scores[0, feature] = float(truth[called].mean()) if called.any() else 0.0
        scores[1, feature] = float((~truth[~called]).mean()) if (~called).any() else 0.0
        scores[2, feature] = float(called[truth].mean())
        scores[3, feature] = auc(left[held, feature], truth)
    return GateScores(scores[0], scores[1], scores[2], scores[3])
