"""Anchors: pairs that linked features point to, better once all features have their say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pytest

from mosaicvi.alignment import Anchors, AnchorSpec, CellPairs, find_anchors

SPEC = AnchorSpec(n_neighbours=10, n_directions=6)
BOTH = ("rna", "protein")
N_LATENT, N_LINKED = 6, 10

Linked = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Drawn:
    """Unpaired cells whose states are known."""

    states: dict[str, np.ndarray]
    components: dict[str, np.ndarray]
    linked: Linked


def draw(
    sizes: dict[str, int], *, noise: float = 2.0, links: list[tuple[str, str]] | None = None
) -> Drawn:
    """Components that tell the state well, and linked features that tell it badly."""
    rng = np.random.default_rng(0)
    states = {name: rng.normal(size=(n, N_LATENT)) for name, n in sizes.items()}
    components = {}
    for name, z in states.items():
        own = z @ rng.normal(size=(N_LATENT, 15))
        components[name] = own + rng.normal(size=own.shape)
    linked = {}
    for both in list(combinations(sizes, 2)) if links is None else links:
        loadings = rng.normal(size=(N_LATENT, N_LINKED))
        sides = []
        for name in both:
            values = states[name] @ loadings
            values = values + noise * values.std() * rng.normal(size=values.shape)
            sides.append((values - values.mean(0)) / values.std(0))
        linked[both] = (sides[0], sides[1])
    return Drawn(states, components, linked)


def error(drawn: Drawn, both: tuple[str, str], pairs: CellPairs) -> float:
    """Squared distance of the states of paired cells, over that of cells paired at random."""
    left, right = (drawn.states[name] for name in both)
    gap = ((left[pairs.left] - right[pairs.right]) ** 2).sum(1)
    chance = left.var(0).sum() + right.var(0).sum()
    return float(np.average(gap, weights=pairs.weight) / chance)


def score_error(drawn: Drawn, both: tuple[str, str], anchors: Anchors) -> float:
    """Share of cells of the second modality that are no nearer than the nearest in state."""
    scores = [anchors.canonical.scores(name, drawn.components[name]) for name in both]
    distance = ((scores[0][:, None] - scores[1][None]) ** 2).sum(-1)
    nearest = distance.argmin(1)
    pairs = CellPairs(np.arange(len(nearest)), nearest, np.ones(len(nearest)))
    return error(drawn, both, pairs)


def test_a_second_round_pairs_better_than_linked_features_alone() -> None:
    drawn = draw({"rna": 700, "protein": 500})
    first, second = (
        find_anchors(drawn.components, drawn.linked, {}, replace(SPEC, n_rounds=rounds))
        for rounds in (1, 2)
    )
    assert error(drawn, BOTH, first.pairs[BOTH]) < 0.95
    assert error(drawn, BOTH, second.pairs[BOTH]) < 0.8 * error(drawn, BOTH, first.pairs[BOTH])
    assert score_error(drawn, BOTH, second) < 0.5


def test_linked_features_that_say_nothing_give_chance() -> None:
    drawn = draw({"rna": 500, "protein": 500})
    left, right = drawn.linked[BOTH]
    shuffled = right[np.random.default_rng(1).permutation(500)]
    found = find_anchors(drawn.components, {BOTH: (left, shuffled)}, {}, SPEC)
    assert error(drawn, BOTH, found.pairs[BOTH]) > 0.8


def test_true_pairs_are_kept_and_alone_for_their_cells() -> None:
    drawn = draw({"rna": 300, "protein": 300})
    true = CellPairs(np.arange(40), np.arange(100, 140), np.ones(40))
    pairs = find_anchors(drawn.components, drawn.linked, {BOTH: true}, SPEC).pairs[BOTH]
    of_left, of_right = pairs.left < 40, (pairs.right >= 100) & (pairs.right < 140)
    np.testing.assert_array_equal(of_left, of_right)
    assert set(zip(pairs.left[of_left], pairs.right[of_left], strict=True)) == set(
        zip(true.left, true.right, strict=True)
    )
    assert of_left.sum() == 40
    np.testing.assert_array_equal(pairs.weight[of_left], 1.0)
    assert (~of_left).sum() > 100
    assert pairs.weight[~of_left].max() <= 1.0
    # Weights of found pairs count the pairs that are left.
    rest = CellPairs(pairs.left[~of_left], pairs.right[~of_left], pairs.weight[~of_left])
    counts = [np.bincount(side)[side] for side in (rest.left, rest.right)]
    np.testing.assert_allclose(rest.weight, 1 / np.sqrt(counts[0] * counts[1]))


def same_states(drawn: Drawn, n_cells: int) -> Drawn:
    """The first cells of both modalities are the same ones."""
    rng = np.random.default_rng(5)
    mix = rng.normal(size=(N_LATENT, 15))
    states = dict(drawn.states)
    states["protein"] = states["protein"].copy()
    states["protein"][:n_cells] = states["rna"][:n_cells]
    own = states["protein"] @ mix
    components = {**drawn.components, "protein": own + rng.normal(size=own.shape)}
    return Drawn(states, components, drawn.linked)


def test_true_pairs_alone_give_directions() -> None:
    drawn = same_states(draw({"rna": 400, "protein": 400}), 250)
    rows = np.arange(250)
    true = CellPairs(rows, rows, np.ones(250))
    found = find_anchors(drawn.components, {}, {BOTH: true}, SPEC)
    assert len(found.pairs[BOTH]) == 250
    assert score_error(drawn, BOTH, found) < 0.35


def test_no_true_pairs_is_the_same_as_none_given() -> None:
    drawn = draw({"rna": 150, "protein": 120})
    none = CellPairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    first = find_anchors(drawn.components, drawn.linked, {}, SPEC)
    second = find_anchors(drawn.components, drawn.linked, {BOTH: none}, SPEC)
    np.testing.assert_array_equal(first.pairs[BOTH].left, second.pairs[BOTH].left)
    np.testing.assert_array_equal(first.canonical.correlation, second.canonical.correlation)


@pytest.mark.parametrize(
    "links", [None, [("rna", "atac"), ("rna", "protein")]], ids=["each two", "through rna"]
)
def test_three_modalities(links: list[tuple[str, str]] | None) -> None:
    drawn = draw({"rna": 400, "atac": 350, "protein": 300}, noise=1.5, links=links)
    found = find_anchors(drawn.components, drawn.linked, {}, SPEC)
    assert set(found.pairs) == set(drawn.linked)
    for both in combinations(drawn.states, 2):
        # Also those that nothing links to each other stand together, through the third.
        assert score_error(drawn, both, found) < 0.6
