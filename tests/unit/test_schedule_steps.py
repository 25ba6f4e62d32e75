"""The learning rate runs its whole course in the steps that the trainer takes."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
from tests.fits import build, fit, small_mosaic

EPOCHS, BATCH = 2, 20

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")


class _End(pl.Callback):
    """Steps planned and taken, and the last learning rate over the peak."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.planned, self.taken = pl_module.n_steps, trainer.global_step
        self.minibatches = EPOCHS * len(trainer.datamodule.train_dataloader())
        group = trainer.optimizers[0].param_groups[0]
        self.last = group["lr"] / group["max_lr"]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 10),
        ({"accumulate_grad_batches": 2}, 6),
        ({"limit_train_batches": 2}, 4),
        ({"max_steps": 7}, 7),
    ],
    ids=["plain", "accumulated", "part of the minibatches", "max_steps"],
)
def test_schedules_run_whole(options: dict[str, Any], steps: int) -> None:
    end = _End()
    model = build(small_mosaic(100, patterns={"rna+protein": 1.0}))
    fit(model, EPOCHS, BATCH, train_size=0.9, callbacks=[end], **options)
    assert end.minibatches == 10
    assert (end.planned, end.taken) == (steps, steps)
    # One step before the end, where it is next to nothing.
    assert end.last < 0.2


def test_accumulation_that_changes_keeps_the_planned_steps() -> None:
    end = _End()
    changing = pl.callbacks.GradientAccumulationScheduler(scheduling={0: 2, 1: 1})
    model = build(small_mosaic(100, patterns={"rna+protein": 1.0}))
    fit(model, EPOCHS, BATCH, train_size=0.9, callbacks=[end, changing])
    assert (end.planned, end.taken) == (10, 8)
