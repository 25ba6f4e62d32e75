"""Weights of modalities: measured on enough cells of each, beside those that the user gives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from tests.fits import build, small_mosaic, without_truth

from mosaicvi import RequestError
from mosaicvi.datasets import SimulatedModality, simulate
from mosaicvi.model import _training
from mosaicvi.model._construct import modality_weights
from mosaicvi.module._objective import Objective
from mosaicvi.module._objective_spec import ObjectiveSpec

if TYPE_CHECKING:
    from mosaicvi import MosaicVI

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")

N_CELLS = 300


def drawn(share: float) -> MosaicVI:
    """A model of cells of which this share holds protein."""
    return build(small_mosaic(N_CELLS, patterns={"rna": 1 - share, "rna+protein": share}))


def nats(model: MosaicVI, cells: np.ndarray) -> dict[str, float]:
    return _training.start_nats(model.module, model._cells(None).dataset, cells)


def spec(
    model: MosaicVI, given: dict[str, Any] | None = None, *, anchored: bool = False
) -> ObjectiveSpec:
    dataset = model._cells(None).dataset
    cells = np.arange(dataset.data.n_cells)
    return _training.objective_spec(model.module, dataset, cells, given or {}, anchored=anchored)


def weights(model: MosaicVI, given: dict[str, Any]) -> dict[str, float]:
    return dict(spec(model, given).modality_weights)


def test_a_modality_of_few_cells_is_measured_on_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = drawn(0.02)
    held = model.adata_manager.data.modalities["protein"].rows >= 0
    assert held.sum() < 10
    every = np.arange(N_CELLS)
    whole = nats(model, every)
    monkeypatch.setattr(_training, "N_PROBE_CELLS", 64)
    sampled = nats(model, every)
    assert sampled["protein"] == pytest.approx(whole["protein"], rel=1e-5)
    # The others are measured on the one sample, as if it had not been there.
    monkeypatch.setattr(_training, "MIN_PROBE_CELLS", 0)
    assert nats(model, every)["rna"] == sampled["rna"]
    # Of none of the cells nothing is known.
    assert set(nats(model, np.flatnonzero(~held))) == {"rna"}


def test_a_sample_that_holds_enough_is_all_that_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = drawn(0.5)
    monkeypatch.setattr(_training, "N_PROBE_CELLS", 100)
    sampled = nats(model, np.arange(N_CELLS))
    chosen = np.sort(np.random.default_rng(0).choice(N_CELLS, 100, replace=False))
    assert sampled == nats(model, chosen)


def test_weights_that_are_given_stand_beside_measured_ones() -> None:
    model = drawn(0.5)
    measured = weights(model, {})
    assert measured["rna"] == 1.0
    assert measured["protein"] > 2.0
    assert weights(model, {"modality_weights": {"rna": 0.5}}) == {**measured, "rna": 0.5}
    both = {"rna": 0.25, "protein": 3.0}
    assert weights(model, {"modality_weights": both}) == both


def test_two_features_do_not_weigh_more_than_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    model = drawn(0.5)
    nats = {"rna": 2000.0, "protein": 8.0}
    monkeypatch.setattr(_training, "start_nats", lambda *_: nats)
    assert modality_weights(nats, 0.8)["protein"] > 80
    assert weights(model, {}) == {"rna": 1.0, "protein": _training.MOST_WEIGHT}
    # What is below stays, and what a user gives.
    nats["protein"] = 200.0
    assert weights(model, {})["protein"] == pytest.approx(10**0.8)
    assert weights(model, {"modality_weights": {"protein": 54.0}})["protein"] == 54


def test_weights_of_unknown_modalities_are_refused() -> None:
    with pytest.raises(RequestError, match=r"modality_weights.*unknown modalities \['protien'\]"):
        weights(drawn(0.5), {"modality_weights": {"protien": 3.0}})


def test_modalities_without_trust_alone() -> None:
    """Cells of them alone may be trained on: weights are those among themselves."""
    found = modality_weights({"a": 100.0, "b": 50.0}, 0.5, {"a": 0.0, "b": 0.0, "c": 1.0})
    assert found == {"a": 1.0, "b": pytest.approx(2**0.5)}
    assert modality_weights({}, 0.5, {"c": 1.0}) == {}


@pytest.mark.parametrize(("reliable", "power"), [(0.2, 0.0), (0.45, 0.25), (0.7, 1.0)])
def test_reconstructions_of_noise_do_without_their_weight(
    reliable: float, power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_training, "reliability", lambda *_, **__: reliable)
    model = drawn(0.5)
    found = spec(model)
    small = [name for name, weight in found.modality_weights.items() if weight > 1]
    assert len(small) == 1
    weight = found.modality_weights[small[0]]
    expected = {small[0]: pytest.approx(weight**power)} if power < 1 else {}
    assert found.own_weights == expected
    # What a user gives stands, and fits from anchors are as they were.
    assert spec(model, {"own_weights": {small[0]: 3.0}}).own_weights == {small[0]: 3.0}
    assert spec(model, {"modality_weights": {small[0]: weight}}).own_weights == {}
    assert spec(model, anchored=True).own_weights == {}


@pytest.mark.parametrize("likelihood", ["normal", "student"])
def test_continuous_values_have_half_of_their_weight_for_themselves(likelihood: str) -> None:
    specs = {
        "rna": SimulatedModality.rna(200, likelihood="nb"),
        "score": replace(SimulatedModality.normal(4), likelihood=likelihood),
    }
    mdata = without_truth(simulate(N_CELLS, specs, patterns={"rna+score": 1.0}, seed=1))
    found = spec(build(mdata, {"rna": "nb", "score": likelihood}))
    assert found.modality_weights["score"] > 5
    assert found.own_weights["score"] == pytest.approx(found.modality_weights["score"] ** 0.5)
    # What others say of it keeps its weight.
    assert found.own_weights.keys() == {"score"}


def test_the_weight_of_a_reconstruction_is_its_own() -> None:
    """The total changes by what the weight says, and nothing else does."""
    model = drawn(1.0)
    batch = model._cells(None).dataset.fetch(np.arange(60))
    model.module.eval()
    losses = []
    for own in (1.0, 3.0):
        torch.manual_seed(0)
        objective = Objective(ObjectiveSpec(own_weights={"protein": own}))
        losses.append(objective(model.module, batch))
    one, three = losses
    added = 2 * one.terms["reconstruction/protein"]
    torch.testing.assert_close(three.total - one.total, added, rtol=1e-4, atol=1e-3)
    assert one.by_cell is not None
    assert three.by_cell is not None
    torch.testing.assert_close((three.by_cell - one.by_cell).mean(), added, rtol=1e-4, atol=1e-3)
