"""Keep the weights that validate best, and stop when they stop getting better."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as pl

from mosaicvi.train._plan import VALIDATION_TOTAL

if TYPE_CHECKING:
    import torch


class KeepBest(pl.Callback):
    """Remember the weights of the best validation objective; optionally stop early.

    The objective is scored at end-of-schedule weights, so a warm-up cannot make an early epoch look
    good.

    Parameters
    ----------
    module
        Network whose weights are kept.
    patience
        Validation passes without improvement after which training stops; None never stops. A pass
        that is better than the one before it does not count: at its peak the learning rate may be
        too high for what follows its fall to be judged.
    """

    def __init__(self, module: torch.nn.Module, patience: int | None) -> None:
        self.module = module
        self.patience = patience
        self.best_value = float("inf")
        self.best_epoch = -1
        self.stopped = False
        self._state: dict[str, torch.Tensor] = {}
        self._waited = 0
        self._last = float("inf")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare this epoch's validation objective with the best so far."""
        metric = trainer.callback_metrics.get(VALIDATION_TOTAL)
        if metric is None or trainer.sanity_checking:
            return
        value, last = float(metric), self._last
        self._last = value
        if value < self.best_value:
            self.best_value, self.best_epoch = value, trainer.current_epoch
            self._state = {
                name: tensor.detach().cpu().clone()
                for name, tensor in self.module.state_dict().items()
            }
            self._waited = 0
            return
        self._waited += not value < last  # NaN is no improvement
        if self.patience is not None and self._waited >= self.patience:
            self.stopped = True
            trainer.should_stop = True

    def restore(self) -> None:
        """Put the best weights back; nothing happens when no validation pass was made."""
        if self._state:
            self.module.load_state_dict(self._state)
