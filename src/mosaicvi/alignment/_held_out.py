"""How much directions are worth, by true pairs that they were not fitted to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.isotonic import IsotonicRegression

from mosaicvi._types import Bool, Float
from mosaicvi.alignment._canonical import Canonical, fit_canonical
from mosaicvi.alignment._neighbours import CellPairs

Modalities = tuple[str, str]

N_FOLDS = 5
"""Parts of the true pairs that are held out in turn."""

LEAST_PAIRS = 30
"""True pairs of every two modalities from which their held-out correlation is believed."""

CHANCE = 3.0
"""A held-out correlation along the first directions below so many standard errors is no more than
that of strangers: it says nothing about which directions are worth more."""

ENOUGH_TO_REFUSE = 100
"""True pairs from which such a correlation says that they are wrong: cells that are the same agree
along the first directions by more than the .3 that this leaves to chance."""


def weigh_by_held_out(
    values: Mapping[str, Float[np.ndarray, "..."]],
    found: Mapping[Modalities, CellPairs],
    true: Mapping[Modalities, CellPairs],
    n_directions: int,
    *,
    true_weight: float,
    otherwise: Float[np.ndarray, " directions"] | None = None,
) -> Canonical | None:
    """Directions of found and true pairs, weighted by correlations over held-out true pairs.

    Directions are fitted again without each fifth of the true pairs, along which these are then
    correlated; over all fifths correlations are made to fall with the rank of the direction
    (isotonic regression), so that a hundred pairs suffice. The found pairs must not have been found
    with the help of the true ones: else these are not held out.

    Parameters
    ----------
    values
        Modality to its cells, ``(n_cells, n_components)``.
    found
        Two modalities to pairs that were found, none of them of cells in ``true``.
    true
        Two modalities to cells that are known to be the same.
    n_directions
        Directions wanted.
    true_weight
        Weight of each true pair beside found ones.
    otherwise
        Correlations, ``(n_directions,)``, for when true pairs do not tell; None: those over all
        pairs.

    Returns
    -------
    Directions of all pairs. With fewer than 30 true pairs of some two modalities that have found
    ones, or where held-out ones agree no more than strangers, they have the weights of
    ``otherwise`` or of their own correlations. None: 100 or more true pairs of modalities that have
    found ones agree no more than strangers, so they are wrong.
    """
    both_kinds = dict.fromkeys([*found, *true])
    canonical = fit_canonical(
        values,
        {both: join(found.get(both), true.get(both), true_weight) for both in both_kinds},
        n_directions,
    )
    if any(both not in true or len(true[both]) < LEAST_PAIRS for both in both_kinds):
        return _otherwise(canonical, otherwise)
    folds = {
        both: np.random.default_rng(0).permutation(len(pairs)) % N_FOLDS
        for both, pairs in true.items()
    }
    held: dict[Modalities, list[np.ndarray]] = {both: [] for both in true}
    for fold in range(N_FOLDS):
        rest = {both: _part(pairs, folds[both] != fold) for both, pairs in true.items()}
        pairs = {both: join(found.get(both), rest[both], true_weight) for both in both_kinds}
        without = fit_canonical(values, pairs, n_directions)
        for both, all_pairs in true.items():
            part = _part(all_pairs, folds[both] == fold)
            held[both].append(_standard_scores(without, values, both, part))
    correlation = np.average(
        [pair_correlation(*np.concatenate(parts, axis=1)) for parts in held.values()],
        axis=0,
        weights=[len(pairs) for pairs in true.values()],
    )
    n_true = sum(len(pairs) for pairs in true.values())
    worth = falling(correlation)
    if worth[0] >= CHANCE / np.sqrt(n_true):
        return canonical.weighed(worth)
    can_tell = n_true >= ENOUGH_TO_REFUSE and all(len(found.get(both, ())) for both in true)
    return None if can_tell else _otherwise(canonical, otherwise)


def _otherwise(
    canonical: Canonical, correlation: Float[np.ndarray, " directions"] | None
) -> Canonical:
    if correlation is None:
        return canonical
    return canonical.weighed(correlation[: len(canonical.correlation)])


def join(found: CellPairs | None, true: CellPairs | None, true_weight: float = 1.0) -> CellPairs:
    """Found pairs, and true ones of a weight."""
    none = CellPairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    first, second = found or none, true or none
    return CellPairs(
        np.concatenate([first.left, second.left]),
        np.concatenate([first.right, second.right]),
        np.concatenate([first.weight, np.full(len(second), true_weight)]),
    )


def _part(pairs: CellPairs, kept: Bool[np.ndarray, " pairs"]) -> CellPairs:
    return CellPairs(pairs.left[kept], pairs.right[kept], pairs.weight[kept])


def _standard_scores(
    canonical: Canonical,
    values: Mapping[str, Float[np.ndarray, "..."]],
    both: Modalities,
    pairs: CellPairs,
) -> Float[np.ndarray, "2 pairs directions"]:
    """Scores of pairs in spreads of all cells, ``(2, n_pairs, n_directions)``."""
    sides = []
    for name, rows in zip(both, (pairs.left, pairs.right), strict=True):
        scores = canonical.scores(name, values[name])
        sides.append(scores[rows] / np.maximum(scores.std(0), 1e-12))
    return np.stack(sides)


def falling(correlation: Float[np.ndarray, " directions"]) -> Float[np.ndarray, " directions"]:
    """The nearest correlations from zero to one that fall with the rank, ``(n_directions,)``."""
    fit = IsotonicRegression(increasing=False, y_min=0.0, y_max=1.0)
    return np.asarray(fit.fit_transform(np.arange(len(correlation)), correlation))


def pair_correlation(
    left: Float[np.ndarray, "pairs directions"],
    right: Float[np.ndarray, "pairs directions"],
    weight: Float[np.ndarray, " pairs"] | None = None,
) -> Float[np.ndarray, " directions"]:
    """Correlation of both sides of pairs along each direction, ``(n_directions,)``."""
    share = np.ones(len(left)) if weight is None else weight
    share = (share / share.sum())[:, None]
    left, right = (side - (share * side).sum(0) for side in (left, right))
    spread = np.sqrt((share * left**2).sum(0) * (share * right**2).sum(0))
    return np.asarray((share * left * right).sum(0) / np.maximum(spread, 1e-12))
