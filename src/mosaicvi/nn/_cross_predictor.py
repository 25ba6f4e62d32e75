r"""Linear predictions of the other modalities, as further inputs of an encoder.

Principal components keep what varies most, not what tells of another modality: a single gene may
say which protein a cell bears and weigh nothing in the components. Ridge regression on all features
finds such directions. Fitted and applied to the same cells it would promise the encoder more than
it holds for others, so predictions are **cross-fitted**: a cell that took part in the fit gets the
prediction of a regression that left its fold out (Stone 1974; Chernozhukov et al. 2018), any other
cell the mean over folds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mosaicvi._types import Bool, Float, Float32, Int, SparseCounts, Values
from mosaicvi.nn._cross_regression import N_FOLDS, CrossRegression


class CrossPredictor(nn.Module):
    """Cross-fitted linear scores.

    ``x -> ((x - center) * measured) @ weights[fold] - shift``

    Parameters
    ----------
    center
        Mean of encoded values, shape ``(n_features,)``.
    weights
        Weights of each fold, shape ``(N_FOLDS, n_features, n_scores)``.
    shift
        Shape ``(n_scores,)``.
    members
        Keys of the cells that took part in the fit, ascending, shape ``(n_members,)``, int64.
    """

    center: Tensor
    weights: Tensor
    shift: Tensor
    members: Tensor

    def __init__(
        self,
        center: Float[np.ndarray, " features"],
        weights: Float[np.ndarray, "folds features scores"],
        shift: Float[np.ndarray, " scores"],
        members: Int[np.ndarray, " members"],
    ) -> None:
        super().__init__()
        self.register_buffer("center", torch.tensor(center, dtype=torch.float32))
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32))
        self.register_buffer("members", torch.tensor(members, dtype=torch.int64))

    @classmethod
    def blank(cls, n_features: int, n_scores: int, n_members: int) -> CrossPredictor:
        """Zeros of a shape, to be overwritten from a file; no scores: an empty predictor."""
        return cls(
            np.zeros(n_features),
            np.zeros((N_FOLDS, n_features, n_scores)),
            np.zeros(n_scores),
            np.zeros(n_members, dtype=np.int64),
        )

    @classmethod
    def join(cls, n_features: int, regressions: Sequence[CrossRegression]) -> CrossPredictor:
        """One predictor of the scores of several regressions of the same ``n_features``."""
        if not regressions:
            return cls.blank(n_features, 0, 0)
        # One centre serves all: what differs goes into the shift.
        center = regressions[0].center
        shifts = [
            each.shift + (each.center - center) @ each.weights.mean(0) for each in regressions
        ]
        return cls(
            center,
            np.concatenate([each.weights for each in regressions], axis=2),
            np.concatenate(shifts),
            np.unique(np.concatenate([each.keys for each in regressions])),
        )

    @property
    def n_scores(self) -> int:
        """Number of scores, which are encoder inputs."""
        return int(self.shift.shape[0])

    def folds(self, keys: Int[Tensor, " cells"]) -> Int[Tensor, " cells"]:
        """Fold of each cell by its key, shape ``(n_cells,)``; -1 for cells outside the fit."""
        if self.members.shape[0] == 0:
            return torch.full_like(keys, -1)
        place = torch.searchsorted(self.members, keys).clamp_max(self.members.shape[0] - 1)
        return torch.where(self.members[place] == keys, keys % N_FOLDS, -1)

    def forward(
        self,
        values: Float[Values, "cells features"],
        keys: Int[Tensor, " cells"],
        measured: Bool[Tensor, "cells features"] | None = None,
    ) -> Float32[Tensor, "cells scores"]:
        """Scores of some cells.

        Parameters
        ----------
        values
            Encoded values, shape ``(n_cells, n_features)``; NaN counts as the centre.
        keys
            Keys of the cells' names, shape ``(n_cells,)``, int64.
        measured
            Bool ``(n_cells, n_features)``; None when every feature is measured.

        Returns
        -------
        Shape ``(n_cells, n_scores)``, float32.
        """
        scores = torch.zeros((keys.shape[0], self.n_scores), device=self.shift.device)
        if self.n_scores == 0:
            return scores
        folds = self.folds(keys)
        for fold in range(-1, N_FOLDS):
            rows = torch.nonzero(folds == fold).squeeze(-1)
            if rows.shape[0]:
                weights = self.weights[fold] if fold >= 0 else self.weights.mean(0)
                part = values.take(rows) if isinstance(values, SparseCounts) else values[rows]
                hidden = None if measured is None else measured[rows]
                scores[rows] = self._score(part, weights, hidden)
        return scores - self.shift

    def _score(
        self,
        values: Float[Values, "cells features"],
        weights: Float32[Tensor, "features scores"],
        measured: Bool[Tensor, "cells features"] | None,
    ) -> Float32[Tensor, "cells scores"]:
        if isinstance(values, SparseCounts):
            center = self.center if measured is None else measured * self.center
            return values.times(weights) - center @ weights
        centred = torch.nan_to_num(values - self.center, nan=0.0)
        return (centred if measured is None else centred * measured) @ weights
