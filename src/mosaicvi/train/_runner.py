"""Run a fit on scvi-tools' trainer and say how it ended."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from scvi.train import Trainer

from mosaicvi._errors import MosaicviWarning, RequestError
from mosaicvi._settings import logger
from mosaicvi.train._average import WeightAverage
from mosaicvi.train._callbacks import KeepBest
from mosaicvi.train._threads import intra_op_threads, threads_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from mosaicvi.data import MosaicDataModule
    from mosaicvi.train._plan import MosaicTrainingPlan


@dataclass(frozen=True)
class FitResult:
    """How a fit went.

    Attributes
    ----------
    history
        Logged name to a DataFrame with one row an epoch.
    n_epochs
        Epochs completed.
    best_epoch
        Epoch (from 0) whose weights were kept; -1 where there was no validation.
    status
        ``"completed"``, ``"stopped early"`` or ``"interrupted"``.
    """

    history: dict[str, pd.DataFrame]
    n_epochs: int
    best_epoch: int
    status: str


def run_fit(
    plan: MosaicTrainingPlan,
    datamodule: MosaicDataModule,
    *,
    max_epochs: int,
    patience: int | None,
    accelerator: str,
    devices: int | str | list[int],
    **trainer_kwargs: Any,
) -> FitResult:
    """Fit, restore the weights that are kept, and leave the module in evaluation mode.

    A fit that fails, or is interrupted in its first epoch, leaves the weights as they were.

    Parameters
    ----------
    plan
        Training plan.
    datamodule
        Minibatches.
    max_epochs
        Epochs of the whole schedule.
    patience
        Validation passes without improvement after which training stops; None never stops.
    accelerator, devices
        As in :class:`~scvi.train.Trainer`.
    **trainer_kwargs
        Passed to :class:`~scvi.train.Trainer`.

    Raises
    ------
    RequestError
        If an argument is unknown.
    """
    keep = KeepBest(plan, patience)
    average = WeightAverage(plan.module, plan.optimizer_spec.averaging)
    # What is kept is the average, which takes the last step's weights back after it.
    own = [keep, average] if average.epochs else [keep]
    callbacks = [*own, *trainer_kwargs.pop("callbacks", [])]
    settings = {
        "check_val_every_n_epoch": 1,
        "gradient_clip_val": plan.optimizer_spec.gradient_norm,
        # Only means of an epoch are logged; Lightning warns where this is above an epoch's steps.
        "log_every_n_steps": 1,
        **trainer_kwargs,
    }
    with _quiet_lightning():
        try:
            trainer = Trainer(
                max_epochs=max_epochs,
                accelerator=accelerator,
                devices=devices,
                callbacks=callbacks,
                **settings,
            )
        except TypeError as error:
            if "unexpected keyword" not in str(error):
                raise
            raise RequestError(
                str(error),
                key="train",
                expected="an argument of train(), or of scvi.train.Trainer or Lightning's Trainer",
                remedy="train()'s documentation says how the learning rate is set, if it is that; "
                "in MosaicVI by plan_kwargs={'learning_rate': ...}",
            ) from error
    before = {name: value.detach().clone() for name, value in plan.module.state_dict().items()}
    # A module that was fitted or loaded is in evaluation mode, and Lightning leaves it there.
    plan.module.train()
    try:
        interrupted = _fitted(trainer, plan, datamodule)
        n_epochs = trainer.current_epoch
        if interrupted and n_epochs == 0:
            plan.module.load_state_dict(before)
        elif not keep.restore():
            average.swap()
    except BaseException:
        # Half a fit is no model: its answers would look like those of a whole one.
        plan.module.load_state_dict(before)
        raise
    finally:
        plan.module.eval()
        for parameter in plan.module.parameters():
            parameter.grad = None
    status = "interrupted" if interrupted else "stopped early" if keep.stopped else "completed"
    if interrupted and n_epochs == 0:
        warnings.warn(
            "training was interrupted before its first epoch ended; the model is as it was before. "
            "Remedy: call train() again.",
            MosaicviWarning,
            stacklevel=3,
        )
    elif interrupted:
        logger.warning(
            "Training was interrupted after %d of %d epochs; the model keeps the weights of epoch "
            "%d and can be used. Call train() again for a full fit.",
            n_epochs,
            max_epochs,
            keep.best_epoch + 1,
        )
    return FitResult(_history(trainer), n_epochs, keep.best_epoch, status)


def _fitted(trainer: Trainer, plan: MosaicTrainingPlan, datamodule: MosaicDataModule) -> bool:
    """Fit, and whether the user interrupted it."""
    try:
        with _quiet_lightning(), intra_op_threads(_threads(plan, datamodule, trainer)):
            trainer.fit(plan, datamodule=datamodule)
    except SystemExit:
        # Lightning turns Ctrl-C into sys.exit(1), which would end the user's notebook kernel.
        if not trainer.interrupted:
            raise
        return True
    return False


def _threads(
    plan: MosaicTrainingPlan, datamodule: MosaicDataModule, trainer: Trainer
) -> int | None:
    """Threads of torch for this fit; None leaves them as they are, as on an accelerator."""
    if plan.optimizer_spec.n_threads is not None:
        return plan.optimizer_spec.n_threads
    if trainer.strategy.root_device.type != "cpu":
        return None
    n_features = sum(int(each.measured.shape[1]) for each in plan.module.decoders.values())
    return threads_for(datamodule.batch_size * n_features, torch.get_num_threads())


def _history(trainer: Trainer) -> dict[str, pd.DataFrame]:
    recorded = getattr(trainer.logger, "history", None)
    return {name: frame.astype(float) for name, frame in (recorded or {}).items()}


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's tips and device lists out of the notebook; its warnings stay."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "pytorch_lightning")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning calls a function of torch that torch has deprecated.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            # No validation cells, as train_size=1 asks for.
            warnings.filterwarnings("ignore", message="Total length of .* is zero")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
