"""Training: its history, its seed, its interruptions, and what it must not see."""

from __future__ import annotations

import logging
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from unittest import mock

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests import unpaired
from tests.fits import QUIET, answer, assert_same_answer, build, fit, layers, small_mosaic
from tests.helpers import SCVI_UNS_KEYS, fingerprint, make_mudata

from mosaicvi import MosaicVI, RequestError
from mosaicvi._errors import MosaicviWarning
from mosaicvi.model._construct import default_dropout
from mosaicvi.model._rates import optimizer_spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mudata import MuData

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")

N_CELLS, N_GENES, N_PROTEINS = 240, 70, 10


@pytest.fixture(scope="module")
def mdata() -> MuData:
    return small_mosaic(N_CELLS)


@pytest.fixture(scope="module")
def model(mdata: MuData) -> MosaicVI:
    return fit(build(mdata), 6)


@pytest.fixture(scope="module")
def has(mdata: MuData) -> dict[str, np.ndarray]:
    return {name: np.asarray(mdata.obsmap[name]).ravel() > 0 for name in mdata.mod}


# --- training ----------------------------------------------------------------------------------


def test_history_and_scvi_habits(model: MosaicVI, mdata: MuData) -> None:
    assert {"train_loss", "validation_loss", "kl_train", "cross/protein_validation"} <= set(
        model.history
    )
    assert all(
        isinstance(frame, pd.DataFrame) and len(frame) == 6 for frame in model.history.values()
    )
    assert isinstance(repr(model), str)  # scvi-tools prints, and returns nothing
    assert "MosaicVI" in model.summary_string
    assert "Trained" in model.summary_string
    assert model.adata is mdata
    assert model.is_trained
    model.view_anndata_setup(mdata)
    assert len(model.train_indices) + len(model.validation_indices) == N_CELLS
    assert not set(model.train_indices) & set(model.validation_indices)
    assert model.fit_result.status == "completed"
    assert model.fit_result.n_epochs == 6
    model.get_state_registry("mosaicvi")


def test_view_setup_args_of_a_saved_model(model: MosaicVI, tmp_path) -> None:
    model.save(tmp_path / "m")
    registry = MosaicVI.load_registry(tmp_path / "m")
    assert registry["model_name"] == "MosaicVI"
    MosaicVI.view_setup_args(tmp_path / "m")


def test_input_is_unchanged(mdata: MuData) -> None:
    fresh = small_mosaic(N_CELLS)
    before = fingerprint(fresh)
    fitted = fit(build(fresh), 1)
    answer(fitted, "protein", ["rna"])
    fitted.get_elbo()
    fitted.get_protein_foreground_probability()
    assert fingerprint(fresh) == before
    assert set(fresh.uns) == set(SCVI_UNS_KEYS)


def test_feature_rate_is_that_of_the_decoders_features(mdata: MuData) -> None:
    """At zero they alone stand still."""
    model = build(mdata)
    before = {name: each.detach().clone() for name, each in model.module.named_parameters()}
    fit(model, 1, plan_kwargs={"feature_rate": 0.0, "weight_decay": 0.0})
    for name, each in model.module.named_parameters():
        if name.startswith("decoders."):
            of_features = "trunk" not in name
            assert torch.equal(each, before[name]) == of_features, name
    moved = [n for n, p in model.module.named_parameters() if not torch.equal(p, before[n])]
    assert any(name.startswith("encoders.") for name in moved)


def test_features_learn_faster_by_default_but_regions(model: MosaicVI) -> None:
    data = small_mosaic(60)
    data["rna"].X = (data["rna"].X > 0).astype(np.float32)
    regions = build(data, {"rna": "bernoulli", "protein": "nb_mixture"})

    def rate(of: MosaicVI, **given: float) -> Any:
        return optimizer_spec(of.module, of.adata_manager.data, given).feature_rate

    assert rate(model) == {"rna": 4, "protein": 4}
    assert rate(regions, feature_rate=2.0) == 2
    # The fewer counts there are of a region, the slower it learns, however they are stored.
    counts = data["rna"].X.sum() / data["rna"].n_vars
    assert rate(regions)["rna"] == pytest.approx(np.clip((counts / 40) ** 2, 0.1, 1))
    for n_cells, expected in ((600, 1.0), (12, 0.1)):
        few = small_mosaic(n_cells)
        few["rna"].X = sp.csr_matrix((few["rna"].X > 0).astype(np.float32))
        spec = {"rna": "bernoulli", "protein": "nb_mixture"}
        sparse = rate(build(few, spec))
        few["rna"].X = few["rna"].X.toarray()
        assert sparse == rate(build(few, spec)) == {"rna": expected, "protein": 4}


