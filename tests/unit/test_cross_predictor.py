from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.linear_model import Ridge

from mosaicvi._types import SparseCounts
from mosaicvi.nn._cross_predictor import CrossPredictor
from mosaicvi.nn._cross_regression import (
    CELLS_A_PREDICTION,
    N_FOLDS,
    PENALTIES,
    WELL_EXPLAINED,
    Pairing,
    fit_regression,
)
from mosaicvi.nn._explained import CHANCE

N_CELLS, N_FEATURES, N_TARGETS = 600, 40, 3


@pytest.fixture
def encoded() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.poisson(0.8, (N_CELLS, N_FEATURES)) * (0.3 + rng.random(N_FEATURES))).astype(
        np.float32
    )


@pytest.fixture
def keys() -> np.ndarray:
    return np.random.default_rng(1).integers(-(2**62), 2**62, N_CELLS)


def fit_cross_predictor(encoded, pairings: list[Pairing], *, seed: int) -> CrossPredictor:
    fits = [fit_regression(encoded, pairing, seed=seed) for pairing in pairings]
    return CrossPredictor.join(encoded.shape[1], [fit for fit in fits if fit is not None])


def linear_targets(encoded: np.ndarray, noise: float) -> np.ndarray:
    rng = np.random.default_rng(2)
    signal = encoded @ rng.normal(size=(encoded.shape[1], N_TARGETS))
    return (signal + noise * rng.normal(size=signal.shape)).astype(np.float32)


def scores(predictor: CrossPredictor, encoded: np.ndarray, keys: np.ndarray) -> np.ndarray:
    return predictor(torch.tensor(encoded), torch.tensor(keys)).numpy()


def test_a_cell_of_the_fit_gets_the_regression_without_its_fold(
    encoded: np.ndarray, keys: np.ndarray
) -> None:
    targets = linear_targets(encoded, noise=0.5)
    predictor = fit_cross_predictor(encoded, [Pairing(np.arange(N_CELLS), targets, keys)], seed=0)
    found = scores(predictor, encoded, keys)
    standard = (encoded - encoded.mean(0)) / encoded.std(0)
    centred = targets - targets.mean(0)
    # The penalty is the package's choice; every other part of the oracle is scikit-learn's.
    errors = []
    for penalty in PENALTIES:
        oracle = np.empty_like(centred)
        for fold in range(N_FOLDS):
            inside = keys % N_FOLDS == fold
            model = Ridge(alpha=penalty * N_CELLS, fit_intercept=False)
            oracle[inside] = model.fit(standard[~inside], centred[~inside]).predict(
                standard[inside]
            )
        # Of unit variance where .3 is explained outside the first fold, and smaller below.
        rest = keys % N_FOLDS != 0
        left = (centred - oracle)[rest].var(0) / centred[rest].var(0)
        told = np.sqrt(np.clip((1 - left - CHANCE / rest.sum()) / WELL_EXPLAINED, 0, 1))
        oracle = (oracle - oracle.mean(0)) / oracle.std(0) * told
        errors.append(float(np.abs(found - oracle).max()))
    assert min(errors) < 1e-3


def test_fitted_cells_are_promised_no_more_than_new_ones(
    encoded: np.ndarray, keys: np.ndarray
) -> None:
    noise = np.random.default_rng(3).normal(size=(N_CELLS, N_TARGETS)).astype(np.float32)
    predictor = fit_cross_predictor(encoded, [Pairing(np.arange(N_CELLS), noise, keys)], seed=0)
    found = scores(predictor, encoded, keys)
    # In-sample ridge would correlate by about sqrt(40 / 600) = .26 with pure noise; of what is
    # not predicted at all, a score has no size either.
    size = found.std(0)
    told = [np.corrcoef(found[:, i], noise[:, i])[0, 1] for i in np.flatnonzero(size > 0)]
    assert max(told, default=0.0) < 0.1
    assert size.max() < 0.1


def test_new_cells_get_the_mean_over_folds(encoded: np.ndarray, keys: np.ndarray) -> None:
    targets = linear_targets(encoded, noise=0.1)
    fitted = np.arange(400)
    predictor = fit_cross_predictor(
        encoded, [Pairing(fitted, targets[fitted], keys[fitted])], seed=0
    )
    fresh = scores(predictor, encoded[400:], keys[400:])
    weights = predictor.weights.mean(0).numpy()
    expected = (encoded[400:] - predictor.center.numpy()) @ weights - predictor.shift.numpy()
    np.testing.assert_allclose(fresh, expected, atol=1e-4)
    centred = targets[400:] - targets[400:].mean(0)
    assert all(np.corrcoef(fresh[:, i], centred[:, i])[0, 1] > 0.95 for i in range(N_TARGETS))


