"""Fits of FactorVI that fail or are interrupted leave a model that answers and can be saved."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import lightning.pytorch as lightning
import numpy as np
import pytest
from tests.fits import QUIET, small_mosaic

from mosaicvi import FactorVI
from mosaicvi._errors import MosaicviWarning

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")


class Stop(lightning.Callback):
    """End a fit before an epoch."""

    def __init__(self, error: BaseException, epoch: int = 0) -> None:
        self.error, self.epoch = error, epoch

    def on_train_epoch_start(self, trainer: Any, _module: Any) -> None:
        if trainer.current_epoch == self.epoch:
            raise self.error


def built(n_factors: int = 6) -> FactorVI:
    mdata = small_mosaic(200)
    FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"}, batch_key="batch")
    return FactorVI(mdata, n_factors=n_factors)


def fit(model: FactorVI, epochs: int = 6, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        return model.train(epochs, **QUIET, **options)


def fit_to_the_end(model: FactorVI, epochs: int, **options: Any) -> Any:
    """Fail where Ctrl-C comes through, which would end pytest."""
    try:
        return fit(model, epochs, **options)
    except KeyboardInterrupt:
        pytest.fail("the fit did not end")


def interrupt(*_arguments: Any, **_named: Any) -> None:
    raise KeyboardInterrupt


def answers(model: FactorVI) -> dict[str, pd.DataFrame]:
    return {name: model.get_weights(name) for name in ("rna", "protein")} | {
        "factors": model.get_factors()
    }


def assert_same(before: dict[str, pd.DataFrame], model: FactorVI) -> None:
    for name, table in answers(model).items():
        assert before[name].equals(table), name


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no memory")])
def test_a_fit_that_does_not_end_its_first_epoch_leaves_a_new_model_new(
    error: BaseException,
) -> None:
    model = built()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    factors = model.factors
    if isinstance(error, KeyboardInterrupt):
        with pytest.warns(MosaicviWarning, match="as it was before"):
            assert fit(model, callbacks=[Stop(error)]).n_epochs == 0
    else:
        with pytest.raises(RuntimeError, match="no memory"):
            fit(model, callbacks=[Stop(error)])
    assert model.factors == factors
    assert not model.is_trained_
    assert model.fit_result is model.history_ is model.train_indices_ is None
    for name, value in model.module.state_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    # As nothing was trained, restarts are no question.
    assert fit(model, 2, restarts=2).status == "completed"


def test_a_later_fit_that_does_not_end_its_first_epoch_changes_nothing() -> None:
    model = built()
    first = fit(model, least_share=0)
    before, history = answers(model), model.history_
    fit(model, callbacks=[Stop(KeyboardInterrupt())])
    assert_same(before, model)
    with pytest.raises(RuntimeError):
        fit(model, callbacks=[Stop(RuntimeError(), epoch=2)])
    assert_same(before, model)
    assert model.fit_result is first
    assert model.history_ is history


def test_interrupted_after_an_epoch_it_keeps_what_it_has() -> None:
    model = built()
    result = fit(model, callbacks=[Stop(KeyboardInterrupt(), epoch=3)])
    assert (result.status, result.n_epochs) == ("interrupted", 3)
    assert model.is_trained_
    assert len(model.factors) == model.module.n_latent


@pytest.mark.parametrize("step", ["reduce_factors", "drop_surplus", "sweep_weights"])
def test_interrupted_while_factors_are_judged_it_keeps_all_of_them(
    step: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = built(n_factors=12)
    with monkeypatch.context() as patch:
        patch.setattr(f"mosaicvi.factor._fit.{step}", interrupt)
        assert fit_to_the_end(model, 12, least_r2=-1.0).status == "interrupted"
    assert sorted(model.factors) == sorted(f"factor{n}" for n in range(1, 13))
    model.save(tmp_path / "m")
    again = FactorVI.load(tmp_path / "m", small_mosaic(200), accelerator="cpu")
    assert_same(answers(model), again)
    assert fit(model).status == "completed"
    assert len(model.factors) == model.module.n_latent


@pytest.mark.parametrize("step", ["name_factors", "stability", "refinement_gains"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError()])
def test_interrupted_while_factors_are_ordered_it_is_what_it_was(
    step: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any, **_named: Any) -> None:
        raise error

    model = built()
    fit(model, least_share=0, least_r2=0, train_size=0.6)
    imputability = model.impute("protein", ["rna"], n_samples=2).var["imputability"]
    before, known = answers(model), dict(model.imputability)
    assert known
    with monkeypatch.context() as patch:
        patch.setattr(f"mosaicvi.factor._factorvi.{step}", fail)
        with pytest.raises(type(error)):
            fit(model, train_size=0.6)
    assert_same(before, model)
    assert model.imputability == known
    assert imputability.equals(model.impute("protein", ["rna"], n_samples=2).var["imputability"])


def test_a_restart_that_is_interrupted_leaves_the_fits_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mosaicvi.factor._fit import FitPlan

    run = FitPlan.run

    def stop_the_second(plan: FitPlan, module: Any, number: int, **options: Any) -> Any:
        if number:
            plan.trainer["callbacks"] = [Stop(KeyboardInterrupt())]
        return run(plan, module, number, **options)

    monkeypatch.setattr(FitPlan, "run", stop_the_second)
    model = built(n_factors=3)
    assert fit(model, restarts=3).n_epochs == 6
    assert model.is_trained_
    assert model.module_spec.stability == ()


def test_no_time_for_an_epoch_is_no_fit() -> None:
    model = built(3)
    before = {name: each.clone() for name, each in model.module.state_dict().items()}
    assert fit(model, max_time={"seconds": 0}).n_epochs == 0
    assert not model.is_trained
    after = model.module.state_dict()
    assert all(bool((after[name] == each).all()) for name, each in before.items())
