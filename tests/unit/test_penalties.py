"""Priors with gradients in closed form against autograd."""

from __future__ import annotations

import torch

from mosaicvi.nn._batch_offsets import BatchOffsets
from mosaicvi.nn._penalties import half_squares


def test_half_squares() -> None:
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    value = half_squares(x.T)
    (3 * value).backward()
    assert x.grad is not None
    torch.testing.assert_close(value, 0.5 * x.square().sum())
    torch.testing.assert_close(x.grad, 3 * x.detach())


def test_student_prior_of_offsets_that_some_batches_lack() -> None:
    generator = torch.Generator().manual_seed(1)
    measured = torch.rand(4, 30, generator=generator) < 0.7
    measured[:, 0], measured[:, 1] = False, True
    for mask in (measured, torch.ones_like(measured)):
        offsets = BatchOffsets(4, 30, measured=mask, prior_scale=0.4, prior_weight=5.0)
        offsets.raw.data = torch.randn(4, 30, generator=generator)
        (2 * offsets.negative_log_prior()).backward()
        raw = offsets.raw.detach().clone().requires_grad_()
        present = mask.float()
        centred = (raw - (raw * present).sum(0) / present.sum(0).clamp_min(1)) * present
        degrees = 5.0 + (present.sum(0) - 1).clamp_min(0)
        expected = 0.5 * degrees * torch.log1p(centred.square().sum(0) / (5.0 * 0.4**2))
        (2 * expected.sum()).backward()
        torch.testing.assert_close(offsets.negative_log_prior(), expected.sum())
        torch.testing.assert_close(offsets.raw.grad, raw.grad, rtol=1e-4, atol=1e-6)


def test_student_prior_written_with_tensors_as_on_accelerators() -> None:
    """Double precision takes the path of tensors, single precision the compiled one."""
    generator = torch.Generator().manual_seed(3)
    raw = torch.randn(12, 700, generator=generator)
    for measured in (torch.rand(12, 700, generator=generator) < 0.6, torch.ones(12, 700) > 0):
        found = []
        for dtype in (torch.float32, torch.float64):
            offsets = BatchOffsets(12, 700, measured=measured, prior_scale=0.4, prior_weight=5.0)
            offsets.to(dtype).raw.data = raw.to(dtype)
            value = offsets.negative_log_prior()
            value.backward()
            assert value.dtype == dtype
            found.append((value.detach().double(), offsets.raw.grad))
        (value, gradient), (expected, slope) = found
        assert gradient is not None
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient.double(), slope, rtol=1e-5, atol=1e-6)


def test_table_of_some_features() -> None:
    generator = torch.Generator().manual_seed(2)
    measured = torch.rand(3, 12, generator=generator) < 0.6
    for mask in (measured, torch.ones_like(measured)):
        offsets = BatchOffsets(3, 12, measured=mask, prior_scale=1.0, prior_weight=1.0)
        offsets.raw.data = torch.randn(3, 12, generator=generator)
        features = torch.tensor([1, 4, 11])
        torch.testing.assert_close(offsets.table(features), offsets.table()[:, features])
