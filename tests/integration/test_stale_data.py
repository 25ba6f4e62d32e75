"""Values, batches and splits that change after they were read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from tests.fits import answer, build, fit, small_mosaic
from tests.helpers import make_mudata

from mosaicvi import FactorVI, MosaicVI
from mosaicvi._errors import DataError, MosaicviWarning
from mosaicvi.data._changes import same, total

if TYPE_CHECKING:
    from pathlib import Path

    from mudata import MuData

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def query_of(mdata: MuData, batch: str) -> MuData:
    """Forty cells' RNA, whose batch stands in the table of all cells alone."""
    rna = mdata.mod["rna"][:40].copy()
    rna.obs = rna.obs[[]]
    query = make_mudata({"rna": rna})
    query.obs = pd.DataFrame({"batch": batch}, index=query.obs_names)
    return query


@pytest.mark.parametrize("trained", [False, True])
def test_values_that_change_in_place_are_refused(trained: bool) -> None:
    mdata = small_mosaic(120)
    mdata.mod["rna"].X = sp.csr_matrix(mdata.mod["rna"].X, dtype=np.float32)
    model = build(mdata)
    if trained:
        fit(model, 1)
    before = mdata.mod["rna"].X.data.copy()
    sc.pp.log1p(mdata.mod["rna"])
    with pytest.raises(DataError, match="'rna', key 'layer': the values changed in place"):
        model.get_latent_representation() if trained else fit(model, 1)
    mdata.mod["rna"].X.data[:] = before
    fit(model, 1)


def test_values_that_are_replaced_change_nothing() -> None:
    """The usual steps of scanpy after a fit make another X."""
    mdata = small_mosaic(120)
    model = fit(build(mdata), 1)
    before = model.get_latent_representation()
    sc.pp.normalize_total(mdata.mod["rna"])
    sc.pp.log1p(mdata.mod["rna"])
    np.testing.assert_array_equal(model.get_latent_representation(), before)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_query_that_changed_is_read_again(loaded: bool, tmp_path: Path) -> None:
    mdata = small_mosaic(200)
    model = fit(build(mdata), 2)
    if loaded:
        model.save(tmp_path / "model")
        model = MosaicVI.load(tmp_path / "model", False)
    query = query_of(mdata, "batch1" if "batch1" in set(mdata.obs["batch"]) else "0")
    known = answer(model, "protein", ["rna"], adata=query)
    again = answer(model, "protein", ["rna"], adata=query)
    np.testing.assert_array_equal(again.X, known.X)
    query.obs["batch"] = "new donor"
    asked = answer(model, "protein", ["rna"], adata=query)
    fresh = answer(model, "protein", ["rna"], adata=query_of(mdata, "new donor"))
    np.testing.assert_array_equal(asked.X, fresh.X)
    assert np.abs(asked.X - known.X).max() > 0
    counts = np.random.default_rng(0).poisson(1.0, query.mod["rna"].shape)
    latent = model.get_latent_representation(query)
    query.mod["rna"].X = sp.csr_matrix(counts, dtype=np.float32)
    assert np.abs(model.get_latent_representation(query) - latent).max() > 0.01


@pytest.mark.parametrize("place", ["X", "counts"])
def test_counts_of_a_query_are_read_again_wherever_they_are(place: str) -> None:
    mdata = small_mosaic(120)
    rna = mdata.mod["rna"]
    if place == "counts":
        rna.layers["counts"] = rna.X.copy()
        rna.X = np.log1p(rna.X.toarray())
    model = fit(build(mdata), 1)
    query = query_of(mdata, "0")
    before = model.get_latent_representation(query)
    counts = np.random.default_rng(0).poisson(1.0, query.mod["rna"].shape).astype(np.float32)
    if place == "counts":
        query.mod["rna"].layers["counts"] = sp.csr_matrix(counts)
    else:
        query.mod["rna"].X = sp.csr_matrix(counts)
    assert np.abs(model.get_latent_representation(query) - before).max() > 0


