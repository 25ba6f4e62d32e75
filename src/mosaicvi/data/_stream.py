"""Minibatches of values on disk: blocks of neighbouring cells, shuffled within windows.

A window is a random choice of blocks from all over the file. Its rows are read together, while the
minibatches of the window before it are used; memory holds two windows.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Sampler

from mosaicvi._errors import RequestError
from mosaicvi.data._sampler import batch_sizes, n_visits, passes, spread
from mosaicvi.data._stored import StoredValues

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.data._dataset import MultiDataset, Window
    from mosaicvi.data._mosaic_data import MosaicData
    from mosaicvi.data._sampler import StratifiedBatchSampler

WINDOW_BYTES = 256 * 2**20
"""Values of a window, in bytes."""

BLOCK_BYTES = 256 * 2**10
"""Values of a block, in bytes: smaller ones shuffle better, larger ones are read faster."""

MIN_BLOCKS = 64
"""Blocks of a window, at least, unless storage reads more cells than that together anyhow."""

VALUE_BYTES = 8
"""Bytes of a stored value and its column."""


@dataclass(frozen=True)
class BlockShuffle:
    """How cells on disk are shuffled.

    Parameters
    ----------
    block_cells
        Neighbouring cells of a presence pattern that are read together.
    window_cells
        Cells among which minibatches are drawn, from blocks all over the file.
    """

    block_cells: int
    window_cells: int

    def __post_init__(self) -> None:
        """Refuse sizes that are none.

        Raises
        ------
        RequestError
            If blocks or windows hold no cell.
        """
        if min(self.block_cells, self.window_cells) < 1:
            raise RequestError(f"found {self}", key="blocks", expected="sizes of at least 1")


def default_shuffle(data: MosaicData) -> BlockShuffle:
    """Blocks and windows by the bytes of a cell and by what storage reads together."""
    parts = data.modalities.values()
    values = sum(part.stored_per_cell * part.n_cells for part in parts) / max(data.n_cells, 1)
    cell_bytes = max(values * VALUE_BYTES, 1.0)
    window = max(1, int(WINDOW_BYTES / cell_bytes))
    block = max(1, min(int(BLOCK_BYTES / cell_bytes), window // MIN_BLOCKS))
    grains = [part.values.grain for part in parts if isinstance(part.values, StoredValues)]
    return BlockShuffle(min(max([block, *grains]), window), window)


def file_order(data: MosaicData) -> np.ndarray:
    """Where each cell stands, ``(n_cells,)``: its row in its largest modality (on disk, if any)."""
    places = np.arange(data.n_cells, dtype=np.int64)
    parts = list(data.modalities.values())
    stored = [part for part in parts if part.on_disk] or parts
    for part in sorted(stored, key=lambda part: part.stored_per_cell):
        places = np.where(part.rows >= 0, part.rows, places)
    return places


class BlockBatchSampler(Sampler[np.ndarray]):
    """Minibatches from shuffled blocks, each with every presence pattern in proportion.

    The cells of a pattern are cut into blocks in the order of the file, blocks are put into random
    order, and the sequence is cut into as many windows as other patterns'. Cells are permuted
    within their window, and patterns spread evenly over it, as
    :class:`~mosaicvi.data._sampler.StratifiedBatchSampler` spreads them over an epoch. Every cell
    is seen once an epoch, or as often as ``visits`` says.

    Parameters
    ----------
    patterns
        Presence pattern of every cell, int, shape ``(n_cells,)``.
    indices
        Cells to sample from.
    batch_size
        Cells a minibatch; those of a window are as equal in size as can be.
    blocks
        Sizes of blocks and windows.
    places
        Where each cell stands in the file, ``(n_cells,)``; None: in the order of the MuData.
    seed
        Seed; with the epoch it decides the order.
    drop_last
        Whether every minibatch has exactly ``batch_size`` cells; the rest of each window then waits
        for another epoch.
    visits
        Pattern to how often each of its cells is seen an epoch, at least 1; None: once, all.
    """

    def __init__(
        self,
        patterns: np.ndarray,
        indices: np.ndarray,
        batch_size: int,
        blocks: BlockShuffle,
        *,
        places: np.ndarray | None = None,
        seed: int = 0,
        drop_last: bool = False,
        visits: Mapping[int, float] | None = None,
    ) -> None:
        indices = np.asarray(indices, dtype=np.int64)
        order = indices if places is None else indices[np.argsort(places[indices], kind="stable")]
        kinds = np.asarray(patterns)[order]
        self._members = [order[kinds == kind] for kind in np.unique(kinds)]
        self._n_seen = [
            n_visits(visits, kind, len(own))
            for kind, own in zip(np.unique(kinds), self._members, strict=True)
        ]
        self._blocks, self._seed, self._epoch = blocks, int(seed), 0
        n_windows = max(1, round(sum(self._n_seen) / blocks.window_cells))
        self._cuts = [
            np.round(np.linspace(0, n_seen, n_windows + 1)).astype(np.int64)
            for n_seen in self._n_seen
        ]
        sizes = np.sum([np.diff(cuts) for cuts in self._cuts], axis=0, dtype=np.int64)
        self._sizes = [
            batch_sizes(int(size), batch_size, drop_last=drop_last) for size in np.atleast_1d(sizes)
        ]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls this."""
        self._epoch = int(epoch)

    def __len__(self) -> int:
        """Number of minibatches."""
        return sum(len(sizes) for sizes in self._sizes)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield arrays of cells, int64."""
        for window in self.windows():
            yield from window

    def windows(self) -> Iterator[list[np.ndarray]]:
        """Minibatches of each window."""
        generator = np.random.default_rng([self._seed, self._epoch])
        shuffled = [
            passes(partial(self._in_blocks, members, generator), n_seen)
            for members, n_seen in zip(self._members, self._n_seen, strict=True)
        ]
        for number, sizes in enumerate(self._sizes):
            parts = [
                generator.permutation(cells[cuts[number] : cuts[number + 1]])
                for cells, cuts in zip(shuffled, self._cuts, strict=True)
            ]
            order = spread(parts, [generator.random() for _ in parts])
            if sizes:
                yield np.split(order[: sum(sizes)], np.cumsum(sizes)[:-1])

    def _in_blocks(self, members: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Cells of a pattern, their blocks in random order; the first block has a random length."""
        size = self._blocks.block_cells
        first = int(generator.integers(1, size + 1))
        starts = np.concatenate([[0], np.arange(first, max(len(members), 1), size)])
        lengths = np.diff(np.append(starts, len(members)))
        order = generator.permutation(len(starts))
        ends = np.cumsum(lengths[order])
        offsets = np.repeat(starts[order] - (ends - lengths[order]), lengths[order])
        return np.asarray(members[np.arange(len(members)) + offsets])


