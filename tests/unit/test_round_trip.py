"""Alignment confidence, votes and matches against loops, closed forms and simulated types."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mosaicvi._errors import RequestError
from mosaicvi.tl import _match_cells, _round_trip
from mosaicvi.tl._counterparts import alignment_confidence_of, distance_to_counterparts
from mosaicvi.tl._latents import Places
from mosaicvi.tl._match_cells import find_matches
from mosaicvi.tl._negative_transfer import purity
from mosaicvi.tl._round_trip import round_trip_confidence, trip_length
from mosaicvi.tl._transfer_labels import CONFIDENCE_RANGE, transfer
from mosaicvi.tl._votes import Voters, alike, at_temperature, averaged, vote


def types(
    sizes: list[int], seed: int, *, noise: float = 1.0, gap: float = 0.0, centres: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Cells of types around fixed centres; ``gap`` shifts all of them by so much."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(99).normal(scale=4.0, size=(centres, 6))
    codes = np.repeat(np.arange(len(sizes)), sizes)
    return means[codes] + noise * rng.normal(size=(len(codes), 6)) + gap, codes


def naive_confidence(own: np.ndarray, other: np.ndarray, scales: tuple[int, ...]) -> np.ndarray:
    """The formula by loops over cells, without the random part: chance over all cells."""

    def near(point: np.ndarray, reference: np.ndarray, k: int) -> list[int]:
        return list(np.argsort(((reference - point) ** 2).sum(1), kind="stable")[:k])

    def within(i: int, k: int) -> list[int]:
        return [j for j in near(own[i], own, k + 1) if j != i][:k]

    n = len(own)
    trip, home = np.zeros(n), np.zeros(n)
    k_own = [_round_trip.neighbourhood(scale, n) for scale in scales]
    k_other = [_round_trip.neighbourhood(scale, len(other)) for scale in scales]
    for i, (a, b) in itertools.product(range(n), zip(k_own, k_other, strict=True)):
        ends = [m for j in near(own[i], other, b) for m in near(other[j], own, a)]
        trip[i] += np.mean([np.linalg.norm(own[i] - own[m]) for m in ends]) / len(scales)
        ends = [m for j in within(i, a) for m in within(j, a)]
        home[i] += np.mean([np.linalg.norm(own[i] - own[m]) for m in ends]) / len(scales)
    chance = np.array([np.linalg.norm(own - own[i], axis=1).mean() for i in range(n)])
    around = [[i, *within(i, k_own[len(k_own) // 2])] for i in range(n)]
    trip, home, chance = (
        np.array([v[cells].mean() for cells in around]) for v in (trip, home, chance)
    )
    kept = np.clip((1.05 * chance - trip) / (1.05 * chance - home), 0, 1)
    spread = np.mean([np.linalg.norm(other - point, axis=1).mean() for point in other])
    far = [np.linalg.norm(other[near(p, other, k_other[0])] - p, axis=1).mean() for p in own]
    return np.asarray(kept * np.minimum(1, spread / np.array(far)) ** 2)


@pytest.mark.parametrize("block", [700, 2_000_000])
def test_confidence_is_the_naive_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_round_trip, "BLOCK", block)
    own, _ = types([15, 20, 10], 0)
    other, _ = types([20, 0, 30], 1, gap=1.0)
    expected = naive_confidence(own, other, (2, 5))
    np.testing.assert_allclose(round_trip_confidence(own, other, scales=(2, 5)), expected)


def test_trip_length_of_single_steps() -> None:
    import scipy.sparse as sp

    points = np.array([[0.0, 0.0], [3.0, 4.0]])
    first, second = sp.csr_matrix([[1.0], [1.0]]), sp.csr_matrix([[0.5, 0.5]])
    np.testing.assert_allclose(trip_length(points, first, second), [2.5, 2.5])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "sizes", [([150] * 4, [150] * 4), ([40] * 4, [400] * 4), ([400] * 4, [40] * 4)]
)
def test_a_type_that_the_other_modality_lacks(
    sizes: tuple[list[int], list[int]], seed: int
) -> None:
    own, codes = types(sizes[0], seed)
    other, _ = types([*sizes[1][:2], 0, sizes[1][3]], 100 + seed, noise=0.6, gap=0.5)
    confidence = round_trip_confidence(own, other)
    assert roc_auc_score(codes == 2, -confidence) > 0.97
    assert np.median(confidence[codes == 2]) < 0.5 < np.quantile(confidence[codes != 2], 0.1)


def test_a_common_composition_is_not_needed() -> None:
    own, codes = types([300, 300, 300, 300], 3)
    other, _ = types([900, 30, 300, 60], 4)
    confidence = round_trip_confidence(own, other)
    assert all(np.median(confidence[codes == code]) > 0.6 for code in range(4))


def test_a_modality_far_from_the_other_is_no_match() -> None:
    own, _ = types([200], 5)
    other, _ = types([200, 200], 6, gap=200.0)
    assert round_trip_confidence(own, other).max() < 0.05
    same, _ = types([200], 7)
    assert np.median(round_trip_confidence(own, same)) > 0.7


PLACES = (([15, 20, 10], (0, 1, 2)), ([20, 5, 30], (3, 4, 5)))
"""Sizes of types and seeds of `latent`, `shared` and `own`."""


def test_confidence_does_not_depend_on_the_order_of_cells() -> None:
    rng = np.random.default_rng(0)
    own, other = (types([200] * 4, seed, noise=0.5)[0] for seed in (5, 6))
    own[:60] += 15.0 * np.eye(6)[0]  # beyond the other modality's cloud
    far = np.argsort(np.linalg.norm(other - other.mean(0), axis=1))
    found = [
        float(np.median(round_trip_confidence(own, other[order])[:60]))
        for order in (np.arange(len(other)), far, far[::-1], rng.permutation(len(other)))
    ]
    assert 0.05 < max(found) < 1.1 * min(found), found


def test_few_cells() -> None:
    own, _ = types([2], 0)
    assert list(round_trip_confidence(own, own)) == [0, 0]
    own, _ = types([4, 3], 0)
    found = round_trip_confidence(own, own + 0.0)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.isfinite(round_trip_confidence(np.ones((30, 2)), np.ones((40, 2)))).all()


def test_distance_to_counterparts_is_the_naive_loop() -> None:
    drawn = ([types(sizes, seed)[0] for seed in seeds] for sizes, seeds in PLACES)
    first, second = (Places(*places, np.zeros_like(places[0])) for places in drawn)

    def averaged(values: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
        found = []
        for i, point in enumerate(own):
            near = [j for j in np.argsort(((own - point) ** 2).sum(1)) if j != i][:k]
            found.append(np.mean([values[j] for j in (i, *near)], axis=0))
        return np.array(found)

    sides = []
    for cells in (first, second):
        k = _round_trip.neighbourhood(20, len(cells))
        sides.append((averaged(cells.shared, cells.own, k), cells.own, k))
    for found, here, there in zip(
        distance_to_counterparts(first, second), sides, sides[::-1], strict=True
    ):
        far = [np.sort(np.linalg.norm(there[0] - point, axis=1))[:5].mean() for point in here[0]]
        np.testing.assert_allclose(found, averaged(np.array(far), here[1], here[2]))


def test_a_kind_of_a_type_that_the_other_modality_lacks() -> None:
    """The round trip brings it home, as nothing nearer is there; it lies too far all the same."""
    aside = np.array([0.0, 0.0, 3.0, 0.0, 0.0, 0.0])

    def cells(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        latent, codes = types([300, 300, 300, n], seed)
        latent[codes == 3] = types([n], seed + 50)[0] + aside
        return latent, codes

    (own, codes), (lacks, known), (has, _) = cells(40, 0), cells(0, 1), cells(40, 2)
    kind = codes == 3
    assert np.median(round_trip_confidence(own, lacks)[kind]) > CONFIDENCE_RANGE[1]
    confidence = alignment_confidence_of(Places.of(own), Places.of(lacks))
    assert np.median(confidence[kind]) < 0.8
    assert np.median(confidence[~kind]) > 0.95
    assert roc_auc_score(kind, -confidence) > 0.9
    # where the other modality has the kind, nothing is said against it
    assert np.median(alignment_confidence_of(Places.of(own), Places.of(has))[kind]) > 0.85
    given = transfer(Places.of(lacks), known, Places.of(own), 3, 30, 0).given()
    assert given[kind].mean() < 0.3
    assert given[~kind].mean() > 0.85


def test_neighbours_are_those_of_the_modality_alone() -> None:
    """Shared places that are noise say more where `own` tells which cells are alike."""
    own, codes = types([200, 200, 200, 200], 0, noise=0.5)
    other, _ = types([200, 0, 200, 200], 1, noise=0.5)
    noisy = [
        side + 5.0 * np.random.default_rng(seed).normal(size=side.shape)
        for seed, side in enumerate((own, other))
    ]
    known = [
        Places(far, far, near, np.zeros_like(far))
        for far, near in zip(noisy, (own, other), strict=True)
    ]
    blind = [Places.of(far) for far in noisy]
    orphan = codes == 1
    with_own, without = (
        roc_auc_score(orphan, distance_to_counterparts(*p)[0]) for p in (known, blind)
    )
    assert with_own > 0.95
    assert with_own > without + 0.05


def test_votes_are_the_naive_loop() -> None:
    known, codes = types([12, 9, 7], 0)
    asked, _ = types([5, 5, 5], 1)
    votes = vote(Voters(known, codes, 3), asked, 6)
    for i, point in enumerate(asked):
        distance = np.linalg.norm(known - point, axis=1)
        near = np.argsort(distance)[:6]
        weight = np.exp(-((distance[near] / distance[near[-1]]) ** 2))
        weight *= 6 / weight.sum()
        expected = [weight[codes[near] == code].sum() for code in range(3)]
        np.testing.assert_allclose(
            votes[i], (np.array(expected) + np.array([12, 9, 7]) / 28) / 7, rtol=1e-10
        )


def test_temperature_against_the_closed_form() -> None:
    table = np.array([[0.6, 0.3, 0.1], [0.5, 0.5, 0.0]])
    expected = table**0.5 / (table**0.5).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(at_temperature(table, 2.0), expected)


@pytest.mark.parametrize("seed", range(3))
def test_probability_holds_where_types_overlap(seed: int) -> None:
    known, codes = types([300] * 4, seed, noise=3.0)
    asked, truth = types([300] * 4, 50 + seed, noise=3.0)
    done = transfer(Places.of(known), codes, Places.of(asked), 4, 30, 0)
    right = done.code == truth
    sure = done.probability > np.median(done.probability)
    for part in (sure, ~sure):
        # cautious: the way back adds errors, so the labels are right rather more often
        assert -0.05 < right[part].mean() - done.probability[part].mean() < 0.25
    assert right[sure].mean() > right[~sure].mean() + 0.1


def test_votes_are_averaged_over_cells_alike() -> None:
    shared, _ = types([80, 70], 0)
    latent, _ = types([80, 70], 1)
    target = Places(latent, shared, latent, np.zeros_like(latent))
    votes = np.random.default_rng(2).dirichlet(np.ones(3), 150)
    found = averaged(votes, alike(target))
    for i, point in enumerate(shared):
        near = np.argsort(np.linalg.norm(shared - point, axis=1))[:6]  # the cell itself, five more
        np.testing.assert_allclose(found[i], votes[near].mean(axis=0))
    few = target.part(np.arange(19))
    np.testing.assert_array_equal(averaged(votes[:19], alike(few)), votes[:19])


@pytest.mark.parametrize("seed", range(3))
def test_probability_holds_where_the_target_tells_less(seed: int) -> None:
    """Posterior means of noisy measurements of cells that are normal around their types' places.

    Labels that go there and back find cells of the source's kind, and do not see the noise.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(0.0, 0.8, (8, 12))

    def measured(n: int, variance: float) -> tuple[np.ndarray, np.ndarray]:
        codes = rng.integers(8, size=n)
        z = centres[codes] + rng.normal(0.0, 0.6, (n, 12))
        noise = rng.normal(0.0, np.sqrt(variance * (1.0 - variance)), z.shape)
        return (1.0 - variance) * z + noise, codes

    known, codes = measured(1500, 0.3)
    asked, truth = measured(1500, 0.75)
    unknown = Places.of(known), codes, Places.of(asked), 8, 30, 0
    told = (
        Places.of(known, np.full_like(known, 0.3)),
        codes,
        Places.of(asked, np.full_like(asked, 0.75)),
        8,
        30,
        0,
    )
    before, after = (transfer(*sides) for sides in (unknown, told))
    np.testing.assert_array_equal(before.code, after.code)
    too_sure = [(d.probability - (d.code == truth)).mean() for d in (before, after)]
    assert too_sure[0] > 0.08
    assert -0.1 < too_sure[1] < 0.06


