"""Pairs that training draws: by weight, the same for the same seed."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from mosaicvi.alignment import CellPairs
from mosaicvi.data._pairs import PairSampler

CPU = torch.device("cpu")
N_PAIRS = 12
BOTH = ("rna", "protein")


def pairs(seed: int = 0) -> CellPairs:
    rng = np.random.default_rng(seed)
    return CellPairs(
        rng.permutation(30)[:N_PAIRS], np.arange(N_PAIRS), rng.gamma(1.0, size=N_PAIRS)
    )


def inputs() -> dict[str, np.ndarray]:
    """Every row says which cell it is."""
    return {
        "rna": np.column_stack([np.arange(30), np.zeros(30)]).astype(np.float32),
        "protein": np.arange(100, 100 + N_PAIRS, dtype=np.float32)[:, None],
        "atac": np.arange(5, dtype=np.float32)[:, None],
    }


def test_pairs_are_drawn_by_weight() -> None:
    given = pairs()
    sampler = PairSampler({BOTH: given}, inputs(), n_pairs=20_000, seed=0)
    (batch,) = sampler.draw(CPU)
    assert batch.modalities == BOTH
    places = (batch.inputs[1][:, 0] - 100).long().numpy()
    np.testing.assert_array_equal(batch.inputs[0][:, 0].long().numpy(), given.left[places])
    expected = 20_000 * given.weight / given.weight.sum()
    test = stats.chisquare(np.bincount(places, minlength=N_PAIRS), expected)
    assert test.pvalue > 1e-3


def test_weight_zero_is_never_drawn() -> None:
    given = pairs()
    weight = given.weight.copy()
    weight[[0, 4, N_PAIRS - 1]] = 0
    given = CellPairs(given.left, given.right, weight)
    (batch,) = PairSampler({BOTH: given}, inputs(), n_pairs=5000, seed=1).draw(CPU)
    drawn = np.unique((batch.inputs[1][:, 0] - 100).numpy())
    assert set(drawn) == set(range(N_PAIRS)) - {0, 4, N_PAIRS - 1}


def test_same_seed_same_draws_and_each_step_its_own() -> None:
    first, again, other = (
        PairSampler({BOTH: pairs()}, inputs(), n_pairs=64, seed=seed) for seed in (3, 3, 4)
    )
    steps = [
        [sampler.draw(CPU)[0].inputs[0] for _ in range(2)] for sampler in (first, again, other)
    ]
    for left, right in zip(steps[0], steps[1], strict=True):
        torch.testing.assert_close(left, right, atol=0, rtol=0)
    assert not torch.equal(steps[0][0], steps[0][1])
    assert not torch.equal(steps[0][0], steps[2][0])


def test_torch_draws_are_left_alone() -> None:
    sampler = PairSampler({BOTH: pairs()}, inputs(), n_pairs=8, seed=0)
    state = torch.random.get_rng_state()
    sampler.draw(CPU)
    torch.testing.assert_close(torch.random.get_rng_state(), state)


def test_each_two_modalities_have_their_share_and_none_where_there_are_no_pairs() -> None:
    none = CellPairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    third = CellPairs(np.array([1, 2]), np.array([0, 4]), np.array([1.0, 3.0]))
    given = {BOTH: pairs(), ("rna", "atac"): third, ("protein", "atac"): none}
    drawn = PairSampler(given, inputs(), n_pairs=16, seed=0).draw(CPU)
    assert [batch.modalities for batch in drawn] == [BOTH, ("rna", "atac")]
    assert [len(side) for batch in drawn for side in batch.inputs] == [16] * 4