class StreamedLoader:
    """Minibatches whose rows a thread reads, a window ahead of those that are used.

    Parameters
    ----------
    dataset
        Data, some of them on disk.
    sampler
        Order of the cells.
    window_cells
        Cells read together where the sampler has no windows of its own.
    pin_memory
        Whether minibatches are copied to page-locked memory, for a GPU.
    """

    batch_sampler = None
    """Lightning asks every loader for one."""

    def __init__(
        self,
        dataset: MultiDataset,
        sampler: BlockBatchSampler | StratifiedBatchSampler,
        window_cells: int,
        *,
        pin_memory: bool = False,
    ) -> None:
        self.dataset, self.sampler = dataset, sampler
        self._window_cells, self._pin_memory = window_cells, pin_memory

    def __len__(self) -> int:
        """Number of minibatches."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[MultiBatch]:
        """Yield minibatches."""
        # torch's DataLoader draws a seed here; without, noise would differ from that in memory.
        torch.empty((), dtype=torch.int64).random_()
        groups = self._groups()
        with ThreadPoolExecutor(1, thread_name_prefix="mosaicvi-read") as pool:
            batches = next(groups, None)
            reading = None if batches is None else pool.submit(self._read, batches)
            while batches is not None and reading is not None:
                window, current = reading.result(), batches
                batches = next(groups, None)
                reading = None if batches is None else pool.submit(self._read, batches)
                for cells in current:
                    batch = self.dataset.fetch(cells, window=window)
                    yield batch.pin_memory() if self._pin_memory else batch

    def _read(self, batches: list[np.ndarray]) -> Window:
        return self.dataset.read(np.concatenate(batches))

    def _groups(self) -> Iterator[list[np.ndarray]]:
        if isinstance(self.sampler, BlockBatchSampler):
            yield from self.sampler.windows()
            return
        group: list[np.ndarray] = []
        for cells in self.sampler:
            if group and sum(map(len, group)) + len(cells) > self._window_cells:
                yield group
                group = []
            group.append(cells)
        if group:
            yield group