def test_sparse_values_and_order_change_nothing(encoded: np.ndarray, keys: np.ndarray) -> None:
    targets = linear_targets(encoded, noise=0.5)
    pairing = [Pairing(np.arange(N_CELLS), targets, keys)]
    dense = fit_cross_predictor(encoded, pairing, seed=0)
    sparse = fit_cross_predictor(sp.csr_matrix(encoded), pairing, seed=0)
    expected = scores(dense, encoded, keys)
    order = np.random.default_rng(4).permutation(N_CELLS)
    values = SparseCounts.from_scipy(sp.csr_matrix(encoded[order]))
    found = sparse(values, torch.tensor(keys[order])).numpy()
    np.testing.assert_allclose(found, expected[order], atol=1e-3)


def test_sparse_values_give_the_same_regression_to_the_bit(
    encoded: np.ndarray, keys: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mosaicvi.nn._cross_regression.MAX_FEATURES", 25)
    pairing = Pairing(np.arange(N_CELLS), linear_targets(encoded, noise=0.5), keys)
    dense, sparse = (
        fit_regression(each, pairing, seed=0) for each in (encoded, sp.csr_matrix(encoded))
    )
    np.testing.assert_array_equal(dense.weights, sparse.weights)
    np.testing.assert_array_equal(dense.center, sparse.center)
    assert (sparse.weights != 0).any((0, 2)).sum() == 25


@pytest.mark.parametrize("unit", [1e-9, 1e15])
def test_units_do_not_matter(encoded: np.ndarray, keys: np.ndarray, unit: float) -> None:
    targets = linear_targets(encoded, noise=0.5)
    found = []
    for given in (encoded, encoded * np.float32(unit)):
        predictor = fit_cross_predictor(given, [Pairing(np.arange(N_CELLS), targets, keys)], seed=0)
        found.append(scores(predictor, given, keys))
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)


@pytest.mark.parametrize("unit", [1e-9, 1.0])
def test_features_that_are_constant_say_nothing(
    encoded: np.ndarray, keys: np.ndarray, unit: float
) -> None:
    encoded[:, 10:] = 0.1
    targets = linear_targets(encoded, noise=0.5)
    given = encoded * np.float32(unit)
    pairing = Pairing(np.arange(N_CELLS), targets, keys)
    found = scores(fit_cross_predictor(given, [pairing], seed=0), given, keys)
    few = np.ascontiguousarray(given[:, :10])
    expected = scores(fit_cross_predictor(few, [pairing], seed=0), few, keys)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_unmeasured_features_say_nothing(encoded: np.ndarray, keys: np.ndarray) -> None:
    targets = linear_targets(encoded, noise=0.5)
    predictor = fit_cross_predictor(encoded, [Pairing(np.arange(N_CELLS), targets, keys)], seed=0)
    measured = torch.ones(N_CELLS, N_FEATURES, dtype=torch.bool)
    measured[:, :10] = False
    changed = encoded.copy()
    changed[:, :10] = 7.0
    left = predictor(torch.tensor(encoded), torch.tensor(keys), measured)
    right = predictor(torch.tensor(changed), torch.tensor(keys), measured)
    torch.testing.assert_close(left, right)
    assert not torch.allclose(left, predictor(torch.tensor(encoded), torch.tensor(keys)))


def test_few_pairs_support_few_scores(encoded: np.ndarray, keys: np.ndarray) -> None:
    targets = linear_targets(encoded, noise=0.5)
    rows = np.arange(2 * CELLS_A_PREDICTION)
    two = fit_cross_predictor(encoded, [Pairing(rows, targets[rows], keys[rows])], seed=0)
    assert two.n_scores == 2
    rows = np.arange(CELLS_A_PREDICTION - 1)
    none = fit_cross_predictor(encoded, [Pairing(rows, targets[rows], keys[rows])], seed=0)
    assert none.n_scores == 0
    assert scores(none, encoded, keys).shape == (N_CELLS, 0)


def test_several_modalities_are_scored_side_by_side(encoded: np.ndarray, keys: np.ndarray) -> None:
    targets = linear_targets(encoded, noise=0.5)
    first = Pairing(np.arange(300), targets[:300, :1], keys[:300])
    second = Pairing(np.arange(200, 600), targets[200:, 1:], keys[200:])
    both = fit_cross_predictor(encoded, [first, second], seed=0)
    alone = [fit_cross_predictor(encoded, [pairing], seed=0) for pairing in (first, second)]
    fresh = encoded[:50]
    unknown = np.arange(50)
    expected = np.concatenate([scores(part, fresh, unknown) for part in alone], axis=1)
    np.testing.assert_allclose(scores(both, fresh, unknown), expected, atol=1e-3)
