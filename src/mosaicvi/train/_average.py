"""Validate, and keep, the running average of the weights instead of the last step's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

if TYPE_CHECKING:
    from torch import Tensor, nn


class WeightAverage(pl.Callback):
    """Exponential moving average of a network's weights (Polyak and Juditsky 1992).

    Few cells overfit while the learning rate is at its peak, where single steps are noisy: weights
    that are kept from there need the average, which does what the fall of the rate does for fits
    that come to their end. The average takes the weights' place while a pass validates.

    Parameters
    ----------
    module
        The network.
    epochs
        Epochs over which weights are averaged, never more than half of the steps so far.
    """

    def __init__(self, module: nn.Module, epochs: float) -> None:
        self.module, self.epochs = module, epochs
        self._average: list[Tensor] = []
        self._steps = 0

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Take up the weights of a step."""
        weights = list(self.module.parameters())
        self._steps += 1
        if not self._average:
            self._average = [each.detach().clone() for each in weights]
            return
        window = max(1.0, min(self.epochs * trainer.num_training_batches, self._steps / 2))
        get_ema_multi_avg_fn(1 - 1 / window)(self._average, weights, self._steps)

    def on_validation_start(self, *_: Any) -> None:
        """Put the average in place."""
        self.swap()

    def on_validation_end(self, *_: Any) -> None:
        """Go on from the weights of the last step."""
        self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and average; nothing happens before the first step."""
        for own, average in zip(self.module.parameters(), self._average, strict=False):
            last = own.detach().clone()
            own.copy_(average)
            average.copy_(last)
