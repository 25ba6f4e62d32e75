"""Answers carried over between assays that share few cells or none, against simulated truth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.unpaired import draw, fit, graph_of

from mosaicvi import MosaicVI, metrics, tl
from mosaicvi.model import _counterparts
from mosaicvi.model._counterparts import Apart, spread_of
from mosaicvi.model._libraries import library_pools

if TYPE_CHECKING:
    from pathlib import Path

    from mudata import MuData

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")

APART = {"rna": 0.5, "protein": 0.5}
FEW = {"rna+protein": 0.15, "rna": 0.45, "protein": 0.4}


def draws(model: MosaicVI, mdata: MuData, *, own: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Draws of protein for cells with RNA alone, and what was measured; ``own``: as trained."""
    rna, protein = (np.asarray(mdata.obsmap[name]).ravel() > 0 for name in ("rna", "protein"))
    cells = np.flatnonzero(rna & ~protein)
    kept = model.counterparts
    model.counterparts = {} if own else kept
    drawn = model.posterior_predictive_sample("protein", ["rna"], indices=cells, n_samples=60)
    model.counterparts = kept
    return np.asarray(drawn), mdata.obsm["truth_protein"].toarray()[cells]


def crps(drawn: np.ndarray, truth: np.ndarray) -> float:
    return float(metrics.crps_from_samples(np.log1p(drawn), np.log1p(truth)).mean())


def width(drawn: np.ndarray) -> float:
    return float(metrics.interval_width(np.log1p(drawn)).mean())


def missed(drawn: np.ndarray, truth: np.ndarray) -> float:
    return float(metrics.miscoverage(metrics.randomised_pit(drawn, truth)).mean())


@pytest.fixture(scope="module")
def unpaired() -> tuple[MosaicVI, MuData]:
    mdata = draw(APART, 1200)
    return fit(mdata, graph_of(mdata, mdata.uns["links"]), epochs=8), mdata


def test_counterparts_are_as_near_to_the_truth_where_own_draws_are_right(
    unpaired: tuple[MosaicVI, MuData],
) -> None:
    """On these cells, which the model describes; real ones gain (``test_pbmc_mosaic_gate.py``)."""
    model, mdata = unpaired
    (how,) = model.counterparts["protein"].apart.values()
    assert how == Apart()
    carried_over, own = draws(model, mdata), draws(model, mdata, own=True)
    assert crps(*carried_over) < 1.01 * crps(*own)
    assert missed(*carried_over) < 0.04
    assert width(carried_over[0]) < 1.02 * width(own[0])


