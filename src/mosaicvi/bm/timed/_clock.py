"""Clocks: wall and processor time, read when the device has finished its work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback

from mosaicvi.bm._speed_input import Epoch, Lap

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


def now() -> Lap:
    """Seconds on the clock and of processor time, once a GPU has done what it was given."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return Lap(time.perf_counter(), time.process_time())


class EpochClock(Callback):
    """Times epochs of Lightning's trainer, validation apart.

    Attributes
    ----------
    epochs
        Every epoch so far.
    n_steps, n_cells
        Steps of an epoch, and cells of its training part.
    """

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []
        self.n_steps = self.n_cells = 0
        self._start = self._validation_start = Lap(0.0, 0.0)
        self._validation = Lap(0.0, 0.0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self._validation = Lap(0.0, 0.0)
        self.n_steps = int(trainer.num_training_batches)
        # Lightning does not declare it; scvi-tools' data modules and ours count their cells.
        self.n_cells = int(getattr(trainer, "datamodule").n_train)  # noqa: B009
        self._start = now()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start of the validation cells."""
        self._validation_start = now()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End of the validation cells."""
        self._validation = self._validation + (now() - self._validation_start)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End."""
        whole = now() - self._start
        self.epochs.append(Epoch(whole - self._validation, self._validation))

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}
