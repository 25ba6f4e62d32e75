"""Scores of predictions and of predictive distributions, in plain numpy.

Arrays are ``(n_cells, n_features)``; draws are ``(n_draws, n_cells, n_features)``. A measured value
of NaN means "not measured" and is left out. Scores come back per feature, shape ``(n_features,)``;
averaging over features is left to the caller.
"""

from __future__ import annotations

from mosaicvi.metrics._auc import auc
from mosaicvi.metrics._bootstrap import Difference, paired_difference
from mosaicvi.metrics._correlation import pearson, spearman
from mosaicvi.metrics._coverage import coverage, interval_width, miscoverage
from mosaicvi.metrics._crps import crps_from_samples
from mosaicvi.metrics._gate import GateScores, gate_scores, gate_threshold
from mosaicvi.metrics._mixing import batch_mixing
from mosaicvi.metrics._pit import randomised_pit
from mosaicvi.metrics._rmse import rmse
from mosaicvi.metrics._within_type import within_type

__all__ = [
    "Difference",
    "GateScores",
    "auc",
    "batch_mixing",
    "coverage",
    "crps_from_samples",
    "gate_scores",
    "gate_threshold",
    "interval_width",
    "miscoverage",
    "paired_difference",
    "pearson",
    "randomised_pit",
    "rmse",
    "spearman",
    "within_type",
]
