"""The frozen projection against a dense singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mosaicvi._types import SparseCounts
from mosaicvi.nn._projection import Projection, fit_projection, project_in_chunks

N_CELLS, N_FEATURES, N_COMPONENTS = 120, 80, 7


@pytest.fixture
def values() -> np.ndarray:
    rng = np.random.default_rng(1)
    factors = rng.gamma(1.0, size=(N_CELLS, 5)) @ rng.gamma(1.0, size=(5, N_FEATURES))
    return np.log1p(rng.poisson(0.3 * factors)).astype(np.float32)


@pytest.fixture
def depth(values: np.ndarray) -> np.ndarray:
    return np.expm1(values).sum(1)


def scores(values: np.ndarray, n_components: int = N_COMPONENTS) -> np.ndarray:
    """Principal component scores by a dense singular value decomposition."""
    left, singular, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
    return (left * singular)[:, :n_components]


def assert_same_up_to_sign(left: np.ndarray, right: np.ndarray, atol: float = 1e-3) -> None:
    signs = np.sign((left * right).sum(0))
    np.testing.assert_allclose(left, right * signs, atol=atol)


def as_tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_equals_dense_pca(values: np.ndarray, depth: np.ndarray, kind: str) -> None:
    given = sp.csr_matrix(values) if kind == "sparse" else values
    projection = fit_projection(given, depth, n_components=N_COMPONENTS, seed=0)
    got = projection(as_tensor(values), as_tensor(depth)).numpy()
    assert got.shape == (N_CELLS, projection.n_inputs) == (N_CELLS, N_COMPONENTS + 1)
    expected = scores(values)
    # one common scale: the spectrum is kept
    ratio = expected.std(0) / got[:, :-1].std(0)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    assert_same_up_to_sign(got[:, :-1] * ratio[0], expected)
    assert got[:, :-1].std(0).mean() == pytest.approx(1, rel=0.05)


def test_depth_is_the_last_input(values: np.ndarray, depth: np.ndarray) -> None:
    log_depth = np.log1p(depth)
    projection = fit_projection(values, depth, n_components=3, seed=0)
    got = projection(as_tensor(values), as_tensor(depth)).numpy()[:, -1]
    np.testing.assert_allclose(got, (log_depth - log_depth.mean()) / log_depth.std(), atol=1e-4)
    without = fit_projection(values, None, n_components=3, seed=0)
    assert without.n_inputs == 3
    assert without(as_tensor(values), as_tensor(depth)).shape == (N_CELLS, 3)


@pytest.mark.parametrize("masked", [False, True])
def test_sparse_equals_dense(values: np.ndarray, depth: np.ndarray, masked: bool) -> None:
    measured = None
    if masked:
        measured = torch.rand(N_CELLS, N_FEATURES) < 0.7
        values = values * measured.numpy()
    projection = fit_projection(values, depth, n_components=5, seed=0)
    dense = projection(as_tensor(values), as_tensor(depth), measured)
    sparse = projection(SparseCounts.from_dense(as_tensor(values)), as_tensor(depth), measured)
    torch.testing.assert_close(sparse, dense, atol=1e-4, rtol=1e-4)


def test_cells_without_counts_and_explicit_zeros() -> None:
    counts = SparseCounts(
        torch.tensor([0, 0, 2, 2]), torch.tensor([1, 70]), torch.tensor([0.0, 3.0]), N_FEATURES
    )
    rng = np.random.default_rng(0)
    projection = fit_projection(rng.random((30, N_FEATURES)), None, n_components=4, seed=0)
    depth = torch.zeros(3)
    torch.testing.assert_close(projection(counts, depth), projection(counts.to_dense(), depth))


@pytest.mark.parametrize("n_features", [10, N_FEATURES])
def test_unmeasured_features_contribute_nothing(values: np.ndarray, n_features: int) -> None:
    values = values[:, :n_features]
    projection = fit_projection(values, None, n_components=5, seed=0)
    measured = torch.ones(N_CELLS, n_features, dtype=torch.bool)
    measured[:60, 4:9] = False
    masked = projection(as_tensor(values), torch.ones(N_CELLS), measured)
    other = values.copy()
    other[:60, 4:9] = 77.0
    torch.testing.assert_close(projection(as_tensor(other), torch.ones(N_CELLS), measured), masked)
    at_center = values.copy()
    at_center[:60, 4:9] = projection.center.numpy()[4:9]
    torch.testing.assert_close(
        projection(as_tensor(at_center), torch.ones(N_CELLS)), masked, atol=1e-4, rtol=1e-4
    )
    missing = values.copy()
    missing[:60, 4:9] = np.nan
    torch.testing.assert_close(
        projection(as_tensor(missing), torch.ones(N_CELLS)), masked, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize("n_features", [20, N_FEATURES])
def test_fit_with_panels(values: np.ndarray, kind: str, n_features: int) -> None:
    """Unmeasured entries sit at the mean of the cells that measured the feature."""
    values = values[:, :n_features].astype(np.float64)
    batch = np.repeat([0, 1], N_CELLS // 2)
    panel = np.ones((3, n_features), dtype=bool)
    panel[1, : n_features // 2] = False
    panel[2] = False  # a batch without cells
    values[~panel[batch]] = 0
    filled = values.copy()
    for feature in range(n_features):
        known = panel[batch, feature]
        filled[~known, feature] = values[known, feature].mean()
    given = sp.csr_matrix(values) if kind == "sparse" else values
    projection = fit_projection(
        given, None, n_components=5, seed=0, small_panel=30, panel=panel, batch=batch
    )
    np.testing.assert_allclose(projection.center, filled.mean(0), atol=1e-5)
    got = projection(as_tensor(values), torch.ones(N_CELLS), torch.from_numpy(panel[batch])).numpy()
    if n_features > 30:
        expected = scores(filled, 5)
        scale = float(projection.scale[0])
        assert_same_up_to_sign(got * scale, expected)
        np.testing.assert_allclose(projection.scale.numpy(), expected.std(0, ddof=1).mean(),
                                   rtol=1e-4)  # fmt: skip
    else:
        known = np.where(panel[batch], values, np.nan)
        expected = (filled - np.nanmean(known, 0)) / np.nanstd(known, 0)
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_small_panels_skip_the_projection(values: np.ndarray, depth: np.ndarray) -> None:
    few = values[:, :10].copy()
    few[:, 3] = 1.5  # constant
    projection = fit_projection(sp.csr_matrix(few), depth, n_components=4, seed=0)
    got = projection(SparseCounts.from_dense(as_tensor(few)), as_tensor(depth)).numpy()
    assert got.shape == (N_CELLS, 11)
    spread = np.where(few.std(0) > 1e-6, few.std(0), 1)
    np.testing.assert_allclose(got[:, :10], (few - few.mean(0)) / spread, atol=1e-4)


@pytest.mark.parametrize("unit", [1e-9, 1e15])
@pytest.mark.parametrize("n_features", [10, N_FEATURES])
def test_units_do_not_matter(values: np.ndarray, n_features: int, unit: float) -> None:
    found = []
    for given in (values[:, :n_features], values[:, :n_features] * np.float32(unit)):
        projection = fit_projection(given, None, n_components=5, seed=0)
        found.append(projection(as_tensor(given), torch.ones(N_CELLS)).numpy())
    assert_same_up_to_sign(*found)


@pytest.mark.parametrize("n_features", [10, N_FEATURES])
def test_missing_values(values: np.ndarray, n_features: int) -> None:
    holed = values[:, :n_features].astype(np.float64)
    holed[np.random.default_rng(0).random(holed.shape) < 0.3] = np.nan
    holed[:, 2] = np.nan  # never measured
    projection = fit_projection(holed, None, n_components=5, seed=0)
    assert torch.isfinite(projection(as_tensor(holed), torch.ones(N_CELLS))).all()
    np.testing.assert_allclose(projection.center[3], np.nanmean(holed[:, 3]), rtol=1e-5)


def test_never_more_components_than_the_data_hold(values: np.ndarray) -> None:
    projection = fit_projection(values[:6], None, n_components=64, seed=0)
    assert projection.n_inputs == 5
    assert torch.isfinite(projection(as_tensor(values[:6]), torch.ones(6))).all()


@pytest.mark.parametrize("n_cells", [1, 2])
def test_one_and_two_cells(values: np.ndarray, n_cells: int) -> None:
    projection = fit_projection(sp.csr_matrix(values[:n_cells]), None, n_components=4, seed=0)
    assert torch.isfinite(projection(as_tensor(values[:n_cells]), torch.ones(n_cells))).all()


def test_same_seed_same_projection(values: np.ndarray) -> None:
    first, second = (fit_projection(values, None, n_components=5, seed=3) for _ in range(2))
    assert torch.equal(first.components, second.components)
    assert not list(first.parameters())  # frozen: buffers only


def test_chunks_change_nothing(values: np.ndarray) -> None:
    projection = Projection(values.mean(0), None, np.ones(N_FEATURES), None)

    def project(rows: slice) -> torch.Tensor:
        return projection(as_tensor(values[rows]), torch.ones(rows.stop - rows.start))

    whole = project_in_chunks(N_CELLS, project)
    np.testing.assert_array_equal(project_in_chunks(N_CELLS, project, chunk_size=7), whole)
    assert project_in_chunks(0, project).shape == (0, N_FEATURES)
