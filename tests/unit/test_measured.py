"""What is remembered of a table is forgotten when the table changes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from anndata import AnnData
from tests.helpers import make_mudata
from torch import Tensor

from mosaicvi.data import build_manager
from mosaicvi.model._inputs import measured_table
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


@pytest.mark.parametrize("likelihood", ["normal", "beta_binomial"])
def test_missing_in_a_whole_batch_is_unmeasured_there(likelihood: str) -> None:
    values = np.random.default_rng(0).poisson(3, (20, 4)).astype(np.float32)
    batch = np.repeat(["a", "b"], 10)
    values[batch == "a", 1] = values[:, 3] = np.nan
    values[0, 2] = np.nan
    part = AnnData(np.nan_to_num(values) if likelihood == "beta_binomial" else values)
    part.obs["batch"] = batch
    if likelihood == "beta_binomial":
        part.layers["methylated"] = part.X
        part.layers["coverage"] = np.where(np.isnan(values), 0, values + 1)
    mdata = make_mudata({"own": part})
    data = build_manager(mdata, {"own": likelihood}, batch_key="batch").data
    found = measured_table(data.modalities["own"], 2)
    assert found.tolist() == [[True, False, True, False], [True, True, True, False]]