def test_a_query_of_a_factor_model_has_the_groups_it_has_now() -> None:
    mdata = small_mosaic(200)
    mdata.obs["site"] = np.where(np.arange(200) % 2, "a", "b")
    FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    model = FactorVI(mdata, n_factors=3, groups="site")
    query = query_of(mdata, "0")
    query.obs["site"] = "a"
    assert set(model._cells(query).dataset.groups.tolist()) == {0}
    query.obs["site"] = "b"
    assert set(model._cells(query).dataset.groups.tolist()) == {1}


def test_cells_that_trained_an_earlier_fit_are_not_held_out() -> None:
    mdata = small_mosaic(200, patterns={"rna+protein": 1.0})
    model = fit(build(mdata), 1, train_size=0.6)
    first = set(model.train_indices.tolist())
    with pytest.warns(MosaicviWarning, match="trained an earlier fit"):
        fit(model, 1, train_size=0.5)
    assert first <= set(model.train_indices.tolist())
    held = {*model.validation_indices.tolist(), *model.test_indices.tolist()}
    assert held
    assert not held & set(model.train_indices.tolist())


def test_the_same_split_twice_keeps_what_is_held_out() -> None:
    model = fit(build(small_mosaic(200)), 1)
    held = model.validation_indices.copy()
    fit(model, 1)
    np.testing.assert_array_equal(model.validation_indices, held)


def test_nothing_is_held_out_of_a_model_that_saw_everything() -> None:
    model = fit(build(small_mosaic(200, patterns={"rna+protein": 1.0})), 1, train_size=1.0)
    with pytest.warns(MosaicviWarning, match="trained an earlier fit"):
        fit(model, 1, train_size=0.5)
    assert len(model.validation_indices) == 0
    assert np.isnan(answer(model, "protein", ["rna"]).var["imputability"]).all()


def test_totals_tell_values_apart_and_forget_their_order() -> None:
    values = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert same(total(values), total(values[::-1].copy()))
    assert not same(total(values), total(values * 1.001))
    values[3, 1] = np.nan
    assert same(total(values), total(values.copy()))
    assert total(object()) is None
    assert not same(None, total(values))


def _replaced(mdata: MuData, column: str, values: object) -> None:
    for each in (mdata, *mdata.mod.values()):
        each.obs[column] = values


@pytest.mark.parametrize(
    ("column", "options"),
    [
        ("batch", {"batch_key": "batch"}),
        ("batch", {"batch_key": {"protein": "batch"}}),
        ("n", {"categorical_covariate_keys": ["n"]}),
        ("n", {"continuous_covariate_keys": ["n"]}),
        ("depth", {"size_factor_key": {"rna": "depth"}}),
    ],
)
def test_columns_that_change_between_setup_and_model_are_refused(
    column: str, options: dict[str, object]
) -> None:
    """A batch of another name had been taken for one that the model does not know."""
    mdata = small_mosaic(120)
    mdata.obs["n"] = np.arange(mdata.n_obs) % 2
    mdata.mod["rna"].obs["depth"] = np.asarray(mdata.mod["rna"].X.sum(1)).ravel()
    likelihoods = {"rna": "nb", "protein": "nb_mixture"}
    MosaicVI.setup_mudata(mdata, likelihoods, **options)
    MosaicVI(mdata, n_latent=3, n_hidden=8)
    MosaicVI.setup_mudata(mdata, likelihoods, **options)
    if column == "depth":
        mdata.mod["rna"].obs["depth"] *= 2
    else:
        _replaced(mdata, column, 1)
    with pytest.raises(DataError, match=f"key '{column}': the column changed.*setup_mudata again"):
        MosaicVI(mdata, n_latent=3, n_hidden=8)


def test_columns_of_another_type_say_the_same() -> None:
    """As where mudata pulls them up, or makes categories of them."""
    mdata = small_mosaic(120)
    codes = mdata.obs["batch"].cat.codes
    for each in (mdata, *mdata.mod.values()):
        each.obs["batch"] = codes.reindex(each.obs_names).astype(int)
    MosaicVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"}, batch_key="batch")
    mdata.obs["batch"] = mdata.obs["batch"].astype(float).astype("category")
    del mdata.mod["protein"].obs["batch"]
    mdata.mod["rna"].obs["batch"] = mdata.mod["rna"].obs["batch"].astype(str)
    mdata.update()
    assert MosaicVI(mdata, n_latent=3, n_hidden=8).batch_categories["rna"] == ("0", "1")
