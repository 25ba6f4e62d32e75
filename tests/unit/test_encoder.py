"""The encoder emits a proper Gaussian expert."""

from __future__ import annotations

import pytest
import torch

from mosaicvi.nn._encoder import LOG_PRECISION_RANGE, Encoder


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(6, 4, n_hidden=16, n_layers=2, dropout=0.2).eval()


def test_shapes_and_bounds(encoder: Encoder) -> None:
    mean, variance = encoder(torch.randn(9, 6))
    assert mean.shape == variance.shape == (9, 4)
    low, high = LOG_PRECISION_RANGE
    extreme = encoder(1e6 * torch.randn(50, 6))
    assert torch.isfinite(extreme[0]).all()
    bounds = torch.tensor([-high, -low]).exp()
    assert ((extreme[1] >= bounds[0] * 0.999) & (extreme[1] <= bounds[1] * 1.001)).all()


def test_cells_do_not_influence_each_other(encoder: Encoder) -> None:
    """No batch statistics: a cell alone, and in training, is encoded as in company."""
    inputs = torch.randn(8, 6)
    torch.testing.assert_close(encoder(inputs[:1])[0], encoder(inputs)[0][:1])
    undropped = Encoder(6, 4, n_hidden=16, n_layers=2, dropout=0.0)
    torch.testing.assert_close(undropped.train()(inputs[:1])[0], undropped(inputs)[0][:1])


def test_dropout_in_training_only(encoder: Encoder) -> None:
    inputs = torch.randn(8, 6)
    assert torch.equal(encoder(inputs)[0], encoder(inputs)[0])
    encoder.train()
    assert not torch.equal(encoder(inputs)[0], encoder(inputs)[0])


def test_without_hidden_layers_it_is_linear() -> None:
    encoder = Encoder(3, 2, n_hidden=8, n_layers=0, dropout=0.0)
    left, right = torch.randn(2, 5, 3)
    total = encoder(left + right)[0] + encoder(torch.zeros(5, 3))[0]
    torch.testing.assert_close(total, encoder(left)[0] + encoder(right)[0])
