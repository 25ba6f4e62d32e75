"""What a fit is asked for: devices, precision, and arguments of the trainer."""

from __future__ import annotations

import math
import os
import signal
import sys
import warnings
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.accelerators import MPSAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint
from scvi.train import SaveCheckpoint

from mosaicvi import FactorVI, MosaicVI
from mosaicvi._errors import MosaicviWarning, RequestError
from mosaicvi.datasets import SimulatedModality, simulate
from mosaicvi.module import ObjectiveSpec
from mosaicvi.train import OptimizerSpec, _runner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def model() -> MosaicVI:
    parts = {
        "rna": SimulatedModality.rna(20, likelihood="nb"),
        "protein": SimulatedModality.protein(5),
    }
    mdata = simulate(80, parts, seed=1)
    MosaicVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    return MosaicVI(mdata, n_latent=3, n_hidden=8)


def fit(model: MosaicVI, **options: Any) -> Any:
    given = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
    return model.train(**{**given, **options})


class LosesItself(pl.Callback):
    """Makes weights NaN at an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, plan: Any) -> None:
        if trainer.current_epoch == self.epoch:
            with torch.no_grad():
                next(plan.module.parameters()).fill_(math.nan)


class AskedForError(Exception):
    """What the trainer was asked for."""


def asked(monkeypatch: pytest.MonkeyPatch, model: MosaicVI, **options: Any) -> dict[str, Any]:
    """Arguments with which a fit makes its trainer."""

    def trainer(**arguments: Any) -> None:
        raise AskedForError(arguments)

    monkeypatch.setattr(_runner, "Trainer", trainer)
    with pytest.raises(AskedForError) as found:
        fit(model, **options)
    return dict(found.value.args[0])


@pytest.mark.parametrize(
    ("devices", "expected"), [("auto", [0]), ([1], [1]), (2, [0, 1]), ([0, 1], [0, 1])]
)
def test_of_several_gpus_one_is_taken_unless_more_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, model: MosaicVI, devices: Any, expected: Any
) -> None:
    for place in ("lightning.pytorch.accelerators.cuda", "lightning.fabric.accelerators.cuda"):
        monkeypatch.setattr(f"{place}.num_cuda_devices", lambda: 2)
    found = asked(monkeypatch, model, accelerator="auto", devices=devices)
    assert found["accelerator"] == "cuda"
    assert found["devices"] == expected


def test_apples_gpu_is_not_taken_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, model: MosaicVI
) -> None:
    monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*mps.*", category=UserWarning)
        assert asked(monkeypatch, model, accelerator="auto")["accelerator"] == "cpu"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("precision", "64-true"),
        ("precision", "bf16-true"),
        ("early_stopping_patience", 3),
        ("enable_checkpointing", True),
    ],
)
def test_arguments_of_the_trainer_that_mean_nothing_here(
    model: MosaicVI, key: str, value: Any
) -> None:
    before = {name: each.clone() for name, each in model.module.state_dict().items()}
    with pytest.raises(RequestError, match=f"key '{key}'.*Remedy"):
        fit(model, **{key: value})
    assert all(torch.equal(before[name], e) for name, e in model.module.state_dict().items())
    assert not model.is_trained_


def test_a_trial_run_of_one_step_has_no_history(model: MosaicVI) -> None:
    result = fit(model, fast_dev_run=True)
    assert result.history == {}


@pytest.mark.parametrize("train_size", [0.9, 1.0])
def test_a_fit_that_diverges_leaves_the_model_as_it_was(model: MosaicVI, train_size: float) -> None:
    before = {name: each.clone() for name, each in model.module.state_dict().items()}
    with pytest.raises(RequestError, match=r"the fit diverged.*learning rate"):
        fit(model, max_epochs=3, train_size=train_size, callbacks=[LosesItself(0)])
    assert all(torch.equal(before[name], e) for name, e in model.module.state_dict().items())
    assert not model.is_trained_


def test_a_fit_that_diverges_after_an_epoch_says_which_it_keeps(model: MosaicVI) -> None:
    with pytest.warns(MosaicviWarning, match=r"diverged.* keeps the weights of epoch 1"):
        result = fit(model, max_epochs=2, callbacks=[LosesItself(1)])
    assert result.best_epoch == 0
    assert np.isfinite(model.get_latent_representation()).all()


def test_callbacks_are_one_several_or_none(model: MosaicVI) -> None:
    class Counts(pl.Callback):
        n = 0

        def on_train_epoch_start(self, *_: Any) -> None:
            self.n += 1

    counts = Counts()
    for given in (counts, [counts], (counts,), None):
        fit(model, callbacks=given)
    assert counts.n == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kl_weight", -1.0),
        ("cross_weight", math.nan),
        ("graph_weight", "1"),
        ("warmup", 10),
        ("n_cross_samples", 0),
        ("n_cross_samples", 2.5),
        ("decoded_features", 0),
        ("decoded_features", {"rna": 2.5}),
        ("modality_weights", 2.0),
        ("modality_weights", {"rna": -1.0}),
        ("temperature_range", (1.0, 0.05)),
        ("temperature_range", (0.0, 0.0)),
        ("learning_rate", math.inf),
        ("weight_decay", -0.1),
        ("rise", 2.0),
        ("feature_rate", -1.0),
        ("feature_rate", {"rna": math.nan}),
        ("gradient_norm", -1.0),
        ("n_threads", 0),
    ],
)
def test_numbers_with_which_no_fit_comes_anywhere(key: str, value: Any) -> None:
    names = {each.name for each in fields(ObjectiveSpec)}
    with pytest.raises(RequestError, match=f"key '{key}': found .*Expected"):
        (ObjectiveSpec if key in names else OptimizerSpec)(**{key: value})


def test_bounds_and_numbers_of_numpy_are_taken(model: MosaicVI) -> None:
    ObjectiveSpec(kl_weight=0, warmup=0, modality_weights={"rna": np.float32(0)})
    OptimizerSpec(gradient_norm=None, rise=0, feature_rate=0)
    given = {"decoded_features": np.int64(10), "n_cross_samples": np.int64(2), "warmup": 1}
    assert fit(model, plan_kwargs=given).status == "completed"


def test_a_limit_of_steps_stops_a_fit_early(model: MosaicVI) -> None:
    result = fit(model, max_epochs=50, max_steps=2)
    assert result.n_epochs < 50
    assert result.status == "stopped early"


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_processes_that_fit_copies_are_refused(model: MosaicVI, strategy: str) -> None:
    with pytest.raises(RequestError, match="strategy"):
        fit(model, strategy=strategy, devices=2)


@pytest.mark.parametrize("kind", [SaveCheckpoint, ModelCheckpoint])
def test_callbacks_that_write_checkpoints_are_refused_by_name(
    model: MosaicVI, tmp_path: Path, kind: type[pl.Callback]
) -> None:
    callback = kind(dirpath=str(tmp_path / "fits"), monitor="validation_loss")
    for given in (callback, [callback]):
        with pytest.raises(RequestError, match=rf"key 'callbacks'.*{kind.__name__}.*save\(\)"):
            fit(model, callbacks=given)
    assert not model.is_trained_


def test_how_a_fit_went_is_one_line(model: MosaicVI) -> None:
    """A notebook shows what the last line of a cell returns; tables of history are asked for."""
    result = fit(model)
    assert repr(result) == "FitResult(n_epochs=1, best_epoch=0, status='completed')"
    assert "train_loss" in result.history


def test_the_progress_bar_shows_the_losses(model: MosaicVI) -> None:
    """As in scvi-tools; once an epoch, so that no step waits for them."""
    shown = []

    class Looks(pl.Callback):
        def on_train_end(self, trainer: pl.Trainer, plan: Any) -> None:
            shown.append(dict(trainer.progress_bar_metrics))

    fit(model, callbacks=Looks())
    history = {name: table.iloc[-1, 0] for name, table in model.history.items()}
    assert {"train_loss", "validation_loss"} <= shown[0].keys()
    for name in ("train_loss", "validation_loss"):
        assert shown[0][name] == pytest.approx(history[name])


class Does(pl.Callback):
    """Calls something as the second epoch starts."""

    def __init__(self, what: Callable[[], Any]) -> None:
        self.what = what

    def on_train_epoch_start(self, trainer: pl.Trainer, plan: Any) -> None:
        if trainer.current_epoch == 1:
            self.what()


@pytest.mark.parametrize("kind", [MosaicVI, FactorVI])
@pytest.mark.parametrize(
    ("way", "code"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 128 + signal.SIGTERM),
        (lambda: sys.exit(3), 3),
    ],
)
def test_what_is_to_end_the_process_ends_it(
    model: MosaicVI, kind: type[MosaicVI | FactorVI], way: Callable[[], Any], code: int
) -> None:
    """A script that a batch system stops would else go on, and save half a fit."""
    if kind is FactorVI:
        FactorVI.setup_mudata(model.adata, {"rna": "nb", "protein": "nb_mixture"})
        model = FactorVI(model.adata, n_factors=2)
    before = {name: each.clone() for name, each in model.module.state_dict().items()}
    with pytest.raises(SystemExit) as ended:
        fit(model, max_epochs=3, callbacks=Does(way))
    assert ended.value.code == code
    assert all(torch.equal(before[name], e) for name, e in model.module.state_dict().items())
    assert not model.is_trained_


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in which a job of SLURM fits."""
    given = {"NTASKS": 1, "NTASKS_PER_NODE": 1, "JOB_ID": 7, "JOB_NAME": "fit", "PROCID": 0}
    for name, value in {**given, "LOCALID": 0, "NODEID": 0, "NNODES": 1}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setattr("scvi.settings.logging_dir", str(tmp_path))
    return tmp_path


