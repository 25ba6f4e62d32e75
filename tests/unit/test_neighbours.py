"""Neighbours within and between modalities, against loops over all pairs of cells."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from mosaicvi.alignment import _neighbours, mutual_neighbours, regress, smooth, unit

N_LEFT, N_RIGHT, N_DIMENSIONS = 43, 31, 5


def two_sides(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N_LEFT, N_DIMENSIONS)), rng.normal(size=(N_RIGHT, N_DIMENSIONS))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))


def brute_force(left: np.ndarray, right: np.ndarray, k: int) -> dict[tuple[int, int], float]:
    """Mutual neighbours with their cosine, one pair at a time."""
    table = [[cosine(a, b) for b in right] for a in left]
    found = {}
    for i in range(len(left)):
        for j in range(len(right)):
            closer_for_i = sum(table[i][other] > table[i][j] for other in range(len(right)))
            closer_for_j = sum(table[other][j] > table[i][j] for other in range(len(left)))
            if closer_for_i < k and closer_for_j < k:
                found[i, j] = table[i][j]
    return found


@pytest.mark.parametrize("k", [1, 4, 12])
def test_mutual_neighbours_equal_brute_force(k: int) -> None:
    left, right = two_sides()
    pairs = mutual_neighbours(left, right, n_neighbours=k)
    given = list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
    assert len(set(given)) == len(given) == len(pairs)
    assert set(given) == set(brute_force(left, right, k))


@pytest.mark.parametrize(("n_few", "own", "other"), [(40, 5, 5), (30, 8, 3), (15, 10, 3)])
def test_the_side_of_few_cells_looks_at_more(n_few: int, own: int, other: int) -> None:
    """Equal numbers below 2 : 1, then by the root of the imbalance, up to twice, three at least."""
    rng = np.random.default_rng(4)
    few, many = rng.normal(size=(n_few, 4)), rng.normal(size=(75, 4))
    cosine = unit(few) @ unit(many).T
    expected = {
        (i, j)
        for i in range(n_few)
        for j in range(75)
        if j in np.argsort(-cosine[i])[:own] and i in np.argsort(-cosine[:, j])[:other]
    }
    for pairs in (
        mutual_neighbours(few, many, n_neighbours=5),
        replace(
            turned := mutual_neighbours(many, few, n_neighbours=5),
            left=turned.right,
            right=turned.left,
        ),
    ):
        assert set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == expected


def test_each_pair_weighs_less_the_more_pairs_its_cells_have() -> None:
    left, right = two_sides(1)
    pairs = mutual_neighbours(left, right, n_neighbours=9)
    of_left, of_right = Counter(pairs.left.tolist()), Counter(pairs.right.tolist())
    assert max(of_left.values()) > 1
    for i, j, weight in zip(pairs.left, pairs.right, pairs.weight, strict=True):
        assert weight == pytest.approx((of_left[i] * of_right[j]) ** -0.5)


@pytest.mark.parametrize("entries", [1, 100, 7 * N_RIGHT])
def test_blocks_change_nothing(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = two_sides(3)
    whole = mutual_neighbours(left, right, n_neighbours=6)
    monkeypatch.setattr(_neighbours, "BLOCK_ENTRIES", entries)
    blocks = mutual_neighbours(left, right, n_neighbours=6)
    for name in ("left", "right", "weight"):
        ordered = [getattr(p, name)[np.lexsort((p.right, p.left))] for p in (whole, blocks)]
        np.testing.assert_array_equal(*ordered)


def test_more_neighbours_than_cells_pair_all() -> None:
    left, right = two_sides(4)
    pairs = mutual_neighbours(left[:4], right[:3], n_neighbours=15)
    assert len(pairs) == 12
    np.testing.assert_allclose(pairs.weight, 1 / np.sqrt(3 * 4))


def test_length_says_nothing() -> None:
    left, right = two_sides(5)
    scale = np.random.default_rng(5).uniform(0.01, 50, size=(N_LEFT, 1))
    first = mutual_neighbours(left, right, n_neighbours=5)
    second = mutual_neighbours(left * scale, right * 3, n_neighbours=5)
    assert set(zip(first.left, first.right, strict=True)) == set(
        zip(second.left, second.right, strict=True)
    )


def test_unit_rows_and_rows_of_zeros() -> None:
    values = np.array([[3.0, 4.0], [0.0, 0.0], [-2.0, 0.0]])
    np.testing.assert_allclose(unit(values), [[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]])


def test_smoothing_equals_a_loop() -> None:
    rng = np.random.default_rng(6)
    values, space = rng.poisson(1.0, size=(37, 6)).astype(float), rng.normal(size=(37, 3))
    expected = np.empty_like(values)
    for cell in range(37):
        distance = ((space - space[cell]) ** 2).sum(1)
        expected[cell] = values[np.argsort(distance)[:7]].mean(0)
    np.testing.assert_allclose(smooth(values, space, 7), expected, rtol=1e-12)


def test_smoothing_over_all_cells_is_the_mean_and_over_one_nothing() -> None:
    rng = np.random.default_rng(7)
    values, space = rng.normal(size=(9, 2)), rng.normal(size=(9, 4))
    np.testing.assert_allclose(smooth(values, space, 30), np.tile(values.mean(0), (9, 1)))
    np.testing.assert_array_equal(smooth(values, space, 1), values)


def test_cells_that_are_all_alike_can_be_smoothed() -> None:
    values = np.arange(40.0).reshape(20, 2)
    smoothed = smooth(values, np.zeros((20, 3)), 4)
    assert smoothed.shape == values.shape
    assert np.ptp(smoothed, axis=0).max() <= np.ptp(values, axis=0).max()


def test_regression_on_components_equals_ridge_regression() -> None:
    rng = np.random.default_rng(8)
    space = rng.normal(size=(50, 3)) * [5.0, 1.0, 0.2] + 4.0
    values = rng.poisson(1.0, size=(50, 6)).astype(float)
    alpha = _neighbours.RIDGE * ((space - space.mean(0)) ** 2).sum() / 3
    expected = Ridge(alpha=alpha).fit(space, values).predict(space)
    np.testing.assert_allclose(regress(values, space), expected - values.mean(0), atol=1e-9)


def test_regression_keeps_what_components_say_and_drops_most_noise() -> None:
    rng = np.random.default_rng(9)
    space, slopes = rng.normal(size=(2000, 4)), rng.normal(size=(4, 3))
    noise = rng.normal(size=(2000, 3)) * 3
    found = regress(space @ slopes + noise, space)
    signal = space @ slopes
    signal -= signal.mean(0)
    # Of nine units of noise variance, four components in two thousand cells keep .018 on average.
    assert ((found - signal) ** 2).mean() < 0.05
    np.testing.assert_allclose(regress(signal, space), signal, atol=0.05)


def test_cells_that_are_all_alike_explain_nothing() -> None:
    values = np.arange(40.0).reshape(20, 2)
    np.testing.assert_allclose(regress(values, np.zeros((20, 3))), 0.0, atol=1e-9)
