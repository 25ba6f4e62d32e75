"""What is remembered of a table is forgotten when the table changes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from mosaicvi.nn._batch_offsets import BatchOffsets
from mosaicvi.nn._measured import Measured, Remembered


def test_measured() -> None:
    table = torch.tensor([[True, False, True], [False, False, False], [True, False, False]])
    found = Measured.of(table)
    assert found.present is table
    assert found.panels is not None
    assert found.panels.tolist() == [[True, False, True], [True] * 3, [True, False, False]]
    assert found.counts.tolist() == [2, 1, 1]
    assert found.degrees.tolist() == [1, 0, 0]
    complete = Measured.of(torch.ones(2, 3, dtype=torch.bool))
    assert complete.present is None
    assert complete.panels is None


def test_remembered_until_written_to_or_replaced() -> None:
    calls = []

    def total(x: Tensor) -> float:
        calls.append(1)
        return float(x.sum())

    remembered, x = Remembered(total), torch.ones(3)
    assert [remembered(x), remembered(x)] == [3, 3]
    assert len(calls) == 1
    x[0] = 5
    assert remembered(x) == 7
    assert remembered(x.clone()) == 7
    assert len(calls) == 3
    with torch.inference_mode():
        y = torch.ones(2)
        assert remembered(y) == 2
        y[0] = 2
        assert remembered(y) == 3


def test_offsets_follow_a_loaded_table() -> None:
    """Loading writes into the buffer: what was known of the old table must go."""
    full, part = torch.ones(2, 3, dtype=torch.bool), torch.tensor([[True] * 3, [False] * 3])
    old, new = (
        BatchOffsets(2, 3, measured=each, prior_scale=1.0, prior_weight=1.0)
        for each in (full, part)
    )
    new.raw.data = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    old.table()
    twin = copy.deepcopy(old)
    for each in (old, twin):
        each.load_state_dict(new.state_dict())
        torch.testing.assert_close(each.table(), new.table())
        assert each.table()[1].tolist() == [0, 0, 0]
        torch.testing.assert_close(each.negative_log_prior(), new.negative_log_prior())