def test_a_job_of_slurm_writes_no_checkpoint(slurm: Path, model: MosaicVI) -> None:
    found = []
    fit(model, max_epochs=2, callbacks=Does(lambda: found.append(signal.getsignal(signal.SIGUSR1))))
    assert found == [signal.SIG_DFL]
    assert not list(slurm.iterdir())


def test_a_job_of_slurm_starts_from_no_checkpoint(
    slurm: Path, model: MosaicVI, tmp_path: Path
) -> None:
    """Lightning reads weights of whatever fit was stopped in the folder, without being asked."""
    (slurm / "hpc_ckpt_1.ckpt").write_bytes(b"weights of another model")
    with pytest.raises(RequestError, match=r"default_root_dir.*hpc_ckpt_1\.ckpt.*remove the file"):
        fit(model)
    assert not model.is_trained_
    assert fit(model, default_root_dir=str(tmp_path / "own")).status == "completed"


def test_epochs_may_be_a_number_of_numpy(model: MosaicVI) -> None:
    assert fit(model, max_epochs=np.int64(2)).n_epochs == 2


@pytest.mark.parametrize("key", ["patience", "datamodule", "plan", "epochs", "module"])
@pytest.mark.parametrize("kind", [MosaicVI, FactorVI])
def test_arguments_that_no_trainer_takes(
    model: MosaicVI, kind: type[MosaicVI | FactorVI], key: str
) -> None:
    if kind is FactorVI:
        FactorVI.setup_mudata(model.adata, {"rna": "nb", "protein": "nb_mixture"})
        model = FactorVI(model.adata, n_factors=2)
    with pytest.raises(RequestError, match=f"unexpected keyword argument '{key}'.*Expected"):
        fit(model, **{key: 3})


def test_callbacks_see_each_restart_anew(model: MosaicVI) -> None:
    """One that stopped the first fit had stopped all others after an epoch."""
    epochs = []

    class Counts(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, plan: Any) -> None:
            epochs.append(trainer.current_epoch)

    FactorVI.setup_mudata(model.adata, {"rna": "nb", "protein": "nb_mixture"})
    stops = pl.callbacks.EarlyStopping("train_loss", patience=2, min_delta=1e9)
    fit(FactorVI(model.adata, n_factors=2), max_epochs=9, restarts=3, callbacks=[stops, Counts()])
    assert epochs == [0, 1, 2] * 3
