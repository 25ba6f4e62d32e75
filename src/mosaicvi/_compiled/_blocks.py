"""Work on blocks of rows, on as many threads as torch uses."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS_A_BLOCK = 64
"""Rows that are worked on in one go: sums over rows do not depend on the number of threads."""


def row_blocks(n_rows: int) -> list[tuple[int, int]]:
    """Runs of rows: the first one and the one after the last."""
    starts = range(0, n_rows, ROWS_A_BLOCK)
    return [(start, min(start + ROWS_A_BLOCK, n_rows)) for start in starts]


def each_block(blocks: list[tuple[int, int]], work: Callable[[int, tuple[int, int]], None]) -> None:
    """Call ``work`` with each block and its number."""
    n_threads = min(torch.get_num_threads(), len(blocks))
    if n_threads == 1:
        for number, rows in enumerate(blocks):
            work(number, rows)
        return
    list(_pool(os.getpid(), n_threads).map(work, range(len(blocks)), blocks))


@lru_cache(maxsize=8)
def _pool(process: int, n_threads: int) -> ThreadPoolExecutor:
    """Threads of a process: one that was forked has none of its parent's."""
    del process
    return ThreadPoolExecutor(n_threads)