def test_counterparts_are_moved_along_their_own_directions(
    unpaired: tuple[MosaicVI, MuData], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where these are nothing, answers are as if nothing were moved."""
    model, mdata = unpaired
    now = draws(model, mdata)[0]
    stays = {name: replace(each) for name, each in model.counterparts.items()}
    for each in stays.values():
        vars(each)["directions"] = torch.zeros(2 * [each.places.shape[1]])
    monkeypatch.setattr(model, "counterparts", stays)
    still = draws(model, mdata)[0]
    assert (still != now).mean() > 0.01
    monkeypatch.setattr(_counterparts, "MOVED", 0.0)
    np.testing.assert_array_equal(draws(model, mdata)[0], still)


def test_totals_are_those_of_counterparts() -> None:
    """How much RNA a cell has follows its latent state, which cells with RNA alone can tell."""
    mdata = draw(APART, 1200)
    state = pd.Series(mdata.obsm["truth_z"][:, 0], index=mdata.obs_names)
    rna = mdata["rna"]
    more = np.exp(0.5 * state[rna.obs_names].to_numpy())
    rna.X = sp.csr_matrix(np.rint(rna.X.multiply(more[:, None]).toarray()), dtype=np.float32)
    model = fit(mdata, graph_of(mdata, mdata.uns["links"]), epochs=8)
    rule = model.library_pool["rna"].rule
    assert rule is not None
    assert rule.at_draws
    cells = np.flatnonzero(np.isin(mdata.obs_names, mdata["protein"].obs_names))

    def follows() -> float:
        drawn = model.posterior_predictive_sample("rna", ["protein"], indices=cells, n_samples=60)
        level = np.log(drawn.sum(2)).mean(0)
        return float(np.corrcoef(level, state.to_numpy()[cells])[0, 1])

    assert follows() > 0.5
    model.library_pool = library_pools(model.adata_manager.data)
    assert abs(follows()) < 0.15


def test_with_few_pairs_alone_some_draws_are_counterparts() -> None:
    """On these cells, whose own draws are right, at little cost."""
    mdata = draw(FEW, 1200)
    model = fit(mdata, None, epochs=30)
    assert 0 < model.counterparts["protein"].apart["rna"].share < 1
    some, own = draws(model, mdata), draws(model, mdata, own=True)
    assert missed(*some) < 0.03
    assert crps(*some) < 1.02 * crps(*own)


@pytest.mark.parametrize("patterns", [APART, FEW])
def test_with_few_links_places_are_wide_with_and_without_pairs(patterns: dict[str, float]) -> None:
    mdata = draw(patterns, 400)
    links = mdata.uns["links"]
    links = links[links["target"].isin(np.unique(links["target"])[:6])]
    model = fit(mdata, graph_of(mdata, links), epochs=1)
    for name, other in (("rna", "protein"), ("protein", "rna")):
        how = model.counterparts[name].apart[other]
        assert how.spread == spread_of(6) > 0
        assert patterns is APART or how.doubt == 0


def test_links_that_do_not_bear_each_other_out_leave_draws_undecided() -> None:
    mdata = draw(APART, 1200)
    links = mdata.uns["links"].copy()
    names = np.unique(links["target"])[:6]
    links = links[links["target"].isin(names)]
    links["source"] = np.random.default_rng(0).permutation(mdata["rna"].var_names)[: len(links)]
    model = fit(mdata, graph_of(mdata, links), epochs=8)
    how = model.counterparts["protein"].apart
    assert how["rna"].doubt > 0.5
    told = tl.transfer_labels(model, "cell_type", source="rna", target="protein", copy=True)
    most = mdata.obs["cell_type"].value_counts(normalize=True).max()
    probability = told.obs["mosaicvi_cell_type_probability"].dropna()
    assert probability.max() < 1 - how["rna"].doubt * (1 - most) + 0.05
    decided = replace(model.counterparts["protein"], apart={"rna": Apart()})
    undecided = draws(model, mdata)
    model.counterparts = {"protein": decided}
    narrower = draws(model, mdata)
    assert crps(*undecided) < 1.01 * crps(*narrower)
    assert width(undecided[0]) > width(narrower[0])


def test_they_are_saved_with_the_model(unpaired: tuple[MosaicVI, MuData], tmp_path: Path) -> None:
    model, mdata = unpaired
    model.save(tmp_path / "model")
    again = MosaicVI.load(tmp_path / "model", mdata)
    assert again.counterparts.keys() == model.counterparts.keys() == {"rna", "protein"}
    for name, each in model.counterparts.items():
        assert again.counterparts[name].apart == each.apart
    np.testing.assert_array_equal(draws(again, mdata)[0], draws(model, mdata)[0])


def test_expected_values_are_averaged_over_several(unpaired: tuple[MosaicVI, MuData]) -> None:
    model, mdata = unpaired
    cells = np.flatnonzero(np.asarray(mdata.obsmap["rna"]).ravel() > 0)[:40]
    given = {"from_modalities": ["rna"], "indices": cells}
    found = model.get_normalized_expression("protein", **given)
    pd.testing.assert_frame_equal(
        found, model.get_normalized_expression("protein", n_samples=25, **given)
    )
    assert not found.equals(model.get_normalized_expression("protein", n_samples=1, **given))


def test_enough_pairs_need_none() -> None:
    mdata = draw({"rna+protein": 0.6, "rna": 0.2, "protein": 0.2}, 300)
    assert fit(mdata, None, epochs=1).counterparts == {}
