"""Singular vectors by blocks against a dense decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from mosaicvi.nn import _block_svd, _projection
from mosaicvi.nn._block_svd import leading_components
from mosaicvi.nn._projection import fit_projection

N_CELLS, N_FEATURES = 400, 150


@pytest.fixture
def values() -> sp.csr_matrix:
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, size=(N_CELLS, 6)) @ rng.gamma(0.5, size=(6, N_FEATURES))
    return sp.csr_matrix(np.log1p(rng.poisson(rates)).astype(np.float32))


@pytest.fixture(autouse=True)
def _few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_block_svd, "_ROWS", 64)


@pytest.mark.parametrize("n_batches", [1, 3])
def test_equals_a_dense_decomposition(values: sp.csr_matrix, n_batches: int) -> None:
    codes = np.arange(N_CELLS) % n_batches
    table = np.stack([values[codes == code].mean(0).A1 for code in range(n_batches)])
    found, singular = leading_components(values, table, codes, 12, seed=0)
    _, expected, axes = np.linalg.svd(values.toarray() - table[codes], full_matrices=False)
    np.testing.assert_allclose(singular, expected[:12], rtol=1e-3)
    np.testing.assert_allclose(found @ found.T, np.eye(12), atol=1e-4)
    # the first few are apart from their neighbours, so that each is the same
    np.testing.assert_allclose(np.abs((found * axes[:12]).sum(1))[:5], 1, atol=1e-3)


def test_all_components_of_a_small_matrix() -> None:
    small = sp.random(30, 20, 0.3, format="csr", dtype=np.float32, random_state=0)
    table = np.asarray(small.mean(0))
    _, singular = leading_components(small, table, np.zeros(30, dtype=int), 20, seed=1)
    expected = np.linalg.svd(small.toarray() - table, compute_uv=False)
    np.testing.assert_allclose(singular, expected, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same(values: sp.csr_matrix) -> None:
    table, codes = np.asarray(values.mean(0)), np.zeros(N_CELLS, dtype=int)
    first, second = (leading_components(values, table, codes, 8, seed=3)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("with_panel", [False, True])
def test_a_large_projection_is_that_of_a_small_one(
    values: sp.csr_matrix, with_panel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = batch = None
    if with_panel:
        batch = np.arange(N_CELLS) % 2
        panel = np.ones((2, N_FEATURES), dtype=bool)
        panel[1, :40] = False
        values = sp.csr_matrix(values.toarray() * panel[batch])
    given = {"n_components": 10, "seed": 0, "panel": panel, "batch": batch}
    small = fit_projection(values, None, **given)
    monkeypatch.setattr(_projection, "MANY_VALUES", 0)
    large = fit_projection(values, None, **given)
    np.testing.assert_allclose(large.center, small.center, atol=1e-5)
    np.testing.assert_allclose(large.scale, small.scale, rtol=1e-3)
    overlap = np.abs((large.components * small.components).sum(0).numpy())
    norms = np.linalg.norm(large.components, axis=0) * np.linalg.norm(small.components, axis=0)
    np.testing.assert_allclose(overlap[:5], norms[:5], rtol=1e-3)
