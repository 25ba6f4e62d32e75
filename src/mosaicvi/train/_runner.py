"""Run a fit on scvi-tools' trainer and say how it ended."""

from __future__ import annotations

import logging
import math
import signal
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mosaicvi._errors import MosaicviWarning, RequestError
from mosaicvi._scvi import Trainer, parse_device_args
from mosaicvi._settings import logger
from mosaicvi.train._average import WeightAverage
from mosaicvi.train._callbacks import KeepBest
from mosaicvi.train._threads import intra_op_threads, threads_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from mosaicvi.data import MosaicDataModule
    from mosaicvi.train._plan import MosaicTrainingPlan


PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
"""Values, and what follows from them, are single precision; networks may compute in less."""


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

    history: dict[str, pd.DataFrame] = field(repr=False)
    n_epochs: int
    best_epoch: int
    status: str


def run_fit(
    plan: MosaicTrainingPlan,
    datamodule: MosaicDataModule,
    *,
    max_epochs: int,
    patience: int | None,
    trainer_kwargs: Mapping[str, Any],
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
    trainer_kwargs
        Passed to :class:`~scvi.train.Trainer`, ``accelerator`` and ``devices`` among them.

    Raises
    ------
    RequestError
        If an argument is unknown or has no meaning here, or weights become infinite or NaN.
    """
    _check(trainer_kwargs)
    keep = KeepBest(plan, patience)
    average = WeightAverage(plan.module, plan.optimizer_spec.averaging)
    # What is kept is the average, which takes the last step's weights back after it.
    own = [keep, average] if average.epochs else [keep]
    given = callbacks_of(trainer_kwargs)
    for each in given:
        if isinstance(each, Checkpoint):
            raise RequestError(
                f"{type(each).__name__} writes checkpoints, which would be pickled",
                key="callbacks",
                remedy="leave it out, and call save() after train(): the best epoch is kept anyway",
            )
    settings: dict[str, Any] = {
        "check_val_every_n_epoch": 1,
        "gradient_clip_val": plan.optimizer_spec.gradient_norm,
        # Only means of an epoch are logged; Lightning warns where this is above an epoch's steps.
        "log_every_n_steps": 1,
        **trainer_kwargs,
        "max_epochs": int(max_epochs),  # Lightning takes no number of numpy
        "callbacks": [*own, *given],
    }
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        # Else SIGUSR1 writes a pickled checkpoint, and Lightning has the job put back in the queue.
        settings.setdefault("plugins", [SLURMEnvironment(auto_requeue=False)])
    with _quiet_lightning():
        # As scvi-tools' own fits: without being asked, one GPU and not all, and none of Apple's,
        # which lack operations that densities need.
        settings["accelerator"], settings["devices"], _ = parse_device_args(
            settings["accelerator"], settings["devices"], return_device="torch"
        )
        try:
            trainer = Trainer(**settings)
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
    if trainer.precision not in PRECISIONS:
        raise RequestError(
            f"found {trainer.precision!r}",
            key="precision",
            expected="one of " + ", ".join(map(repr, PRECISIONS)),
            remedy="leave it out: single precision is the default",
        )
    _check_folder(trainer)
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
        if not all(bool(each.isfinite().all()) for each in plan.module.parameters()):
            raise RequestError(
                "the fit diverged: its weights are infinite or no numbers. The model is as it was "
                "before",
                key="train",
                remedy="lower the learning rate, plan_kwargs={'learning_rate': ...}, and look for "
                "extreme values in the data",
            )
    except BaseException:
        # Half a fit is no model: its answers would look like those of a whole one.
        plan.module.load_state_dict(before)
        raise
    finally:
        plan.module.eval()
        for parameter in plan.module.parameters():
            parameter.grad = None
    if math.isnan(keep.last_value):
        kept = f"epoch {keep.best_epoch + 1}" if keep.best_epoch >= 0 else "its last steps"
        warnings.warn(
            "the fit diverged: the validation objective of its last epoch is no number; the model "
            f"keeps the weights of {kept}. Remedy: lower the learning rate, "
            "plan_kwargs={'learning_rate': ...}, and look for extreme values in the data.",
            MosaicviWarning,
            stacklevel=3,
        )
    # A limit of time or steps stops a fit as well as a wait for an improvement does.
    early = keep.stopped or n_epochs < (trainer.max_epochs or max_epochs)
    status = "interrupted" if interrupted else "stopped early" if early else "completed"
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


def callbacks_of(trainer_kwargs: Mapping[str, Any]) -> list[Callback]:
    """Callbacks that the user gave: one, several or none."""
    given = trainer_kwargs.get("callbacks") or []
    return [given] if isinstance(given, Callback) else list(given)


def _fitted(trainer: Trainer, plan: MosaicTrainingPlan, datamodule: MosaicDataModule) -> bool:
    """Fit, and whether the user interrupted it."""
    try:
        with _quiet_lightning(), intra_op_threads(_threads(plan, datamodule, trainer)):
            trainer.fit(plan, datamodule=datamodule)
    except SystemExit as ended:
        # Lightning turns Ctrl-C into sys.exit(1), which would end the user's notebook kernel.
        if isinstance(ended.__context__, KeyboardInterrupt):
            return True
        # What else is to end the process ends it, as SIGTERM of a batch system does: a script that
        # went on would save and use half a fit.
        if isinstance(ended, SIGTERMException):
            ended.code = 128 + signal.SIGTERM  # else 0, as of a script that is done
        raise
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
    # Where nothing is recorded, as in further processes of a distributed fit and with
    # fast_dev_run, whatever a logger is asked for is a function.
    if not isinstance(recorded, Mapping):
        return {}
    return {name: frame.astype(float) for name, frame in recorded.items()}


def _check(trainer_kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments of scvi-tools' trainer that would do nothing, or fail at the first epoch."""
    for key in trainer_kwargs:
        if key.startswith("early_stopping_"):
            raise RequestError(
                f"found {trainer_kwargs[key]!r}",
                key=key,
                expected="early_stopping=True or False alone",
                remedy="leave it out: how long a fit waits for an improvement of the validation "
                "objective follows from max_epochs",
            )
    strategy = trainer_kwargs.get("strategy")
    if isinstance(strategy, str) and any(way in strategy for way in ("spawn", "fork", "notebook")):
        raise RequestError(
            f"found {strategy!r}: its processes fit copies of the model, which end with them",
            key="strategy",
            expected="'ddp', in a script, or none",
            remedy="leave it out: one device is the default",
        )
    if trainer_kwargs.get("enable_checkpointing"):
        raise RequestError(
            "checkpoints are not written",
            key="enable_checkpointing",
            remedy="leave it out, and call save() after train(): the best epoch is kept anyway",
        )


def _check_folder(trainer: Trainer) -> None:
    """Refuse a folder from whose checkpoint Lightning would go on, without a word, under SLURM."""
    if not SLURMEnvironment.detect():
        return
    found = sorted(Path(trainer.default_root_dir).glob("hpc_ckpt_*"))
    if found:
        raise RequestError(
            f"{found[0]} is there, with whose weights Lightning starts any fit of a SLURM job",
            key="default_root_dir",
            expected="a folder without checkpoints of fits that SLURM stopped",
            remedy="remove the file, or pass train(default_root_dir=) another folder",
        )


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
