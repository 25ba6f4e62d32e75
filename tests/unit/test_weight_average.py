"""The running average of a network's weights, which validates and is kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from mosaicvi.train._average import WeightAverage


def stepped(weights: list[float], epochs: float, per_epoch: int) -> tuple[WeightAverage, Any]:
    """Show the callback a network whose single weight takes these values."""
    module = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(module, epochs)
    trainer: Any = SimpleNamespace(num_training_batches=per_epoch)
    for weight in weights:
        with torch.no_grad():
            module.weight.fill_(weight)
        average.on_train_batch_end(trainer)
    return average, module


def test_weights_of_the_window_are_averaged() -> None:
    """Against the recursion written out; half of the steps so far at the start."""
    weights = np.random.default_rng(0).normal(size=40).tolist()
    expected = weights[0]
    for step, weight in enumerate(weights[1:], 2):
        expected += (weight - expected) / max(1.0, min(2.0 * 5, step / 2))
    average, module = stepped(weights, 2.0, 5)
    average.on_validation_start()
    assert np.isclose(float(module.weight), expected, rtol=1e-6)


def test_noise_about_a_point_averages_out() -> None:
    weights = (3 + np.random.default_rng(1).normal(size=2000)).tolist()
    average, module = stepped(weights, 50.0, 10)
    average.on_validation_start()
    assert abs(float(module.weight) - 3) < 0.1


def test_training_goes_on_from_the_last_step() -> None:
    average, module = stepped([1.0, 2.0, 4.0, 0.1], 2.0, 2)
    last = module.weight.detach().clone()
    for _ in range(2):
        average.on_validation_start()
        assert not torch.equal(module.weight, last)
        average.on_validation_end()
        assert torch.equal(module.weight, last)


def test_before_a_step_there_is_no_average() -> None:
    average, module = stepped([], 2.0, 2)
    before = module.weight.detach().clone()
    average.on_validation_start()
    assert torch.equal(module.weight, before)