def test_genes_of_few_aligned_cells_learn_faster() -> None:
    mdata = unpaired.draw({"rna": 0.5, "protein": 0.5}, 300)
    links = unpaired.graph_of(mdata, mdata.uns["links"])
    model = unpaired.fit(mdata, links, epochs=1)
    data = model.adata_manager.data

    def rate(n_cells: int) -> Any:
        with mock.patch.object(type(data), "n_cells", n_cells):
            return optimizer_spec(model.module, data, {}).feature_rate

    assert rate(300) == {"rna": 8, "protein": 4}
    assert rate(1600) == {"rna": 6.4, "protein": 4}
    assert rate(10_000) == {"rna": 4, "protein": 4}


def test_features_of_each_modality_learn_at_their_own_rate(mdata: MuData) -> None:
    model = build(mdata)
    before = {name: each.detach().clone() for name, each in model.module.named_parameters()}
    fit(model, 1, plan_kwargs={"feature_rate": {"rna": 0.0}, "weight_decay": 0.0})
    moved = {n: not torch.equal(p, before[n]) for n, p in model.module.named_parameters()}
    biases = {n.split(".")[1]: moved[n] for n in moved if ".biases." in n}
    assert biases == {"rna": False, "protein": True}


@pytest.mark.parametrize("key", ["feature_rate", "decoded_features"])
def test_a_modality_that_the_model_lacks_is_named(model: MosaicVI, key: str) -> None:
    with pytest.raises(RequestError, match=key + r".*unknown modalities \['atac'\]"):
        model.train(1, plan_kwargs={key: {"atac": 2}}, **QUIET)


def test_same_seed_same_fit(mdata: MuData, model: MosaicVI) -> None:
    torch.manual_seed(99)
    again = fit(build(small_mosaic(N_CELLS)), 6)
    for (name, left), right in zip(
        model.module.state_dict().items(), again.module.state_dict().values(), strict=True
    ):
        assert torch.equal(left, right), name
    assert_same_answer(answer(model, "protein", ["rna"]), answer(again, "protein", ["rna"]))
    other = fit(build(mdata, seed=1), 6)
    left, right = (m.get_latent_representation() for m in (model, other))
    assert not np.allclose(left, right)


def test_few_cells_drop_more_units_unless_a_rate_is_given(mdata: MuData) -> None:
    assert (default_dropout(2500), default_dropout(2501)) == (0.5, 0.35)
    assert default_dropout(2500, align=True) == 0.35
    assert build(mdata).module_spec.dropout_rate == 0.5
    assert build(mdata, dropout_rate=0.0).module_spec.dropout_rate == 0.0


def test_the_average_of_the_weights_is_kept_and_training_does_not_see_it(mdata: MuData) -> None:
    """With validation and without; steps are the same, weights and validation are not."""
    for options in ({}, {"train_size": 1.0}):
        of_steps, averaged = (
            fit(build(mdata), 4, plan_kwargs={"averaging": epochs}, **options)
            for epochs in (0.0, 2.0)
        )
        for name in ("train_loss", "kl_train"):
            pd.testing.assert_frame_equal(of_steps.history[name], averaged.history[name])
        left, right = (
            torch.cat([each.detach().ravel() for each in model.module.parameters()])
            for model in (of_steps, averaged)
        )
        assert not torch.equal(left, right)
        assert torch.allclose(left, right, atol=0.1)
        if not options:
            losses = [model.history["validation_loss"] for model in (of_steps, averaged)]
            assert not np.allclose(*losses)


@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate": 0.0},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"averaging": -1.0},
    ],
)
def test_numbers_with_which_no_fit_comes_anywhere_are_refused(
    model: MosaicVI, given: dict[str, float]
) -> None:
    (key,) = given
    with pytest.raises(RequestError, match=f"key '{key}'"):
        model.train(1, plan_kwargs=given, **QUIET)


def test_gradients_need_not_be_clipped(mdata: MuData) -> None:
    assert fit(build(mdata), 1, plan_kwargs={"gradient_norm": 0.0}).is_trained


def test_training_leaves_the_global_random_state_alone(mdata: MuData) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(build(mdata), 1)
    assert torch.equal(torch.rand(3), expected)


def test_no_module_in_training_mode_after_fit(model: MosaicVI) -> None:
    assert not model.module.training
    assert all(parameter.grad is None for parameter in model.module.parameters())