def test_doubt_draws_probabilities_towards_the_composition() -> None:
    known, codes = types([300, 100, 200], 0, noise=3.0)
    asked, _ = types([300, 100, 200], 1, noise=3.0)
    sides = Places.of(known), codes, Places.of(asked), 3, 30, 0
    sure, half, none = (transfer(*sides, doubt) for doubt in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal(sure.probability, transfer(*sides).probability)
    np.testing.assert_allclose(none.probability, 0.5)
    assert (none.code == 0).all()
    composition = np.array([300, 100, 200]) / 600
    expected = 0.5 * sure.probability + 0.5 * composition[sure.code]
    same = half.code == sure.code
    assert same.mean() > 0.8
    np.testing.assert_allclose(half.probability[same], expected[same])


def test_orphans_have_low_confidence_in_transfer() -> None:
    known, codes = types([150, 150, 0, 150], 0)
    asked, truth = types([150, 150, 150, 150], 1)
    done = transfer(Places.of(known), codes, Places.of(asked), 4, 30, 0)
    assert (done.confidence[truth == 2] < 0.5).mean() > 0.9
    assert (done.confidence[truth != 2] >= 0.5).mean() > 0.9


def test_an_orphan_beside_another_type_abstains() -> None:
    """The round trip alone would let it pass."""
    known, codes = types([150, 150, 0, 150], 0)
    asked, truth = types([150, 150, 150, 150], 1)
    asked[truth == 2] += 0.65 * (asked[truth == 1].mean(axis=0) - asked[truth == 2].mean(axis=0))
    done = transfer(Places.of(known), codes, Places.of(asked), 4, 30, 0)
    assert done.least_confidence == 0.9
    assert (round_trip_confidence(asked, known)[truth == 2] >= 0.5).mean() > 0.9
    assert done.given()[truth == 2].mean() < 0.2
    assert done.given()[truth != 2].mean() > 0.85


def test_the_least_confidence_is_that_of_the_source() -> None:
    known, codes = types([150, 150, 150, 150], 0)
    asked, _ = types([150, 150, 150, 150], 1, noise=4.0)
    source = np.quantile(alignment_confidence_of(Places.of(known), Places.of(asked)), 0.05)
    assert 0.5 < source < 0.9
    assert transfer(
        Places.of(known), codes, Places.of(asked), 4, 30, 0
    ).least_confidence == pytest.approx(source)


def test_a_source_that_is_itself_without_counterparts_sets_no_threshold() -> None:
    known, codes = types([150, 150, 150, 150], 0)
    asked, _ = types([300], 1)
    assert transfer(Places.of(known), codes, Places.of(asked), 4, 30, 0).least_confidence == 0.5


def test_matches_are_the_naive_ones() -> None:
    source, _ = types([20, 15], 0)
    target, _ = types([18, 22], 1)
    distance = np.linalg.norm(source[:, None] - target[None], axis=2)
    found = find_matches(source, target, 3, one_to_one=False)
    np.testing.assert_array_equal(found.target.reshape(-1, 3), np.argsort(distance, 1)[:, :3])
    for row in range(len(found.source)):
        i, j = found.source[row], found.target[row]
        assert found.distance[row] == pytest.approx(distance[i, j])
        assert found.mutual[row] == (i in np.argsort(distance[:, j])[:3])
        scale = np.sort(distance[i])[9] * np.sort(distance[:, j])[9]
        assert found.similarity[row] == pytest.approx(np.exp(-(distance[i, j] ** 2) / scale))


def test_assignment_beats_every_permutation(monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = types([3, 3], 2)
    target, _ = types([3, 2], 3)
    found = find_matches(source, target, 1, one_to_one=True)
    cost = ((source[:, None] - target[None]) ** 2).sum(2)
    best = min(
        sum(cost[i, j] for j, i in enumerate(rows))
        for rows in itertools.permutations(range(len(source)), len(target))
    )
    assert np.square(found.distance).sum() == pytest.approx(best)
    assert len(set(found.source)) == len(set(found.target)) == 5
    monkeypatch.setattr(_match_cells, "LARGEST_ASSIGNMENT", 29)
    with pytest.raises(RequestError, match="group_key"):
        find_matches(source, target, 1, one_to_one=True)


def test_purity_is_the_naive_loop() -> None:
    points, codes = types([15, 12], 0, noise=4.0)
    for i, value in enumerate(purity(points, codes, 5)):
        distance = np.linalg.norm(points - points[i], axis=1)
        near = [j for j in np.argsort(distance) if j != i][:5]
        assert value == pytest.approx(np.mean(codes[near] == codes[i]))


@pytest.mark.parametrize("share", [3, 10])
def test_many_cells_are_as_sure_of_few_as_of_as_many(share: int) -> None:
    """All are of one distribution: how many cells a modality has says nothing of its kinds."""
    few, known = types([480 // share] * 4, 0)
    many, codes = types([480] * 4, 1)
    confidence = alignment_confidence_of(Places.of(many), Places.of(few))
    assert np.median(confidence) > 0.95
    done = transfer(Places.of(few), known, Places.of(many), 4, 30, 0)
    assert done.given().mean() > 0.8
    assert (done.code == codes)[done.given()].mean() > 0.98
    # those of a type that the few lack abstain as before
    lacks = known != 2
    given = transfer(Places.of(few[lacks]), known[lacks], Places.of(many), 4, 30, 0).given()
    assert given[codes == 2].mean() < 0.02
    assert given[codes != 2].mean() > 0.8


def test_nearest_of_some_is_the_naive_loop() -> None:
    points, _ = types([20, 10], 0)
    some = _round_trip.as_many(30, 10, 0)
    assert len(set(some.tolist())) == 10
    found = _round_trip.nearest_of(points, some, 4)
    for i, point in enumerate(points):
        order = np.argsort(((points[some] - point) ** 2).sum(1))
        assert found[i].tolist() == [j for j in order if some[j] != i][:4]
    assert _round_trip.as_many(30, 30, 0).tolist() == list(range(30))
