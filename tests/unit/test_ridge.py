from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Oracle

from mosaicvi.nn._cross_regression import PENALTIES
from mosaicvi.nn._ridge import Ridge, factorised, gram_of


@pytest.fixture(params=[(400, 30, 3), (60, 200, 1)], ids=["tall", "wide"])
def rows(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    n_rows, n_features, n_targets = request.param
    rng = np.random.default_rng(0)
    # Columns that resemble each other, as standardised genes do.
    common = rng.normal(size=(n_rows, 5)) @ rng.normal(size=(5, n_features))
    x = common + rng.normal(size=(n_rows, n_features))
    x /= x.std(0)
    y = x @ rng.normal(size=(n_features, n_targets)) + rng.normal(size=(n_rows, n_targets))
    return x.astype(np.float32), y.astype(np.float32)


def system(x: np.ndarray, y: np.ndarray, left_out: slice) -> Ridge:
    return Ridge(x.T @ x, x.T @ y, x[left_out], y[left_out])


def oracle(x: np.ndarray, y: np.ndarray, left_out: slice, penalty: float) -> np.ndarray:
    kept = np.ones(len(x), dtype=bool)
    kept[left_out] = False
    model = Oracle(alpha=penalty, fit_intercept=False)
    return (
        np.asarray(model.fit(x[kept].astype(float), y[kept].astype(float)).coef_)
        .reshape(y.shape[1], -1)
        .T
    )


@pytest.mark.parametrize("penalty", [30.0, 500.0, 12_000.0])
def test_solves_as_scikit_learn_whatever_the_preconditioner(
    rows: tuple[np.ndarray, np.ndarray], penalty: float
) -> None:
    x, y = rows
    left_out = slice(10, 10 + len(x) // 5)
    ridge = system(x, y, left_out)
    expected = oracle(x, y, left_out, penalty)
    for near in (penalty, 10 * penalty):
        found = ridge.solve(penalty, factorised(ridge.gram, near), np.zeros_like(ridge.product))
        # Right where it matters: predictions, as directions without rows are hardly determined.
        np.testing.assert_allclose(x @ found, x @ expected, atol=2e-3 * np.abs(x @ expected).max())


def test_the_path_ranks_penalties_as_exact_solutions_do(
    rows: tuple[np.ndarray, np.ndarray],
) -> None:
    x, y = rows
    left_out = slice(0, len(x) // 5)
    penalties = [each * len(x) for each in PENALTIES]
    ridge = system(x, y, left_out)
    found = [ridge.error(each, 10**6) for each in ridge.path(penalties)]
    exact = [
        float(np.square(x[left_out] @ oracle(x, y, left_out, p) - y[left_out]).sum())
        for p in penalties
    ]
    assert int(np.argmin(found)) == int(np.argmin(exact))
    np.testing.assert_allclose(found, exact, rtol=0.05)


def test_a_start_that_is_the_solution_stays(rows: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = rows
    ridge = system(x, y, slice(0, 0))
    near = factorised(ridge.gram, 50.0)
    exact = near(ridge.product)
    np.testing.assert_allclose(ridge.solve(50.0, near, exact, 1e-3), exact, rtol=1e-6)


def test_targets_without_variance_get_no_weights(rows: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = rows
    ridge = system(x, np.column_stack([0 * y[:, :1], y]), slice(0, 20))
    found = ridge.solve(10.0, factorised(ridge.gram, 20.0), np.zeros_like(ridge.product))
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[:, 0], 0.0)


@pytest.mark.parametrize("n_used", [1, 7, 512, 700])
def test_gram_matrix_of_blocks_is_that_of_all_rows(n_used: int) -> None:
    rows = np.random.default_rng(1).normal(size=(90, n_used)).astype(np.float32)
    gram = gram_of((rows[start : start + 40] for start in range(0, 90, 40)), n_used)
    exact = rows.T.astype(float) @ rows.astype(float)
    np.testing.assert_allclose(gram, exact, atol=1e-4)
    assert np.array_equal(gram, gram.T)


def test_no_rows_give_a_gram_matrix_of_zeros() -> None:
    assert np.array_equal(gram_of([], 3), np.zeros((3, 3)))
