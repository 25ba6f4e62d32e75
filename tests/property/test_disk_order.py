"""The order in which cells on disk are seen, and which rows are read together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mosaicvi.data import BlockBatchSampler, BlockShuffle
from mosaicvi.data._rows import runs


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=400),
    st.integers(1, 50),
    st.integers(1, 60),
    st.integers(1, 200),
    st.integers(0, 5),
)
def test_every_cell_is_seen_once_an_epoch(
    kinds: list[int], batch_size: int, block: int, window: int, epoch: int
) -> None:
    patterns = np.array(kinds)
    sampler = BlockBatchSampler(
        patterns, np.arange(len(kinds)), batch_size, BlockShuffle(block, window)
    )
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(kinds)))
    assert max(map(len, batches)) <= batch_size + 1
    again = list(sampler)
    assert all(np.array_equal(one, two) for one, two in zip(batches, again, strict=True))


@given(st.integers(2, 40), st.integers(1, 20))
def test_minibatches_hold_every_pattern_in_proportion(n_batches: int, block: int) -> None:
    patterns = np.repeat([1, 2], [n_batches * 24, n_batches * 8])
    sampler = BlockBatchSampler(patterns, np.arange(len(patterns)), 32, BlockShuffle(block, 64))
    for cells in sampler:
        assert abs(int((patterns[cells] == 2).sum()) - len(cells) / 4) <= 1.01


@given(
    st.sets(st.integers(0, 500), min_size=1, max_size=100),
    st.integers(0, 30),
    st.integers(1, 100),
)
def test_runs_cover_all_rows_and_nothing_far(rows: set[int], gap: int, longest: int) -> None:
    ascending = np.array(sorted(rows))
    found = runs(ascending, gap, longest)
    covered = [ascending[start:stop] for start, stop in found]
    np.testing.assert_array_equal(np.concatenate(covered), ascending)
    for part in covered:
        assert part[-1] - part[0] < longest
        assert (np.diff(part) <= gap + 1).all()


def test_drop_last_keeps_sizes_equal() -> None:
    sampler = BlockBatchSampler(
        np.ones(1000, int), np.arange(1000), 32, BlockShuffle(8, 128), drop_last=True
    )
    batches = list(sampler)
    assert {len(cells) for cells in batches} == {32}
    assert len(np.unique(np.concatenate(batches))) == 32 * len(batches)


def test_small_blocks_shuffle_like_uniform_sampling() -> None:
    """In a file sorted by type, a minibatch's share of a type varies hardly more than by chance."""
    n_cells, batch_size = 40_000, 100
    types = np.arange(n_cells) // (n_cells // 10)
    shares = {}
    for name, blocks in {
        "small": BlockShuffle(10, 10_000),
        "large": BlockShuffle(500, 5_000),
    }.items():
        sampler = BlockBatchSampler(np.ones(n_cells, int), np.arange(n_cells), batch_size, blocks)
        shares[name] = np.var([np.mean(types[cells] == 3) for cells in sampler])
    uniform = 0.1 * 0.9 / batch_size
    assert shares["small"] < 1.25 * uniform
    assert shares["large"] > 3 * uniform
