"""What batch and depth explain is found although types differ in both."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mosaicvi.model._technical import explain_technical

N_CELLS, N_TYPES, N_COMPONENTS = 1500, 4, 10


@pytest.fixture(scope="module")
def cells() -> SimpleNamespace:
    """Types in other shares in each of three batches, deeper in some; both move the projection."""
    rng = np.random.default_rng(0)
    batch = rng.integers(3, size=N_CELLS)
    shares = rng.dirichlet(np.full(N_TYPES, 0.7), size=3)
    kind = np.array([rng.choice(N_TYPES, p=shares[code]) for code in batch])
    log_depth = 5 + rng.normal(size=N_TYPES)[kind] + 0.3 * rng.normal(size=N_CELLS)
    signal = 4 * rng.normal(size=(N_TYPES, N_COMPONENTS))
    clean = signal[kind] + 0.5 * rng.normal(size=(N_CELLS, N_COMPONENTS))
    moved = clean + 0.5 * rng.normal(size=(3, N_COMPONENTS))[batch]
    depth = (log_depth - log_depth.mean()) / log_depth.std()
    moved += 0.5 * np.outer(depth, rng.normal(size=N_COMPONENTS))
    modality = SimpleNamespace(
        spec=SimpleNamespace(likelihood="nb_mixture"),
        values=np.round(np.expm1(log_depth))[:, None],
        depth=np.round(np.expm1(log_depth)).astype(np.float32),
        batch=batch,
        batch_categories=("a", "b", "c"),
    )
    projected = np.column_stack([moved - moved.mean(0), depth])
    return SimpleNamespace(modality=modality, projected=projected, clean=clean, kind=kind)


def left_of(values: np.ndarray, cells: SimpleNamespace) -> float:
    """Share of the variance within types that batches explain."""
    within = values.astype(float)
    for code in range(N_TYPES):
        within[cells.kind == code] -= within[cells.kind == code].mean(0)
    batch = cells.modality.batch
    means = np.stack([within[batch == code].mean(0) for code in range(3)])
    return float(np.square(means[batch]).sum() / np.square(within).sum())


def test_types_stay_and_batches_go(cells: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    found = explain_technical(cells.modality, cells.projected, seed=0)
    assert found.residuals.shape == (N_CELLS, N_COMPONENTS)
    assert left_of(found.residuals, cells) < 0.02
    distance = np.abs(
        (found.residuals - found.residuals.mean(0)) - (cells.clean - cells.clean.mean(0))
    ).mean()
    assert distance < 0.6
    # Without groups, what types differ by is taken for batch and depth.
    monkeypatch.setattr("mosaicvi.model._technical.N_ROUNDS", 0)
    plain = explain_technical(cells.modality, cells.projected, seed=0)
    assert left_of(plain.residuals, cells) > 0.1


def test_other_values_are_judged_within_the_same_groups(cells: SimpleNamespace) -> None:
    found = explain_technical(cells.modality, cells.projected, seed=0)
    rows = np.arange(0, N_CELLS, 2)
    again = found.take_from(cells.modality, cells.projected[rows, :-1], rows)
    assert again.shape == (len(rows), N_COMPONENTS)
    np.testing.assert_allclose(
        again - again.mean(0), found.residuals[rows] - found.residuals[rows].mean(0), atol=0.3
    )
