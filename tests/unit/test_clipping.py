"""Gradients are clipped as torch clips them, and left alone where they are within bounds."""

from __future__ import annotations

import pytest
import torch

from mosaicvi.train._plan import _clip


def parameters(scale: float) -> list[torch.nn.Parameter]:
    """Three with gradients, one without."""
    generator = torch.Generator().manual_seed(0)
    found = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 40, 7, 5)]
    for each in found[:3]:
        each.grad = scale * torch.randn(each.shape, generator=generator)
    return found


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, float("nan")])
def test_clipping_is_that_of_torch(scale: float) -> None:
    ours, theirs = parameters(scale), parameters(scale)
    _clip(ours, 2.0)
    torch.nn.utils.clip_grad_norm_(theirs, 2.0)
    for mine, other in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=0, equal_nan=True)
    assert ours[3].grad is None


def test_nothing_to_clip() -> None:
    _clip([], 1.0)
    _clip([torch.nn.Parameter(torch.zeros(2))], 1.0)
