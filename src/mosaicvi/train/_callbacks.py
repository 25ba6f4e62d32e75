"""Keep the weights of the last epoch that validates as well as any, and stop when none does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as pl

from mosaicvi.train._plan import VALIDATION_TOTAL

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mosaicvi.train._plan import MosaicTrainingPlan

CLEARLY = 1.0
"""Standard errors by which an epoch must be worse than the best to be given up for it."""


class KeepBest(pl.Callback):
    """Remember the weights of the last epoch that is not clearly worse than the best.

    The objective is scored at end-of-schedule weights, so a warm-up cannot make an early epoch look
    good. The lowest of many noisy values is low by luck, and what comes later has the lower
    learning rate, so an epoch is given up for an earlier one only if the same cells lose clearly
    more: by :data:`CLEARLY` standard errors of the mean difference, cell by cell.

    Parameters
    ----------
    plan
        Plan that validates, of the network whose weights are kept.
    patience
        Validation passes without improvement after which training stops; None never stops. A pass
        that is better than the one before it, or not clearly worse than the best, does not count:
        at its peak the learning rate may be too high for what follows its fall to be judged.
    """

    def __init__(self, plan: MosaicTrainingPlan, patience: int | None) -> None:
        self.plan, self.module = plan, plan.module
        self.patience = patience
        self.best_value = float("inf")
        self.best_epoch = -1
        self.stopped = False
        self._state: dict[str, torch.Tensor] = {}
        self._best_cells: Tensor | None = None
        self._waited = 0
        self.last_value = float("inf")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare this epoch's validation objective with the best so far."""
        cells = self.plan.validated()
        metric = trainer.callback_metrics.get(VALIDATION_TOTAL)
        if metric is None or trainer.sanity_checking:
            return
        value, last = float(metric), self.last_value
        self.last_value = value
        best = value < self.best_value
        # Each process of a distributed fit has its own cells; they stop, and keep, together.
        if best or trainer.strategy.reduce_boolean_decision(self._as_good(value, cells)):
            self.best_epoch = trainer.current_epoch
            self._state = {
                name: tensor.detach().cpu().clone()
                for name, tensor in self.module.state_dict().items()
            }
        if best:
            self.best_value, self._best_cells = value, cells
            self._waited = 0
            return
        if self.best_epoch == trainer.current_epoch:
            return
        self._waited += not value < last  # NaN is no improvement
        if self.patience is not None and self._waited >= self.patience:
            self.stopped = True
            trainer.should_stop = True

    def _as_good(self, value: float, cells: Tensor | None) -> bool:
        """Whether a pass is not clearly worse than the best."""
        if cells is None or self._best_cells is None or len(cells) < 2:
            return False
        apart = (cells - self._best_cells).double()
        error = float(apart.std()) / len(apart) ** 0.5
        return bool(value - self.best_value <= CLEARLY * error)

    def restore(self) -> bool:
        """Put the best weights back; False, and nothing happens, where no pass validated."""
        if self._state:
            self.module.load_state_dict(self._state)
        return bool(self._state)
