"""How random minibatches from disk are: ``python tests/benchmarks/shuffle_quality.py``.

A file sorted by type (20 types of equal size): the variance, between minibatches of an epoch, of
each type's share, over that of uniform sampling without replacement. No counts are read.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np

from mosaicvi.data import BlockBatchSampler, BlockShuffle, StratifiedBatchSampler

N_TYPES = 20


def ratio(sampler: BlockBatchSampler | StratifiedBatchSampler, types: np.ndarray) -> float:
    """Mean over types of the variance of its share, over the variance of uniform sampling."""
    shares = np.array(
        [np.bincount(types[cells], minlength=N_TYPES) / len(cells) for cells in sampler]
    )
    size = np.mean([len(cells) for cells in sampler])
    expected = (1 / N_TYPES) * (1 - 1 / N_TYPES) / size * (1 - size / len(types))
    return float(shares.var(axis=0).mean() / expected)


def main() -> None:
    write = sys.stdout.write
    write("| cells | minibatch | block | window | variance over uniform |\n|---|---|---|---|---|\n")
    for n_cells, size in itertools.product([100_000, 1_000_000], [128, 512]):
        types = np.arange(n_cells) * N_TYPES // n_cells
        patterns = np.ones(n_cells, dtype=int)
        found = ratio(StratifiedBatchSampler(patterns, np.arange(n_cells), size), types)
        write(f"| {n_cells:,} | {size} | uniform | | {found:.2f} |\n")
        for block in (16, 35, 128, 1000):
            sampler = BlockBatchSampler(
                patterns, np.arange(n_cells), size, BlockShuffle(block, 19_000)
            )
            write(f"| {n_cells:,} | {size} | {block} | 19,000 | {ratio(sampler, types):.2f} |\n")


if __name__ == "__main__":
    main()
