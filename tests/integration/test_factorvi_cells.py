"""Which cells FactorVI learns from and is judged on: their order, earlier fits, what they lack."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from tests.fits import QUIET, small_mosaic
from tests.helpers import make_mudata, pulling_nothing

from mosaicvi import FactorVI
from mosaicvi._errors import DataError, MosaicviWarning, RequestError

if TYPE_CHECKING:
    from pathlib import Path

    from mudata import MuData

LIKELIHOODS = {"rna": "nb", "protein": "nb_mixture"}
N_CELLS = 160

pytestmark = pytest.mark.filterwarnings("ignore:.*not sure to be:UserWarning")


def built(mdata: MuData, n_factors: int = 3, **options: Any) -> FactorVI:
    FactorVI.setup_mudata(mdata, LIKELIHOODS, batch_key="batch")
    return FactorVI(mdata, n_factors=n_factors, **options)


def fit(model: FactorVI, epochs: int = 3, **options: Any) -> FactorVI:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        model.train(epochs, **QUIET, **options)
    return model


def reordered(mdata: MuData, seed: int = 0) -> MuData:
    """The same cells, in another order of the MuData and of each modality."""
    rng = np.random.default_rng(seed)
    parts = {n: part[rng.permutation(part.n_obs)].copy() for n, part in mdata.mod.items()}
    names = mdata.obs_names[rng.permutation(mdata.n_obs)]
    return make_mudata(parts)[names].copy()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "m"
    fit(built(small_mosaic(N_CELLS))).save(folder)
    return folder


@pytest.mark.parametrize("n_cells", [5000, 9])
def test_variance_explained_does_not_depend_on_the_order_of_cells(
    saved: Path, n_cells: int
) -> None:
    mdata = small_mosaic(N_CELLS)
    other = reordered(mdata)
    assert list(other.obs_names) != list(mdata.obs_names)
    tables = [
        FactorVI.load(saved, each, accelerator="cpu").get_variance_explained(n_cells=n_cells)
        for each in (mdata, other)
    ]
    pd.testing.assert_frame_equal(*tables, rtol=1e-4, atol=1e-6)
    assert tables[0]["n_cells"].max() <= n_cells
    queries = [
        FactorVI.load(saved, adata=False).get_variance_explained(each, n_cells=n_cells)
        for each in (mdata, other)
    ]
    pd.testing.assert_frame_equal(*queries, rtol=1e-4, atol=1e-6)


def test_cells_of_an_earlier_fit_are_not_held_out(tmp_path: Path) -> None:
    model = fit(built(small_mosaic(N_CELLS)))
    earlier = set(model.train_indices_)
    held = set(model.validation_indices_)
    with pytest.warns(MosaicviWarning, match=r"of 80 validation cells.* not held out\. Remedy"):
        fit(model, train_size=0.5)
    assert set(model.validation_indices_) <= held
    assert len(model.validation_indices_)
    assert earlier <= set(model.train_indices_)
    judged = model.get_variance_explained()["n_cells"].max()
    assert judged <= len(model.validation_indices_)
    model.save(tmp_path / "m")
    again = FactorVI.load(tmp_path / "m", small_mosaic(N_CELLS), accelerator="cpu")
    fit(again, train_size=0.2)
    assert not earlier & set(again.validation_indices_)


def test_the_same_split_again_is_the_same_split() -> None:
    model = fit(built(small_mosaic(N_CELLS)))
    parts = model.train_indices_, model.validation_indices_
    fit(model)
    np.testing.assert_array_equal(model.train_indices_, parts[0])
    np.testing.assert_array_equal(model.validation_indices_, parts[1])


def test_no_cell_is_held_out_once_all_have_trained() -> None:
    model = fit(built(small_mosaic(N_CELLS)), train_size=1.0)
    with pytest.warns(MosaicviWarning, match=r"80 of 80 validation.*none is left.*Remedy"):
        fit(model, train_size=0.5)
    assert len(model.validation_indices_) == 0
    assert len(model.train_indices_) == N_CELLS


def test_cells_that_another_mudata_trained_are_remembered() -> None:
    mdata = small_mosaic(N_CELLS)
    half = mdata[: N_CELLS // 2].copy()
    model = fit(built(mdata))
    earlier = set(model.train_indices_)
    model.adata = half
    fit(model)
    model.adata = mdata
    assert earlier <= set(model.train_indices_)
    assert not earlier & set(model.validation_indices_)


def unpaired_cells(mdata: MuData) -> np.ndarray:
    """Rows of cells that hold RNA alone."""
    return np.flatnonzero(~mdata.obs_names.isin(mdata.mod["protein"].obs_names))


@pytest.mark.parametrize("options", [{}, {"gene_sets": True}, {"nonnegative": True}])
def test_a_modality_that_no_training_cell_holds_is_left_out(options: dict[str, Any]) -> None:
    mdata = small_mosaic(N_CELLS)
    if options.get("gene_sets"):
        proteins = list(mdata.mod["protein"].var_names)
        options = {"gene_sets": {"set": proteins[:5]}, "gene_set_modality": "protein"}
    model = built(mdata, **options)
    with pytest.warns(MosaicviWarning, match=r"no training cell holds 'protein'.*Remedy"):
        fit(model, indices=unpaired_cells(mdata))
    assert np.isfinite(model.get_factors().to_numpy()).all()
    assert np.abs(model.get_weights("protein").to_numpy()).max() < 1e-2
    assert np.abs(model.get_weights("rna").to_numpy()).max() > 1e-2
    assert not model.get_activity()["protein"].any()
    assert np.isfinite(model.get_elbo())


def test_halves_of_which_one_lacks_a_modality() -> None:
    mdata = small_mosaic(N_CELLS)
    protein = mdata.mod["protein"]
    paired = protein.obs_names.isin(mdata.mod["rna"].obs_names)
    # A cell of either pattern, of which halves are drawn apart: one half gets both.
    two = [np.flatnonzero(paired)[0], np.flatnonzero(~paired)[0]]
    parts = {"rna": mdata.mod["rna"].copy(), "protein": protein[two].copy()}
    model = fit(built(make_mudata(parts)), least_stability=0, train_size=1.0)
    assert np.isfinite(model.get_stability().to_numpy()).all()


def apart() -> dict[str, AnnData]:
    """RNA and protein of different cells."""
    mdata = small_mosaic(N_CELLS)
    rna = mdata.mod["rna"].copy()
    protein = mdata.mod["protein"].copy()
    protein.obs_names = [f"other {name}" for name in protein.obs_names]
    return {"rna": rna, "protein": protein}


def test_modalities_that_share_no_cell_are_named() -> None:
    with pytest.warns(MosaicviWarning, match=r"ties these.*'rna'; 'protein'.*MosaicVI with graph="):
        built(make_mudata(apart()))


def test_modalities_tied_through_a_third_are_in_order() -> None:
    rng = np.random.default_rng(0)
    parts = apart()
    names = [*parts["rna"].obs_names[:20], *parts["protein"].obs_names[:20]]
    third = AnnData(rng.normal(size=(40, 12)).astype(np.float32))
    third.obs_names, third.var_names = names, [f"x{number}" for number in range(12)]
    mdata = make_mudata({**parts, "third": third})
    FactorVI.setup_mudata(mdata, {**LIKELIHOODS, "third": "normal"})
    with warnings.catch_warnings():
        warnings.simplefilter("error", MosaicviWarning)
        FactorVI(mdata, n_factors=2)


def test_mofa_slots_go_by_feature_where_orders_differ(saved: Path) -> None:
    mdata = small_mosaic(N_CELLS)
    model = FactorVI.load(saved, mdata, accelerator="cpu")
    rna = mdata.mod["rna"]
    order = np.random.default_rng(0).permutation(rna.n_vars)
    other = small_mosaic(N_CELLS)
    other.mod["rna"] = rna[:, order].copy()
    with pytest.raises(DataError, match=r"'rna', key 'varmap'.*Remedy: call mdata.update"):
        model.write_mofa_slots(other)
    # As of mudata 0.4: features keep their order in the MuData.
    with pulling_nothing():
        other.update()
    assert list(other.var_names[: rna.n_vars]) != list(other.mod["rna"].var_names)
    model.write_mofa_slots(other)
    written = pd.DataFrame(np.asarray(other.varm["LFs"]), index=other.var_names)
    for name in LIKELIHOODS:
        weights = model.get_weights(name)
        np.testing.assert_array_equal(written.loc[weights.index], weights)


def test_cells_without_a_modality_of_the_model_are_no_part_of_the_bound() -> None:
    mdata = small_mosaic(N_CELLS)
    FactorVI.setup_mudata(mdata, {"protein": "nb_mixture"}, batch_key="batch")
    model = fit(FactorVI(mdata, n_factors=3))
    held = mdata.obs_names.isin(mdata.mod["protein"].obs_names)
    assert 0 < held.sum() < N_CELLS
    assert model.get_elbo() == model.get_elbo(indices=held)
    with pytest.raises(RequestError, match=r"none of the .* selected cells holds 'protein'"):
        model.get_elbo(indices=~held)


def test_scales_of_groups_do_not_depend_on_minibatches() -> None:
    """One group of ten in which a factor hardly moves, and one in which it moves most."""
    rng = np.random.default_rng(0)
    group = np.where(np.arange(600) < 60, "still", np.where(np.arange(600) < 120, "wild", "rest"))
    scale = np.ones((600, 2))
    scale[group == "still", 0], scale[group == "wild", 0] = 0.2, 2.0
    z = rng.normal(size=(600, 2)) * scale
    loads = rng.normal(size=(30, 2)) * (np.arange(30)[:, None] % 2 == np.arange(2))
    adata = AnnData((z @ loads.T + 0.5 * rng.normal(size=(600, 30))).astype(np.float32))
    adata.var_names = [f"v{number}" for number in range(30)]
    mdata = make_mudata({"values": adata})
    mdata.obs["donor"] = group[[int(name.removeprefix("cell")) for name in mdata.obs_names]]
    FactorVI.setup_mudata(mdata, {"values": "normal"})
    model = FactorVI(mdata, n_factors=2, groups="donor")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        model.train(60, batch_size=54, **QUIET)
    factors = model.get_latent_representation()
    cells = [int(name.removeprefix("cell")) for name in mdata.obs_names]
    own = int(np.abs(np.corrcoef(factors.T, z[cells].T)[:2, 2]).argmax())
    scales = model.module.group_variance[:, own].tolist()
    found = dict(zip(model.module_spec.groups, scales, strict=True))
    # Ten cells of a common scale are added to each group's 54.
    truth = {name: float(z[group == name, 0].var()) for name in found}
    for name in ("still", "wild"):
        expected = (54 * truth[name] / np.mean(z[:, 0] ** 2) + 10) / 64
        assert abs(np.log(found[name] / expected)) < 0.25, (name, found[name], expected)


def test_a_list_of_groups_and_half_a_fit_are_refused_by_name() -> None:
    mdata = small_mosaic(60)
    mdata.obs["donor"] = np.resize(["a", "b"], 60)
    FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    several: Any = ["donor"]
    with pytest.raises(RequestError, match=r"'groups'.*one column"):
        FactorVI(mdata, n_factors=2, groups=several)
    with pytest.raises(RequestError, match=r"'restarts'.*1\.5"):
        FactorVI(mdata, n_factors=2).train(1, restarts=1.5, **QUIET)
