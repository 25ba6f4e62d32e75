r"""Linear predictions of the other modalities, as further inputs of an encoder.

Principal components keep what varies most, not what tells of another modality: a single gene may
say which protein a cell bears and weigh nothing in the components. Ridge regression on all features
finds such directions. Fitted and applied to the same cells it would promise the encoder more than
it holds for others, so predictions are **cross-fitted**: a cell that took part in the fit gets the
prediction of a regression that left its fold out (Stone 1974; Chernozhukov et al. 2018), any other
cell the mean over folds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor, nn

from mosaicvi._types import Bool, Float, Float32, Int, Matrix, SparseCounts, Values
from mosaicvi.nn._explained import explained_share

N_FOLDS = 5
MAX_FEATURES = 4000
"""Features of largest variance that the regression reads."""

MAX_PAIRED_CELLS = 20_000
CELLS_A_PREDICTION = 100
"""Paired cells that one predicted score takes: 450 pairs support four, 5,000 support fifty."""

PENALTIES = (0.5, 2.0, 8.0, 32.0)
"""Ridge penalties tried, a paired cell and standardised feature; the best on the first fold is
used."""

_ROWS = 2048


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
    explained
        For each pairing of the fit, the share of variance within groups that the cross-fitted
        predictions explain of the score that they explain best; NaN where there were too few pairs.
        Not saved.
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
        explained: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        self.explained = explained
        self.register_buffer("center", torch.tensor(center, dtype=torch.float32))
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32))
        self.register_buffer("members", torch.tensor(members, dtype=torch.int64))

    @classmethod
    def blank(
        cls, n_features: int, n_scores: int, n_members: int, explained: tuple[float, ...] = ()
    ) -> CrossPredictor:
        """Zeros of a shape, to be overwritten from a file; no scores: an empty predictor."""
        return cls(
            np.zeros(n_features),
            np.zeros((N_FOLDS, n_features, n_scores)),
            np.zeros(n_scores),
            np.zeros(n_members, dtype=np.int64),
            explained,
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


@dataclass(frozen=True)
class Pairing:
    """Cells that hold both the modality that predicts and the one that is predicted.

    Attributes
    ----------
    rows
        Rows of the encoded values, shape ``(n_pairs,)``.
    targets
        Scores of the other modality, shape ``(n_pairs, n_targets)``.
    keys
        Keys of the cells' names, shape ``(n_pairs,)``, int64.
    groups
        Batch of each pair, shape ``(n_pairs,)``: what differs between batches only is not counted
        as explained. None: one batch.
    """

    rows: Int[np.ndarray, " pairs"]
    targets: Float[np.ndarray, "pairs targets"]
    keys: Int[np.ndarray, " pairs"]
    groups: Int[np.ndarray, " pairs"] | None = None


def fit_cross_predictor(
    encoded: Float[Matrix, "cells features"],
    pairings: list[Pairing],
    *,
    seed: int,
    measured: Bool[np.ndarray, "cells features"] | None = None,
) -> CrossPredictor:
    """Fit ridge regressions to each other modality.

    Parameters
    ----------
    encoded
        Encoded values of the modality's cells, shape ``(n_cells, n_features)``; NaN is missing.
    pairings
        One for each other modality; those with too few pairs give no score.
    seed
        Seed of the subsample of pairs and of the reduction of targets.
    measured
        Bool ``(n_cells, n_features)``; None when every feature is measured.
    """
    n_features = int(encoded.shape[1])
    fits = [
        _Ridge.fit(encoded, _reduced(pairing, seed), measured)
        if len(pairing.rows) >= CELLS_A_PREDICTION
        else None
        for pairing in pairings
    ]
    explained = tuple(math.nan if ridge is None else ridge.explained for ridge in fits)
    fitted = [ridge for ridge in fits if ridge is not None]
    if not fitted:
        return CrossPredictor.blank(n_features, 0, 0, explained)
    # One centre serves all: what differs goes into the shift.
    center = fitted[0].center
    shifts = [ridge.shift + (ridge.center - center) @ ridge.weights.mean(0) for ridge in fitted]
    return CrossPredictor(
        center,
        np.concatenate([ridge.weights for ridge in fitted], axis=2),
        np.concatenate(shifts),
        np.unique(np.concatenate([ridge.keys for ridge in fitted])),
        explained,
    )


def sample_pairs(cells: Int[np.ndarray, " pairs"], seed: int) -> Int[np.ndarray, " kept"]:
    """At most so many paired cells as a regression is fitted to; all of fewer."""
    if len(cells) <= MAX_PAIRED_CELLS:
        return cells
    rng = np.random.default_rng(seed)
    return np.asarray(cells[rng.choice(len(cells), MAX_PAIRED_CELLS, replace=False)])


def _reduced(pairing: Pairing, seed: int) -> Pairing:
    """At most so many pairs and target scores as can be afforded and supported."""
    rows, targets, keys, groups = pairing.rows, pairing.targets, pairing.keys, pairing.groups
    if len(rows) > MAX_PAIRED_CELLS:
        kept = sample_pairs(np.arange(len(rows)), seed)
        rows, targets, keys = rows[kept], targets[kept], keys[kept]
        groups = None if groups is None else groups[kept]
    n_scores = len(rows) // CELLS_A_PREDICTION
    if n_scores < targets.shape[1]:
        centred = targets - targets.mean(0)
        _, _, axes = np.linalg.svd(centred.T @ centred)
        targets = centred @ axes[:n_scores].T
    return Pairing(rows, np.asarray(targets, dtype=np.float32), keys, groups)


@dataclass(frozen=True)
class _Ridge:
    """Regressions to one other modality; weights act on centred, unscaled values."""

    center: Float32[np.ndarray, " features"]
    weights: Float32[np.ndarray, "folds features targets"]
    shift: Float32[np.ndarray, " targets"]
    keys: Int[np.ndarray, " pairs"]
    explained: float

    @classmethod
    def fit(
        cls,
        encoded: Float[Matrix, "cells features"],
        pairing: Pairing,
        measured: Bool[np.ndarray, "cells features"] | None,
    ) -> _Ridge:
        center, spread = _moments(encoded, pairing.rows, measured)
        used = np.sort(np.argsort(-spread, kind="stable")[:MAX_FEATURES])
        # Features that hardly vary would be blown up by their own small spread.
        scale = np.maximum(spread[used], 0.1 * max(float(np.median(spread[used])), 1e-6))
        targets = pairing.targets - pairing.targets.mean(0)
        folds = pairing.keys % N_FOLDS
        grams = np.zeros((N_FOLDS, len(used), len(used)), dtype=np.float32)
        products = np.zeros((N_FOLDS, len(used), targets.shape[1]), dtype=np.float32)

        def standardised(rows: Int[np.ndarray, " pairs"]) -> Float32[np.ndarray, "pairs used"]:
            block = _centred(encoded, rows, center, measured)
            return np.asarray(block[:, used] / scale, dtype=np.float32)

        for start in range(0, len(pairing.rows), _ROWS):
            part = slice(start, start + _ROWS)
            block = standardised(pairing.rows[part])
            for fold in range(N_FOLDS):
                inside = block[folds[part] == fold]
                # A product of one array with itself: BLAS computes half of it.
                grams[fold] += inside.T @ inside
                products[fold] += inside.T @ targets[part][folds[part] == fold]
        total_gram, total_product = grams.sum(0), products.sum(0)

        def solve(fold: int, penalty: float) -> Float32[np.ndarray, "used targets"]:
            gram = total_gram - grams[fold]
            gram[np.diag_indices_from(gram)] += penalty * len(targets)
            factor = cho_factor(gram, overwrite_a=True, check_finite=False)
            return np.asarray(cho_solve(factor, total_product - products[fold]), np.float32)

        first = np.flatnonzero(folds == 0)[:_ROWS]
        block = standardised(pairing.rows[first])
        tried = [solve(0, penalty) for penalty in PENALTIES]
        errors = [float(np.square(block @ each - targets[first]).sum()) for each in tried]
        best = int(np.argmin(errors))
        rest = [solve(fold, PENALTIES[best]) for fold in range(1, N_FOLDS)]
        solved = np.stack([tried[best], *rest])
        predicted = np.empty(targets.shape, dtype=np.float32)
        for start in range(0, len(pairing.rows), _ROWS):
            part = slice(start, start + _ROWS)
            block = standardised(pairing.rows[part])
            predicted[part] = _by_fold(block, solved, folds[part])
        location, size = predicted.mean(0), np.maximum(predicted.std(0), 1e-6)
        weights = np.zeros((N_FOLDS, int(encoded.shape[1]), targets.shape[1]), dtype=np.float32)
        weights[:, used] = solved / scale[:, None] / size
        # The first fold chose the penalty: on its own cells, what it explains is flattered.
        rest = folds != 0
        groups = None if pairing.groups is None else pairing.groups[rest]
        explained = explained_share(targets[rest], predicted[rest], groups)
        return cls(center, weights, location / size, pairing.keys, explained)


def _by_fold(
    block: Float32[np.ndarray, "pairs used"],
    weights: Float32[np.ndarray, "folds used targets"],
    folds: Int[np.ndarray, " pairs"],
) -> Float32[np.ndarray, "pairs targets"]:
    """Each row times the weights of its fold."""
    product = np.empty((block.shape[0], weights.shape[2]), dtype=np.float32)
    for fold in range(N_FOLDS):
        product[folds == fold] = block[folds == fold] @ weights[fold]
    return product


def _centred(
    encoded: Float[Matrix, "cells features"],
    rows: Int[np.ndarray, " pairs"],
    center: Float[np.ndarray, " features"],
    measured: Bool[np.ndarray, "cells features"] | None,
) -> Float32[np.ndarray, "pairs features"]:
    """Dense rows minus the centre; zero where missing or not measured."""
    block = encoded[rows]
    dense = block if isinstance(block, np.ndarray) else block.toarray()
    centred = np.nan_to_num(dense - center, nan=0.0)
    return np.asarray(centred if measured is None else centred * measured[rows], dtype=np.float32)


def _moments(
    encoded: Float[Matrix, "cells features"],
    rows: Int[np.ndarray, " pairs"],
    measured: Bool[np.ndarray, "cells features"] | None,
) -> tuple[Float32[np.ndarray, " features"], Float32[np.ndarray, " features"]]:
    """Mean and standard deviation of each feature over the rows where it is known."""
    total = np.zeros(encoded.shape[1])
    squares, count = np.zeros_like(total), np.zeros_like(total)
    for start in range(0, len(rows), _ROWS):
        block = encoded[rows[start : start + _ROWS]]
        dense = np.array(block if isinstance(block, np.ndarray) else block.toarray(), dtype=float)
        if measured is not None:
            dense[~measured[rows[start : start + _ROWS]]] = np.nan
        count += np.isfinite(dense).sum(0)
        total += np.nansum(dense, 0)
        squares += np.nansum(dense**2, 0)
    count = np.maximum(count, 1)
    mean = total / count
    spread = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return mean.astype(np.float32), spread.astype(np.float32)
