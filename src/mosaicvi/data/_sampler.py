"""The order in which cells are seen."""

from __future__ import annotations

import math
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

from mosaicvi._errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class StratifiedBatchSampler(Sampler[np.ndarray]):
    """Minibatches that each hold every presence pattern in proportion.

    The cells of a pattern are spread evenly over the epoch: cell i of n gets the place
    ``(i + u) / n`` with one random offset u a pattern, and places are sorted. A minibatch then has
    a pattern's share of cells to within about one cell.

    Parameters
    ----------
    patterns
        Presence pattern of every cell, int, shape ``(n_cells,)``.
    indices
        Cells to sample from.
    batch_size
        Cells a minibatch. Minibatches of an epoch are as equal in size as can be, so none is
        nearly empty; where one would hold a single cell, that cell joins another (which then has
        one cell more than ``batch_size``).
    shuffle
        Whether each epoch has an order of its own.
    seed
        Seed; with the epoch it decides the order.
    drop_last
        Whether every minibatch has exactly ``batch_size`` cells and the rest waits for another
        epoch.
    visits
        Pattern to how often each of its cells is seen an epoch, at least 1; None: once, all.
    """

    def __init__(
        self,
        patterns: np.ndarray,
        indices: np.ndarray,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        visits: Mapping[int, float] | None = None,
    ) -> None:
        self._indices = np.asarray(indices, dtype=np.int64)
        kinds = np.asarray(patterns)[self._indices]
        self._members = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
        self._n_seen = [
            n_visits(visits, kind, len(own))
            for kind, own in zip(np.unique(kinds), self._members, strict=True)
        ]
        self._sizes = batch_sizes(sum(self._n_seen), batch_size, drop_last=drop_last)
        self._shuffle, self._seed, self._epoch = shuffle, int(seed), 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls this."""
        self._epoch = int(epoch)

    def __len__(self) -> int:
        """Number of minibatches."""
        return len(self._sizes)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield arrays of cells, int64."""
        order = self._order()
        if not self._sizes:
            return
        yield from np.split(order[: sum(self._sizes)], np.cumsum(self._sizes)[:-1])

    def _order(self) -> np.ndarray:
        epoch = self._epoch if self._shuffle else 0
        generator = np.random.default_rng([self._seed, epoch])
        seen, places = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
        for members, n_seen in zip(self._members, self._n_seen, strict=True):
            offset = generator.random() if self._shuffle else 0.5
            order: Callable[[np.ndarray], np.ndarray] = (
                generator.permutation if self._shuffle else np.array
            )
            seen.append(passes(partial(order, members), n_seen))
            places.append(even_places(n_seen, offset))
        cells = np.concatenate(seen)
        return self._indices[cells[np.lexsort((cells, np.concatenate(places)))]]


class SequentialBatchSampler(Sampler[np.ndarray]):
    """Minibatches in the order given, for inference.

    Parameters
    ----------
    indices
        Cells, in the order wanted.
    batch_size
        Cells a minibatch; a single last cell joins the minibatch before it.
    """

    def __init__(self, indices: np.ndarray, batch_size: int) -> None:
        self._indices = np.asarray(indices, dtype=np.int64)
        _check_batch_size(batch_size)
        self._starts = list(range(0, len(self._indices), batch_size))
        if len(self._starts) > 1 and len(self._indices) - self._starts[-1] == 1:
            self._starts.pop()

    def __len__(self) -> int:
        """Number of minibatches."""
        return len(self._starts)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield arrays of cells, int64."""
        if self._starts:
            yield from np.split(self._indices, self._starts[1:])


def n_visits(visits: Mapping[int, float] | None, pattern: int, n_cells: int) -> int:
    """How many cells of a pattern an epoch shows, the same ones counted again."""
    return n_cells if visits is None else round(n_cells * max(1.0, visits.get(int(pattern), 1.0)))


def passes(shuffled: Callable[[], np.ndarray], n_seen: int) -> np.ndarray:
    """The first ``n_seen`` cells of passes over all of them, each in an order of its own."""
    parts = [shuffled()]
    while len(parts[0]) and sum(map(len, parts)) < n_seen:
        parts.append(shuffled())
    return np.asarray(np.concatenate(parts)[:n_seen])


def even_places(n_cells: int, offset: float) -> np.ndarray:
    """Places of some cells between 0 and 1, evenly apart."""
    return (np.arange(n_cells) + offset) / max(n_cells, 1)


def spread(parts: list[np.ndarray], offsets: list[float]) -> np.ndarray:
    """Mix sequences so that each is spread evenly over the whole."""
    places = [even_places(len(part), offset) for part, offset in zip(parts, offsets, strict=True)]
    return np.asarray(np.concatenate(parts)[np.argsort(np.concatenate(places), kind="stable")])


def _check_batch_size(batch_size: object) -> None:
    whole = isinstance(batch_size, Integral) and not isinstance(batch_size, bool)
    if not whole or batch_size < 1:  # type: ignore[operator]  # an Integral by now
        raise RequestError(
            f"found {batch_size!r}", key="batch_size", expected="a whole number, at least 1"
        )


def batch_sizes(n_cells: int, batch_size: int, *, drop_last: bool) -> list[int]:
    """Sizes of the minibatches of an epoch."""
    _check_batch_size(batch_size)
    if drop_last and n_cells >= batch_size:
        return [batch_size] * (n_cells // batch_size)
    n_batches = math.ceil(n_cells / batch_size)
    if n_batches > 1 and batch_size > 1 and n_cells // n_batches == 1:
        n_batches -= 1
    if n_batches == 0:
        return []
    small, larger = divmod(n_cells, n_batches)
    return [small + 1] * larger + [small] * (n_batches - larger)
