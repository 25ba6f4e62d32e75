"""Inputs of aligned encoders: what batch and depth explain is out, by least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import OneHotEncoder

from mosaicvi.model._inputs import default_width
from mosaicvi.nn._aligned_inputs import LENGTH, AlignedInputs, fit_technical

N_CELLS, N_COMPONENTS, N_BATCHES, N_DIRECTIONS = 200, 6, 3, 4


def projected(*, has_depth: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Components that batch and log depth move, depth last; and batch codes."""
    rng = np.random.default_rng(seed)
    batch = rng.integers(N_BATCHES, size=N_CELLS)
    depth = rng.normal(size=N_CELLS) + 0.5 * (batch == 1)
    values = rng.normal(size=(N_CELLS, N_COMPONENTS))
    values += rng.normal(size=(N_BATCHES, N_COMPONENTS))[batch] * 3
    if has_depth:
        values += np.outer(depth, rng.normal(size=N_COMPONENTS))
        values = np.column_stack([values, depth])
    return values.astype(np.float32), batch


def make(values: np.ndarray, batch: np.ndarray, *, has_depth: bool) -> AlignedInputs:
    rng = np.random.default_rng(9)
    effects = fit_technical(values, batch, N_BATCHES, has_depth=has_depth)
    center, weights = rng.normal(size=N_COMPONENTS), rng.normal(size=(N_COMPONENTS, N_DIRECTIONS))
    return AlignedInputs(*effects, center, weights)


@pytest.mark.parametrize("has_depth", [True, False])
def test_residuals_are_those_of_a_regression(*, has_depth: bool) -> None:
    values, batch = projected(has_depth=has_depth)
    inputs = make(values, batch, has_depth=has_depth)
    found = inputs(torch.from_numpy(values), torch.from_numpy(batch)).numpy()
    design = OneHotEncoder(sparse_output=False).fit_transform(batch[:, None])
    outcome = values[:, :N_COMPONENTS].astype(float)
    if has_depth:
        design = np.column_stack([design, values[:, -1]])
    fitted = LinearRegression(fit_intercept=False).fit(design, outcome)
    expected = outcome - fitted.predict(design)
    np.testing.assert_allclose(found[:, :N_COMPONENTS], expected, atol=1e-5)
    scores = (expected - inputs.center.numpy()) @ inputs.weights.numpy()
    scores *= LENGTH / np.linalg.norm(scores, axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, N_COMPONENTS:], scores, atol=1e-4)
    assert inputs.widths == (N_COMPONENTS, N_DIRECTIONS)
    assert found.shape == (N_CELLS, inputs.n_outputs)


def test_nothing_of_batch_and_depth_is_left() -> None:
    values, batch = projected(has_depth=True)
    inputs = make(values, batch, has_depth=True)
    found = inputs(torch.from_numpy(values), torch.from_numpy(batch)).numpy()
    assert np.abs(np.corrcoef(values.T)[-1, :-1]).max() > 0.3
    for column in found[:, :N_COMPONENTS].T:
        assert abs(np.corrcoef(column, values[:, -1])[0, 1]) < 1e-4
        means = [column[batch == code].mean() for code in range(N_BATCHES)]
        assert np.ptp(means) < 1e-4 * column.std() + 1e-5


def test_a_batch_that_was_not_seen_stands_at_zero() -> None:
    values, batch = projected(has_depth=True)
    inputs = make(values, batch, has_depth=True)
    unseen = torch.full((N_CELLS,), -1)
    found = inputs.residuals(torch.from_numpy(values), unseen).numpy()
    depth_alone = values[:, :-1] - values[:, -1:] * inputs.depth_effect.numpy()
    np.testing.assert_allclose(found, depth_alone, atol=1e-5)


def test_a_batch_without_cells_gets_no_effect() -> None:
    values, batch = projected(has_depth=True)
    table, slope = fit_technical(values, np.where(batch == 1, 2, batch), 4, has_depth=True)
    assert table.shape == (4, N_COMPONENTS)
    assert (table[[1, 3]] == 0).all()
    assert (np.abs(table[[0, 2]]).max(1) > 0).all()
    assert slope is not None


def test_cells_of_unknown_batch_do_not_move_the_effects_of_others() -> None:
    values, batch = projected(has_depth=False)
    some = np.where(np.arange(N_CELLS) < 20, -1, batch)
    table, slope = fit_technical(values, some, N_BATCHES, has_depth=False)
    kept, _ = fit_technical(values[20:], batch[20:], N_BATCHES, has_depth=False)
    assert slope is None
    np.testing.assert_allclose(table, kept, atol=1e-5)


def test_shape_alone_holds_what_a_file_fills() -> None:
    values, batch = projected(has_depth=True)
    inputs = make(values, batch, has_depth=True)
    blank = AlignedInputs.blank(N_BATCHES, N_COMPONENTS, N_DIRECTIONS, has_depth=True)
    blank.load_state_dict(inputs.state_dict())
    given = torch.from_numpy(values), torch.from_numpy(batch)
    torch.testing.assert_close(blank(*given), inputs(*given), atol=0, rtol=0)
    assert not list(blank.parameters())


def test_batches_of_other_composition_are_not_mistaken_for_effects() -> None:
    """One type makes up most of batch 0 and is sequenced more deeply: within types, nothing is."""
    rng = np.random.default_rng(3)
    batch = np.repeat([0, 1], 300)
    kind = rng.random(600) < np.where(batch == 0, 0.9, 0.1)
    depth = rng.normal(size=600) + 2 * kind
    away = np.array([3.0, 0.0, -2.0])
    shift, slope = np.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]]), np.array([0.0, 0.0, 0.5])
    clean = np.outer(kind - kind.mean(), away) + 0.1 * rng.normal(size=(600, 3))
    values = np.column_stack([clean + shift[batch] + np.outer(depth, slope), depth])
    table, found = fit_technical(values, batch, 2, has_depth=True, groups=kind.astype(int))
    np.testing.assert_allclose(found, slope, atol=0.05)
    np.testing.assert_allclose(table, shift, atol=0.05)
    mixed, _ = fit_technical(values, batch, 2, has_depth=True)
    assert np.abs(mixed - shift).max() > 0.5


@pytest.mark.parametrize(
    ("n_cells", "width", "aligned"), [(150, 10, 20), (1200, 12, 60), (10_000, 64, 64)]
)
def test_projections_in_which_shared_scores_are_sought_are_wide(
    n_cells: int, width: int, aligned: int
) -> None:
    assert default_width(n_cells) == width
    assert default_width(n_cells, align=True) == aligned