@pytest.mark.filterwarnings("default::UserWarning")
def test_untrained_model_warns_and_answers(mdata: MuData) -> None:
    untrained = build(mdata)
    with pytest.warns(UserWarning, match="untrained model"):
        z = untrained.get_latent_representation()
    assert np.isfinite(z).all()


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True])
def test_no_fit_without_an_epoch(mdata: MuData, epochs: Any) -> None:
    model = build(mdata)
    with pytest.raises(RequestError, match=r"'max_epochs'.*1 or more"):
        model.train(max_epochs=epochs)
    assert not model.is_trained
    assert model.fit_result is None


def test_indices_and_train_size(mdata: MuData) -> None:
    chosen = np.arange(0, N_CELLS, 2)
    fitted = fit(build(mdata), 1, indices=chosen)
    used = np.concatenate([fitted.train_indices, fitted.validation_indices])
    assert set(used) <= set(chosen)
    whole = fit(build(mdata), 1, train_size=1.0)
    assert len(whole.train_indices) == N_CELLS
    assert whole.fit_result.best_epoch == -1
    assert np.isnan(answer(whole, "protein", ["rna"]).var["imputability"]).all()


class _Interrupt(pl.Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


def test_interrupted_training(mdata: MuData, caplog: pytest.LogCaptureFixture) -> None:
    import signal

    handler = signal.getsignal(signal.SIGINT)
    interrupted = build(mdata)
    with caplog.at_level(logging.WARNING, logger="mosaicvi"):
        fit(interrupted, 5, callbacks=[_Interrupt(2)])
    assert "interrupted after 2 of 5 epochs" in caplog.text
    assert interrupted.fit_result.status == "interrupted"
    assert interrupted.fit_result.n_epochs == 2
    assert signal.getsignal(signal.SIGINT) is handler
    assert interrupted.is_trained
    assert np.isfinite(interrupted.get_latent_representation()).all()
    fit(interrupted, 1)
    assert interrupted.fit_result.status == "completed"


class _InterruptStep(pl.Callback):
    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:Trying to query inferred values")
def test_training_interrupted_in_its_first_epoch_is_no_training(mdata: MuData) -> None:
    model = build(mdata)
    before = model.get_latent_representation()
    with pytest.warns(MosaicviWarning, match="before its first epoch ended"):
        fit(model, 5, callbacks=[_InterruptStep()])
    assert not model.is_trained
    np.testing.assert_array_equal(model.get_latent_representation(), before)


class _FailStep(pl.Callback):
    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a step that fails")


@pytest.mark.filterwarnings("ignore:Trying to query inferred values")
def test_a_fit_that_fails_leaves_the_model_as_it_was(mdata: MuData) -> None:
    """Neither half a fit nor dropout: answers are those of before."""
    model = build(mdata)
    np.testing.assert_array_equal(
        model.get_latent_representation(), model.get_latent_representation()
    )
    fit(model, 1)
    before = model.get_latent_representation()
    with pytest.raises(RuntimeError, match="a step that fails"):
        fit(model, 2, callbacks=[_FailStep()])
    np.testing.assert_array_equal(model.get_latent_representation(), before)


class _Fail(pl.Callback):
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        raise RuntimeError("a callback of the user")


def test_other_errors_are_raised(mdata: MuData) -> None:
    with pytest.raises(RuntimeError, match="a callback of the user"):
        fit(build(mdata), 2, callbacks=[_Fail()])


class _Threads(pl.Callback):
    """Writes down torch's number of threads, then does what ends the fit."""

    def __init__(self, end: pl.Callback | None) -> None:
        self.seen: set[int] = set()
        self.end = end

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen.add(torch.get_num_threads())
        if self.end is not None:
            self.end.on_train_epoch_start(trainer, pl_module)


@pytest.fixture
def three_threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@pytest.mark.parametrize("asked", [None, 2])
@pytest.mark.parametrize("end", [None, _Interrupt(1), _Fail()], ids=["whole", "ctrl-c", "error"])
def test_a_fit_has_its_threads_and_the_user_gets_them_back(
    mdata: MuData, three_threads: int, end: pl.Callback | None, asked: int | None
) -> None:
    """The small model's steps are worth one thread."""
    threads = _Threads(end)
    failure = pytest.raises(RuntimeError, match="of the user")
    with failure if isinstance(end, _Fail) else nullcontext():
        fit(build(mdata), 2, callbacks=[threads], plan_kwargs={"n_threads": asked})
    assert threads.seen == {1 if asked is None else asked}
    assert torch.get_num_threads() == three_threads


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_precision_of_the_trainer(mdata: MuData, precision: str) -> None:
    fitted = fit(build(mdata), 1, precision=precision)
    assert np.isfinite(fitted.history["train_loss"].to_numpy()).all()


def test_early_stopping_keeps_weights_as_good_as_the_best(
    mdata: MuData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best epoch or a later one; three that are clearly worse than the best end the fit."""
    monkeypatch.setattr("mosaicvi.model._training.patience", lambda epochs: 3)
    stopped = fit(build(mdata), 60, plan_kwargs={"learning_rate": 0.1})
    history = stopped.history["validation_loss"].iloc[:, 0]
    kept, n_epochs = stopped.fit_result.best_epoch, stopped.fit_result.n_epochs
    assert int(np.argmin(history)) <= kept < n_epochs - 1
    assert history.iloc[kept] < history.iloc[kept + 1 :].max()
    assert stopped.fit_result.status == "stopped early"
    assert n_epochs < 60


# --- leaks -------------------------------------------------------------------------------------


def test_scrambling_hidden_values_changes_no_bit() -> None:
    """Protein values of the second batch are known to us, and must not matter to the model."""
    whole = small_mosaic(200, patterns={"rna+protein": 1.0})
    hidden = whole.obs["batch"].to_numpy() == "batch2"

    def hide(scramble: bool) -> MuData:
        rna, protein = whole["rna"].copy(), whole["protein"].copy()
        if scramble:
            values = protein.X.toarray()
            values[hidden] = np.random.default_rng(0).poisson(50, values[hidden].shape)
            protein.X = type(protein.X)(values)
        return make_mudata({"rna": rna, "protein": protein[~hidden].copy()})

    answers = [answer(fit(build(hide(flag)), 2), "protein", ["rna"]) for flag in (False, True)]
    assert_same_answer(*answers)


def test_values_of_the_target_do_not_matter_to_its_imputation(model: MosaicVI) -> None:
    """The measured protein of a query cell is no evidence for its imputation from RNA."""
    query = small_mosaic(N_CELLS)
    query["protein"].X = query["protein"].X * 3
    left = answer(model, "protein", ["rna"])
    right = answer(model, "protein", ["rna"], adata=query)
    for name, values in layers(left).items():
        np.testing.assert_array_equal(values, layers(right)[name], err_msg=name)


class Modes(pl.Callback):
    """Whether the network is in training mode, at each training step."""

    def __init__(self) -> None:
        self.seen: set[bool] = set()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.seen.add(bool(pl_module.module.training))


def test_training_on_drops_units_as_the_first_training_does(tmp_path: Path) -> None:
    model = fit(build(small_mosaic(120)), max_epochs=1)
    model.save(tmp_path / "model")
    for again in (model, MosaicVI.load(tmp_path / "model", model.adata.copy())):
        modes = Modes()
        fit(again, max_epochs=1, callbacks=[modes])
        assert modes.seen == {True}
        assert not again.module.training


def test_no_validation_cells_are_no_reason_to_warn() -> None:
    model = build(small_mosaic(60))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.train(1, train_size=1.0, **QUIET)
    assert not [str(each.message) for each in said if "is zero" in str(each.message)]
    assert np.isfinite(model.get_latent_representation()).any()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"num_workers": 2}, r"'num_workers'.*loader_kwargs"),
        ({"external_indexing": [[0, 1], [2]]}, r"'external_indexing'.*indices"),
        ({"batch_size": 4}, r"'batch_size'.*train\(\)"),
        ({"loader_kwargs": {"shuffle": True}}, "'shuffle'"),
        ({"blocks": (2, 8)}, "BlockShuffle"),
        ({"visits": 2}, "'visits'"),
    ],
)
def test_what_the_data_module_does_not_take_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        build(small_mosaic(40)).train(1, datasplitter_kwargs=given, **QUIET)


@pytest.mark.parametrize("step", ["find_counterparts", "fit_libraries"])
def test_interrupted_after_its_last_epoch_a_fit_says_what_answers_lack(
    step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    model = build(small_mosaic(60))
    monkeypatch.setattr(f"mosaicvi.model._mosaicvi.{step}", interrupt)
    with caplog.at_level("WARNING", logger="mosaicvi"):
        fit(model, 2)
    assert "counterparts" in caplog.text
    assert model.fit_result.status == "interrupted"
    assert model.fit_result.n_epochs == 2
    assert np.isfinite(answer(model, "protein", ["rna"]).X).any()


@pytest.mark.parametrize("step", ["remember", "find_counterparts", "fit_libraries"])
def test_what_fails_after_the_last_epoch_leaves_the_model_as_it_was(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New weights beside no counterparts would answer otherwise than either fit, in silence."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    model = fit(build(small_mosaic(60)), 1)
    before, fitted = answer(model, "protein", ["rna"]), model.fit_result
    monkeypatch.setattr(f"mosaicvi.model._mosaicvi.{step}", fail)
    with pytest.raises(MemoryError):
        fit(model, 3)
    assert model.fit_result is fitted
    assert_same_answer(answer(model, "protein", ["rna"]), before)
