"""Directions weighted by true pairs that they were not fitted to."""

from __future__ import annotations

import numpy as np
import pytest

from mosaicvi.alignment import CellPairs, find_anchors, fit_canonical
from mosaicvi.alignment._anchors import AnchorSpec
from mosaicvi.alignment._canonical import strength
from mosaicvi.alignment._held_out import (
    ENOUGH_TO_REFUSE,
    LEAST_PAIRS,
    join,
    weigh_by_held_out,
)

BOTH = ("rna", "atac")
TRUE = np.array([0.9, 0.6, 0.3, 0.0, 0.0, 0.0])
N_CELLS = 2500


def same_cells(rows: np.ndarray, weight: float = 1.0) -> CellPairs:
    return CellPairs(rows, rows, np.full(len(rows), weight))


def draw(seed: int = 0) -> dict[str, np.ndarray]:
    """The same cells in two modalities, whose components correlate by known amounts, turned."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(N_CELLS, len(TRUE)))
    second = TRUE * first + np.sqrt(1 - TRUE**2) * rng.normal(size=first.shape)
    turns = [np.linalg.qr(rng.normal(size=(len(TRUE), len(TRUE))))[0] for _ in range(2)]
    return {"rna": first @ turns[0], "atac": second @ turns[1]}


def agreeing(values: dict[str, np.ndarray], n_pairs: int) -> CellPairs:
    """Pairs of cells chosen for agreeing, as anchors are: along directions of no meaning too."""
    rng = np.random.default_rng(1)
    both = fit_canonical(values, {BOTH: same_cells(np.arange(N_CELLS))}, len(TRUE))
    scores = [both.scores(name, values[name]) / strength(both.correlation) for name in BOTH]
    left = rng.permutation(N_CELLS)[:n_pairs]
    distance = ((scores[0][left][:, None] - scores[1][None]) ** 2).sum(-1)
    return CellPairs(left, distance.argmin(1), np.ones(n_pairs))


@pytest.mark.parametrize("n_true", [150, 1500])
def test_correlations_are_those_of_cells_that_were_not_seen(n_true: int) -> None:
    values = draw()
    true = same_cells(np.arange(n_true))
    # Directions of the whole population, so that the oracle is known.
    found = same_cells(np.arange(n_true, N_CELLS))
    weighed = weigh_by_held_out(values, {BOTH: found}, {BOTH: true}, 6, true_weight=1.0)
    noise = 3.5 / np.sqrt(n_true)
    np.testing.assert_allclose(weighed.correlation, TRUE, atol=noise)
    assert (np.diff(weighed.correlation) <= 1e-12).all()


def test_pairs_chosen_for_agreeing_do_not_decide() -> None:
    values = draw()
    found = agreeing(values, 600)
    rest = np.setdiff1d(np.arange(N_CELLS), np.concatenate([found.left, found.right]))
    true = same_cells(rest[:400])
    by_found = fit_canonical(values, {BOTH: found}, 6).correlation
    weighed = weigh_by_held_out(values, {BOTH: found}, {BOTH: true}, 6, true_weight=3.0)
    assert by_found.min() > 0.4  # three of six directions are shared in truth
    assert weighed.correlation[3:].max() < 0.25
    assert weighed.correlation[0] > 0.6


def test_only_weights_change() -> None:
    values = draw()
    rows = np.arange(N_CELLS)
    pairs = {BOTH: same_cells(rows[:200])}
    plain = fit_canonical(values, {BOTH: same_cells(rows[:200], 3.0)}, 4)
    weighed = weigh_by_held_out(values, {}, pairs, 4, true_weight=3.0)
    gain = strength(weighed.correlation) / strength(plain.correlation)
    for name in BOTH:
        np.testing.assert_allclose(weighed.weights[name], plain.weights[name] * gain)
        np.testing.assert_array_equal(weighed.center[name], plain.center[name])


def test_few_true_pairs_are_not_believed() -> None:
    values = draw()
    true = same_cells(np.arange(LEAST_PAIRS - 1))
    found = same_cells(np.arange(LEAST_PAIRS, N_CELLS))
    weighed = weigh_by_held_out(values, {BOTH: found}, {BOTH: true}, 6, true_weight=2.0)
    plain = fit_canonical(values, {BOTH: join(found, true, 2.0)}, 6)
    np.testing.assert_array_equal(weighed.correlation, plain.correlation)
    np.testing.assert_array_equal(weighed.weights["rna"], plain.weights["rna"])


def test_two_modalities_without_true_pairs_keep_their_weights() -> None:
    values = draw()
    values["protein"] = values["rna"] + 0.5 * np.random.default_rng(3).normal(size=(N_CELLS, 6))
    rows = np.arange(N_CELLS)
    found = {BOTH: same_cells(rows[200:]), ("rna", "protein"): same_cells(rows)}
    weighed = weigh_by_held_out(values, found, {BOTH: same_cells(rows[:200])}, 6, true_weight=1.0)
    pairs = {BOTH: same_cells(rows), ("rna", "protein"): found["rna", "protein"]}
    np.testing.assert_allclose(
        weighed.correlation, fit_canonical(values, pairs, 6).correlation, atol=1e-3
    )


def test_correlations_of_nothing_leave_directions_as_they_are() -> None:
    canonical = fit_canonical(draw(), {BOTH: same_cells(np.arange(500))}, 4)
    assert canonical.weighed(np.zeros(4)) is canonical


@pytest.mark.parametrize("seed", range(5))
def test_wrong_pairs_are_refused_and_right_ones_are_not(seed: int) -> None:
    values = draw(seed)
    rng = np.random.default_rng(seed)
    found = same_cells(np.arange(300, N_CELLS))
    for n_true in (ENOUGH_TO_REFUSE, 300):
        wrong = CellPairs(rng.permutation(n_true), rng.permutation(n_true), np.ones(n_true))
        assert weigh_by_held_out(values, {BOTH: found}, {BOTH: wrong}, 6, true_weight=3.0) is None
        right = same_cells(np.arange(n_true))
        weighed = weigh_by_held_out(values, {BOTH: found}, {BOTH: right}, 6, true_weight=3.0)
        assert weighed is not None
        assert weighed.correlation[0] > 0.6


def test_few_wrong_pairs_or_wrong_pairs_alone_are_not_refused() -> None:
    values = draw()
    rng = np.random.default_rng(2)
    wrong = CellPairs(rng.permutation(60), rng.permutation(60), np.ones(60))
    found = same_cells(np.arange(300, N_CELLS))
    weighed = weigh_by_held_out(values, {BOTH: found}, {BOTH: wrong}, 6, true_weight=3.0)
    plain = fit_canonical(values, {BOTH: join(found, wrong, 3.0)}, 6)
    assert weighed is not None
    np.testing.assert_array_equal(weighed.correlation, plain.correlation)
    many = CellPairs(rng.permutation(300), rng.permutation(300), np.ones(300))
    assert weigh_by_held_out(values, {}, {BOTH: many}, 6, true_weight=3.0) is not None


def test_anchors_are_those_without_the_refused_pairs() -> None:
    values = draw()
    linked = {
        BOTH: (values["rna"], values["atac"] @ np.linalg.pinv(values["atac"]) @ values["rna"])
    }
    rng = np.random.default_rng(2)
    wrong = CellPairs(rng.permutation(300), rng.permutation(300), np.ones(300))
    given = find_anchors(values, linked, {BOTH: wrong}, AnchorSpec())
    without = find_anchors(values, linked, {}, AnchorSpec())
    assert given.refused == (BOTH,)
    assert without.refused == ()
    np.testing.assert_array_equal(given.pairs[BOTH].left, without.pairs[BOTH].left)
    np.testing.assert_array_equal(given.canonical.weights["rna"], without.canonical.weights["rna"])


def test_the_search_does_not_learn_true_pairs_by_heart() -> None:
    """Correlations are those of other true pairs, though anchors are sought again and again."""
    values = draw()
    rng = np.random.default_rng(5)
    noise = {name: rng.normal(size=(N_CELLS, 20)) for name in BOTH}
    wide = {name: np.concatenate([values[name], noise[name]], axis=1) for name in BOTH}
    axes = fit_canonical(values, {BOTH: same_cells(np.arange(N_CELLS))}, 3)
    linked = {BOTH: tuple(axes.scores(name, values[name]) for name in BOTH)}
    true, other = same_cells(np.arange(120)), np.arange(120, N_CELLS)
    spec = AnchorSpec(n_neighbours=10, n_directions=10)
    canonical = find_anchors(wide, linked, {BOTH: true}, spec).canonical
    left, right = (canonical.scores(name, wide[name])[other] for name in BOTH)
    kept = np.flatnonzero(canonical.correlation > 0)
    truth = [np.corrcoef(left[:, k], right[:, k])[0, 1] for k in kept]
    np.testing.assert_allclose(canonical.correlation[kept], truth, atol=0.15)
