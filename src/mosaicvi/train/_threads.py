"""How many threads of the processor a step is worth."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

ENTRIES_A_THREAD = 2_000_000
"""Cells of a minibatch times features that keep one thread busy."""


def threads_for(n_entries: int, available: int) -> int:
    """Threads for minibatches of so many cells x features: one for two million, at least one.

    torch splits each operation over all its threads, which then wait for each other, and a step
    consists of some thousand operations: on small steps the waiting costs more than is gained, and
    a thread that waits keeps its core busy (docs/developer/profile.md). The number depends on the
    model and the minibatch alone, up to what torch would use, so that a fit on an idle machine
    repeats on a busy one.
    """
    return max(1, min(available, n_entries // ENTRIES_A_THREAD))


@contextmanager
def intra_op_threads(n_threads: int | None) -> Iterator[None]:
    """Run with torch's operations on so many threads, then as before; None changes nothing."""
    before = torch.get_num_threads()
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
