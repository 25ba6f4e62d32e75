"""Models that are given other cells than those that trained them, and saved again."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from tests.fits import QUIET, answer, build, fit, small_mosaic
from tests.helpers import cell_names, counts_modality, make_mudata

from mosaicvi import FactorVI, MosaicVI
from mosaicvi._errors import DataError, RequestError
from mosaicvi.graph import from_table

if TYPE_CHECKING:
    from pathlib import Path

    from mudata import MuData

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

N_CELLS, N_FEW = 160, 40


def data() -> MuData:
    return small_mosaic(N_CELLS, patterns={"rna+protein": 1.0})


def renamed(mdata: MuData) -> MuData:
    parts = {name: part.copy() for name, part in mdata.mod.items()}
    for part in parts.values():
        part.obs_names = [f"other_{cell}" for cell in part.obs_names]
    return make_mudata(parts)


def few() -> MuData:
    return make_mudata({name: part[:N_FEW].copy() for name, part in data().mod.items()})


def load(folder: Path, mdata: object) -> MosaicVI:
    return MosaicVI.load(folder, mdata, accelerator="cpu")  # type: ignore[arg-type]


def split(model: MosaicVI) -> dict[str, set[str]]:
    names = model.adata.obs_names
    return {
        part: set(names[getattr(model, f"{part}_indices")])
        for part in ("train", "validation", "test")
    }


@pytest.fixture(scope="module")
def model() -> MosaicVI:
    return fit(build(data()), 1, train_size=0.6, validation_size=0.3)


@pytest.fixture(scope="module")
def saved(model: MosaicVI, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "m"
    model.save(folder)
    return folder


@pytest.mark.parametrize("cells", ["part", "other", "all"])
def test_a_model_that_is_saved_with_other_cells_keeps_its_split(
    model: MosaicVI, saved: Path, tmp_path: Path, cells: str
) -> None:
    given = {"part": few, "other": lambda: renamed(few()), "all": data}[cells]()
    loaded = load(saved, given)
    loaded.save(tmp_path / "again")
    assert split(load(tmp_path / "again", data())) == split(model)


def test_a_model_that_is_trained_on_counts_the_cells_of_both_fits(
    model: MosaicVI, saved: Path, tmp_path: Path
) -> None:
    """Weights go on from the first fit, so that its cells are held out of nothing."""
    loaded = fit(load(saved, few()), 1)
    loaded.save(tmp_path / "again")
    again, first, second = split(load(tmp_path / "again", data())), split(model), split(loaded)
    assert again["train"] == first["train"] | second["train"]
    assert again["validation"] == second["validation"]
    assert not again["validation"] & again["train"]


def test_imputability_of_too_few_cells_is_not_kept(
    model: MosaicVI, saved: Path, tmp_path: Path
) -> None:
    loaded = load(saved, few())
    first = answer(loaded, "protein", ["rna"])
    assert 0 < first.uns["mosaicvi"]["imputability_cells"] < 20
    assert np.isnan(first.var["imputability"]).all()
    loaded.save(tmp_path / "again")
    again = answer(load(tmp_path / "again", data()), "protein", ["rna"])
    assert again.uns["mosaicvi"]["imputability_cells"] == len(model.validation_indices)
    assert np.isfinite(again.var["imputability"]).any()


def test_other_data_are_set_and_the_split_is_found(
    model: MosaicVI, saved: Path, tmp_path: Path
) -> None:
    order = np.random.default_rng(0).permutation(N_CELLS)
    shuffled = make_mudata({name: part[order].copy() for name, part in data().mod.items()})
    loaded = load(saved, data())
    loaded.adata = shuffled
    assert loaded.adata is shuffled
    assert split(loaded) == split(model)
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), model.get_latent_representation()[order]
    )
    # A part of the cells, and back.
    loaded.adata = few()
    assert all(split(loaded)[part] < cells for part, cells in split(model).items())
    loaded.save(tmp_path / "again")
    loaded.adata = data()
    assert split(loaded) == split(load(tmp_path / "again", data())) == split(model)


def test_data_are_set_where_there_were_none(model: MosaicVI, saved: Path) -> None:
    loaded = load(saved, False)
    assert loaded.adata is None
    loaded.adata = data()
    assert split(loaded) == split(model)


def test_a_view_is_refused_and_nothing_changes(saved: Path) -> None:
    loaded = load(saved, data())
    before = loaded.adata
    with pytest.raises(DataError, match="view"):
        loaded.adata = data()[:N_FEW]
    assert loaded.adata is before


def test_an_untrained_model_has_no_split() -> None:
    untrained = build(data())
    untrained.adata = few()
    assert untrained.train_indices is None
    fit(untrained, 1)
    assert len(untrained.train_indices) + len(untrained.validation_indices) == N_FEW


def test_anchors_are_sought_again_among_other_cells() -> None:
    """They are rows of the cells among which they were found."""
    mdata = data()
    proteins = mdata["protein"].var_names
    links = pd.DataFrame({"source": mdata["rna"].var_names[: len(proteins)], "target": proteins})
    graph = from_table(mdata, links, "rna", "protein")
    model = fit(build(mdata, graph=graph, alignment="anchors"), 1)
    assert model.anchors is not None
    model.adata = few()
    fit(model, 1)
    pairs = model.anchors.pairs["rna", "protein"]
    assert len(pairs.left)
    assert max(pairs.left.max(), pairs.right.max()) < N_FEW


def test_cells_without_a_modality_are_not_in_the_bound(model: MosaicVI) -> None:
    """They have no nats: a mean over them too would be the nearer to zero."""
    extra = counts_modality(cell_names(N_CELLS), ["x1", "x2", "x3"])
    query = make_mudata({**{name: part.copy() for name, part in data().mod.items()}, "x": extra})
    held = np.flatnonzero(~query.obs_names.isin(extra.obs_names))
    assert len(held) == N_CELLS
    assert query.n_obs > N_CELLS
    assert model.get_elbo(query) == pytest.approx(model.get_elbo(query, held), rel=1e-6)
    with pytest.raises(RequestError, match="holds 'rna', 'protein'"):
        model.get_elbo(query, np.setdiff1d(np.arange(query.n_obs), held))


def test_loading_leaves_the_global_random_state_alone(saved: Path, tmp_path: Path) -> None:
    mdata = small_mosaic(60)
    FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    factors = FactorVI(mdata, n_factors=2)
    factors.train(1, **QUIET)
    factors.save(tmp_path / "factors")
    for cls, folder in ((MosaicVI, saved), (FactorVI, tmp_path / "factors")):
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        cls.load(folder, False, accelerator="cpu")
        assert torch.equal(torch.rand(3), expected), cls.__name__


@pytest.mark.parametrize("kind", [MosaicVI, FactorVI])
def test_a_deep_copy_is_a_model_of_its_own(kind: type[MosaicVI | FactorVI]) -> None:
    data = small_mosaic(60)
    kind.setup_mudata(data, {"rna": "nb", "protein": "nb_mixture"})
    model = kind(data, 3)
    model.train(2, **QUIET)
    before = model.get_latent_representation()
    twin = copy.deepcopy(model)
    assert twin.adata is data
    np.testing.assert_array_equal(twin.get_latent_representation(), before)
    twin.train(2, **QUIET)
    assert not np.array_equal(twin.get_latent_representation(), before)
    np.testing.assert_array_equal(model.get_latent_representation(), before)


def test_a_model_is_not_pickled_with_its_data(tmp_path: Path) -> None:
    """What mudata's pickles hold cannot be read back: the fit would be lost."""
    model = fit(build(small_mosaic(60)), 1)
    with pytest.raises(RequestError, match=r"pickled.*model\.save"):
        pickle.dumps(model)
    model.save(tmp_path / "m")
    bare = MosaicVI.load(tmp_path / "m", False, accelerator="cpu")
    again = pickle.loads(pickle.dumps(bare))
    np.testing.assert_array_equal(
        again.get_latent_representation(small_mosaic(60)), model.get_latent_representation()
    )


@pytest.mark.parametrize("bare", [False, True])
def test_cells_that_were_asked_about_are_forgotten_on_request(bare: bool, tmp_path: Path) -> None:
    """A service that is asked about one MuData after the other would else keep all of them."""
    own = small_mosaic(60)
    model = fit(build(own), 1)
    latent = model.get_latent_representation()
    if bare:
        model.save(tmp_path / "m")
        model = MosaicVI.load(tmp_path / "m", False, accelerator="cpu")
    queries = [small_mosaic(20, seed=seed) for seed in (5, 6, 7)]
    answers = [model.get_latent_representation(query) for query in queries]
    kept = weakref.ref(queries[0])
    model.deregister_manager(queries.pop(0))
    gc.collect()
    assert kept() is None
    for query, answered in zip(queries, answers[1:], strict=True):
        np.testing.assert_array_equal(model.get_latent_representation(query), answered)
    kept = weakref.ref(queries[0])
    model.deregister_manager()
    queries.clear()
    gc.collect()
    assert kept() is None
    np.testing.assert_array_equal(model.get_latent_representation(own if bare else None), latent)
