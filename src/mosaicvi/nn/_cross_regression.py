"""Ridge regressions of one modality's features to another's scores, each fold left out once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from mosaicvi._types import Bool, Float, Float32, Int, Matrix
from mosaicvi.nn._explained import explained_shares
from mosaicvi.nn._ridge import Ridge, factorised, gram_of

N_FOLDS = 5
MAX_FEATURES = 4000
"""Features of largest variance that the regression reads."""

MAX_PAIRED_CELLS = 20_000
CELLS_A_PREDICTION = 100
"""Paired cells that one predicted score takes: 450 pairs support four, 5,000 support fifty."""

PENALTIES = (0.5, 2.0, 8.0, 32.0)
"""Ridge penalties tried, a paired cell and standardised feature; the best on the first fold is
used."""

WELL_EXPLAINED = 0.3
"""Share of a target's variance from which on a prediction of it has unit variance."""

_ROWS = 1024
_DENSE_ROWS = 128
"""Rows that are made dense at a time, since that takes several copies of them."""


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


def fit_regression(
    encoded: Float[Matrix, "cells features"],
    pairing: Pairing,
    *,
    seed: int,
    measured: Bool[np.ndarray, "cells features"] | None = None,
) -> CrossRegression | None:
    """Fit the ridge regressions to one other modality; None where there are too few pairs.

    Parameters
    ----------
    encoded
        Encoded values of the modality's cells, shape ``(n_cells, n_features)``; NaN is missing.
    pairing
        The cells that hold both modalities, and the scores to predict.
    seed
        Seed of the subsample of pairs and of the reduction of targets.
    measured
        Bool ``(n_cells, n_features)``; None when every feature is measured.
    """
    if len(pairing.rows) < CELLS_A_PREDICTION:
        return None
    # BLAS may raise the flag of an invalid operation on finite numbers (numpy's issue 24067).
    with np.errstate(invalid="ignore"):
        return CrossRegression.fit(encoded, _reduced(pairing, seed), measured)


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
class CrossRegression:
    """Regressions to one other modality; weights act on centred, unscaled values.

    Attributes
    ----------
    center
        Mean of encoded values over the pairs, shape ``(n_features,)``.
    weights
        Weights of each fold, shape ``(N_FOLDS, n_features, n_targets)``; a prediction has the
        variance of the share that it explains, as ``explained`` measures it, over
        :data:`WELL_EXPLAINED`, and one at most.
    shift
        Mean of the predictions, shape ``(n_targets,)``.
    keys
        Keys of the cells that took part, shape ``(n_pairs,)``, int64.
    explained
        Share of variance within groups that the cross-fitted predictions explain of the target
        that they explain best.
    """

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
    ) -> CrossRegression:
        center, spread = _moments(encoded, pairing.rows, measured)
        used = np.sort(np.argsort(-spread, kind="stable")[:MAX_FEATURES])
        # Features that hardly vary would be blown up by their own small spread; values may have
        # any unit, so what is small is measured by the others.
        least = 0.1 * float(np.median(spread[used])) or 1e-6 * float(spread.max()) or 1.0
        scale = np.maximum(spread[used], least)
        targets = pairing.targets - pairing.targets.mean(0)
        folds = pairing.keys % N_FOLDS
        # Columns that no weight reads are left behind before rows become dense.
        read, middle = encoded[:, used], center[used]
        known = None if measured is None else measured[:, used]

        def standardised(rows: Int[np.ndarray, " pairs"]) -> Float32[np.ndarray, "pairs used"]:
            block = np.empty((len(rows), len(used)), dtype=np.float32)
            for start in range(0, len(rows), _DENSE_ROWS):
                part = slice(start, start + _DENSE_ROWS)
                block[part] = _centred(read, rows[part], middle, known) / scale
            return block

        product = np.zeros((len(used), targets.shape[1]), dtype=np.float32)

        def blocks() -> Iterator[Float32[np.ndarray, "rows used"]]:
            for start in range(0, len(pairing.rows), _ROWS):
                part = slice(start, start + _ROWS)
                block = standardised(pairing.rows[part])
                np.add(product, block.T @ targets[part], out=product)
                yield block

        gram = gram_of(blocks(), len(used))

        def without(fold: int) -> Ridge:
            left_out = np.flatnonzero(folds == fold)
            return Ridge(gram, product, standardised(pairing.rows[left_out]), targets[left_out])

        penalties = [penalty * len(targets) for penalty in PENALTIES]
        first = without(0)
        tried = first.path(penalties)
        errors = [first.error(each, _ROWS) for each in tried]
        best = int(np.argmin(errors))
        near = factorised(gram, penalties[best])
        solved = np.stack(
            [
                (without(fold) if fold else first).solve(penalties[best], near, tried[best])
                for fold in range(N_FOLDS)
            ]
        )
        predicted = np.empty(targets.shape, dtype=np.float32)
        for start in range(0, len(pairing.rows), _ROWS):
            part = slice(start, start + _ROWS)
            block = standardised(pairing.rows[part])
            predicted[part] = _by_fold(block, solved, folds[part])
        # The first fold chose the penalty: on its own cells, what it explains is flattered.
        rest = folds != 0
        groups = None if pairing.groups is None else pairing.groups[rest]
        shares = explained_shares(targets[rest], predicted[rest], groups)
        # With unit variance, predictions of what cannot be predicted would be inputs of noise.
        told = np.sqrt(np.clip(shares / WELL_EXPLAINED, 0.0, 1.0)).astype(np.float32)
        gain = told / np.maximum(predicted.std(0), np.float32(1e-6))
        weights = np.zeros((N_FOLDS, int(encoded.shape[1]), targets.shape[1]), dtype=np.float32)
        weights[:, used] = solved / scale[:, None] * gain
        shift = predicted.mean(0) * gain
        return cls(center, weights, shift, pairing.keys, float(shares.max()))


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
    # Sparse values are counts, and known.
    centred = dense - center if sp.issparse(block) else np.nan_to_num(dense - center, nan=0.0)
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
        if sp.issparse(block) and measured is None:
            # In the order in which dense columns would be added up, so the sums are the same.
            n_columns, values = len(total), block.data.astype(float)
            count += block.shape[0]
            total += np.bincount(block.indices, values, n_columns)
            squares += np.bincount(block.indices, values**2, n_columns)
            continue
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
