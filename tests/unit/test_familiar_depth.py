"""Log depths of cells that were sequenced to another depth than those of training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mosaicvi.nn._familiar_depth import depth_levels, familiar_depth, nothing_known
from mosaicvi.nn._projection import Projection

MOMENTS = torch.tensor([6.0, 0.5])


def known(log_depth: np.ndarray, batch: np.ndarray, n_batches: int) -> torch.Tensor:
    levels = depth_levels(np.expm1(6.0 + 0.5 * log_depth), batch, n_batches, MOMENTS)
    return torch.as_tensor(levels, dtype=torch.float32)


@pytest.fixture
def training() -> np.ndarray:
    return np.random.default_rng(0).normal(size=400).clip(-2.5, 2.5).astype(np.float32)


def test_training_cells_keep_their_bits(training: np.ndarray) -> None:
    """Batches of other depths are known, in whatever part they are asked about."""
    batch = np.repeat([0, 1], 200)
    both = training - 3 * batch.astype(np.float32)
    levels = known(both, batch, 3)
    names = np.array(["a", "b"], dtype=object)[batch]
    np.testing.assert_array_equal(familiar_depth(both, names, levels), both)
    few = both[200:210]
    np.testing.assert_array_equal(familiar_depth(few, names[200:210], levels), few)


@pytest.mark.parametrize("shift", [-4.0, 3.0])
def test_a_batch_of_another_depth_is_read_beside_its_own(
    training: np.ndarray, shift: float
) -> None:
    levels = known(training, np.zeros(400, dtype=int), 1)
    query = (training + shift).astype(np.float32)
    got = familiar_depth(query, np.full(400, "new", dtype=object), levels)
    np.testing.assert_allclose(got, training, atol=1e-5)
    order = np.random.default_rng(1).permutation(400)
    same = familiar_depth(query[order], np.full(400, "new", dtype=object), levels)
    np.testing.assert_array_equal(same, got[order])


def test_batches_are_moved_apart(training: np.ndarray) -> None:
    levels = known(training, np.zeros(400, dtype=int), 1)
    query = np.concatenate([training[:200] - 4, training[200:]]).astype(np.float32)
    got = familiar_depth(query, np.repeat(np.array(["x", "y"], dtype=object), 200), levels)
    np.testing.assert_array_equal(got[200:], training[200:])
    assert abs(np.median(got[:200]) - np.median(training)) < 1e-5


@pytest.mark.parametrize(("shift", "n_cells"), [(-0.9, 200), (2.0, 1)])
def test_other_types_of_cells_are_left_alone(
    training: np.ndarray, shift: float, n_cells: int
) -> None:
    levels = known(training, np.zeros(400, dtype=int), 1)
    query = np.full(n_cells, np.median(training) + shift, dtype=np.float32)
    np.testing.assert_array_equal(familiar_depth(query, np.full(n_cells, "new"), levels), query)


def test_a_cell_beyond_training_is_not_believed(training: np.ndarray) -> None:
    levels = known(training, np.zeros(400, dtype=int), 1)
    query = training.copy()
    least = float(training.min())
    query[:3] = least - 0.5, least - 1.0, least - 9.0
    got = familiar_depth(query, np.full(400, "new", dtype=object), levels)
    np.testing.assert_allclose(got[:3], [0.5 * least, 0.0, 0.0], atol=5e-3)
    np.testing.assert_array_equal(got[3:], training[3:])


def test_of_nothing_known_nothing_is_changed(training: np.ndarray) -> None:
    far = training - 9
    assert not len(
        familiar_depth(far[:0], np.full(0, "new"), known(training, np.zeros(400, dtype=int), 1))
    )
    assert familiar_depth(far, np.full(400, "new"), nothing_known(2)) is far
    assert np.isinf(depth_levels(np.zeros(0), np.zeros(0, dtype=int), 2, MOMENTS)).all()


def test_files_of_earlier_versions_load() -> None:
    old, new = (Projection(np.zeros(3), None, np.ones(3), (0.0, 1.0), 2) for _ in range(2))
    new.levels = torch.zeros(4)
    state = {name: value for name, value in old.state_dict().items() if name != "levels"}
    new.load_state_dict(state)
    assert bool(new.levels.isinf().all())
