"""Threads of torch while a fit runs."""

from __future__ import annotations

import pytest
import torch

from mosaicvi.train._threads import ENTRIES_A_THREAD, intra_op_threads, threads_for


def test_small_steps_take_one_thread_and_large_ones_what_there_is() -> None:
    assert threads_for(0, 8) == 1
    assert threads_for(128 * 4014, 8) == 1
    assert threads_for(3 * ENTRIES_A_THREAD, 8) == 3
    assert threads_for(100 * ENTRIES_A_THREAD, 8) == 8
    assert threads_for(100 * ENTRIES_A_THREAD, 1) == 1


@pytest.mark.parametrize("n_threads", [None, 1, 2])
def test_the_users_number_comes_back_even_after_an_error(n_threads: int | None) -> None:
    before = torch.get_num_threads()
    inside = []

    def fit() -> None:
        with intra_op_threads(n_threads):
            inside.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fit()
    assert inside == [before if n_threads is None else n_threads]
    assert torch.get_num_threads() == before
