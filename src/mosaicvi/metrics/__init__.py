"""Scores of predictions, of predictive distributions, and of alignments.

Predictions:
Arrays are ``(n_cells, n_features)``; draws are ``(n_draws, n_cells, n_features)``. A measured value
of NaN means "not measured" and is left out. Scores come back per feature, shape ``(n_features,)``;
averaging over features is left to the caller.

Alignments: latents are ``(n_cells, n_latent)``, of one modality each; scores come back as one
number, or as a small record of a few.

Tables and labels with an index, such as a DataFrame and a column of ``obs``, are matched by its
names where these are the same cells; anything else by place.
"""

from __future__ import annotations

from mosaicvi.metrics._abstention import accuracy_at_coverage
from mosaicvi.metrics._auc import auc
from mosaicvi.metrics._bootstrap import Difference, paired_difference
from mosaicvi.metrics._correlation import pearson, spearman
from mosaicvi.metrics._coverage import coverage, interval_width, miscoverage
from mosaicvi.metrics._crps import crps_from_samples
from mosaicvi.metrics._foscttm import foscttm, foscttm_per_cell
from mosaicvi.metrics._gate import GateScores, gate_scores, gate_threshold
from mosaicvi.metrics._label_transfer import (
    Accuracy,
    LabelTransfer,
    label_transfer,
    supervised_accuracy,
)
from mosaicvi.metrics._leakage import Leakage, leakage
from mosaicvi.metrics._matching import MatchingAccuracy, matching_accuracy
from mosaicvi.metrics._mixing import batch_mixing
from mosaicvi.metrics._pit import pit_distance, randomised_pit
from mosaicvi.metrics._rmse import rmse
from mosaicvi.metrics._scib import bio_conservation, modality_mixing
from mosaicvi.metrics._strata import depth_strata
from mosaicvi.metrics._within_type import within_type

__all__ = [
    "Accuracy",
    "Difference",
    "GateScores",
    "LabelTransfer",
    "Leakage",
    "MatchingAccuracy",
    "accuracy_at_coverage",
    "auc",
    "batch_mixing",
    "bio_conservation",
    "coverage",
    "crps_from_samples",
    "depth_strata",
    "foscttm",
    "foscttm_per_cell",
    "gate_scores",
    "gate_threshold",
    "interval_width",
    "label_transfer",
    "leakage",
    "matching_accuracy",
    "miscoverage",
    "modality_mixing",
    "paired_difference",
    "pearson",
    "pit_distance",
    "randomised_pit",
    "rmse",
    "spearman",
    "supervised_accuracy",
    "within_type",
]
