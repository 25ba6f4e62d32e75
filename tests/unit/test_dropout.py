from __future__ import annotations

import pytest
import torch

from mosaicvi import RequestError
from mosaicvi.nn._dropout import Dropout


def test_drops_the_share_asked_for_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = Dropout(0.35)
    out = layer(torch.ones(1000, 333))
    dropped = (out == 0).float()
    # 333,000 entries: a standard error of .0008
    assert float(dropped.mean()) == pytest.approx(0.35, abs=0.004)
    assert float(out.mean()) == pytest.approx(1.0, abs=0.007)
    assert out[out > 0].unique().numel() == 1


def test_entries_are_dropped_independently() -> None:
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(4000, 64)) > 0).double()
    # Entries of one random word are neighbours: look at all pairs of columns.
    correlation = torch.corrcoef(kept.T) - torch.eye(64)
    assert float(correlation.abs().max()) < 5.5 / 4000**0.5
    together = torch.corrcoef(kept[:2000].reshape(2, -1))[0, 1]
    assert abs(float(together)) < 5 / 64_000**0.5


def test_gradient_passes_where_the_entry_passed() -> None:
    x = torch.ones(50, 7, requires_grad=True)
    out = Dropout(0.3)(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())


def test_same_seed_same_mask_and_nothing_in_evaluation() -> None:
    layer, x = Dropout(0.4), torch.ones(3, 5)
    torch.manual_seed(2)
    first = layer(x)
    torch.manual_seed(2)
    torch.testing.assert_close(layer(x), first, rtol=0, atol=0)
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_any_shape_and_dtype() -> None:
    layer = Dropout(0.5)
    for shape in ((1,), (3, 1, 2), (0, 4)):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            out = layer(torch.ones(shape, dtype=dtype))
            assert out.shape == shape
            assert out.dtype == dtype


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(RequestError, match=r"'dropout_rate'.*from 0 to below 1"):
        Dropout(rate)
