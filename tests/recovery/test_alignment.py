"""Draw assays that share no cells, fit with the graph of their links, and find types again."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from scipy import stats
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from tests.fits import QUIET
from tests.unpaired import EPOCHS, LIKELIHOODS, draw, fit, graph_of

from mosaicvi import MosaicVI
from mosaicvi.alignment._held_out import ENOUGH_TO_REFUSE
from mosaicvi.nn._aligned_inputs import LENGTH
from mosaicvi.tl._latents import unimodal_cells

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")

UNPAIRED = {"rna": 0.5, "protein": 0.5}


def rewired(links: pd.DataFrame, share: float, seed: int = 0) -> pd.DataFrame:
    """Links of which a share points to the source of another."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(links)) < round(share * len(links))
    source = links["source"].to_numpy(copy=True)
    source[chosen] = np.roll(source[chosen], 1 + len(source) // 7)
    return links.assign(source=source)


@dataclass(frozen=True)
class Transfer:
    """Types carried from one modality's cells to those of another."""

    accuracy: float
    chance: float
    n_cells: int


def cells_with(mdata: MuData, name: str) -> np.ndarray:
    return np.flatnonzero(np.asarray(mdata.obsmap[name]).ravel() > 0)


def transfer(model: MosaicVI, mdata: MuData, source: str, target: str) -> Transfer:
    """Nearest neighbours in the latent space, between cells that have one of the two alone."""
    rows = {
        name: np.setdiff1d(cells_with(mdata, name), cells_with(mdata, other))
        for name, other in ((source, target), (target, source))
    }
    z = {
        name: model.get_latent_representation(indices=cells, from_modalities=[name])
        for name, cells in rows.items()
    }
    types = mdata.obs["cell_type"].to_numpy().astype(str)
    vote = KNeighborsClassifier(15).fit(z[source], types[rows[source]])
    truth = types[rows[target]]
    accuracy = float((vote.predict(z[target]) == truth).mean())
    largest = max(float((truth == name).mean()) for name in np.unique(truth))
    return Transfer(accuracy, largest, len(truth))


@pytest.fixture(scope="module")
def data() -> MuData:
    return draw(UNPAIRED)


@pytest.fixture(scope="module")
def aligned(data: MuData) -> MosaicVI:
    return fit(data, graph_of(data, data.uns["links"]))


def test_types_transfer_between_modalities_without_pairs(data: MuData, aligned: MosaicVI) -> None:
    assert (np.asarray(data.obsmap["rna"]) * np.asarray(data.obsmap["protein"]) == 0).all()
    for both in (("rna", "protein"), ("protein", "rna")):
        found = transfer(aligned, data, *both)
        # Far above always naming the most frequent type, by a binomial bound.
        least = stats.binom.ppf(1 - 1e-6, found.n_cells, found.chance) / found.n_cells
        assert found.accuracy > least + 0.08


def test_the_links_bring_it_about(data: MuData, aligned: MosaicVI) -> None:
    right = transfer(aligned, data, "rna", "protein")
    links = data.uns["links"]
    permuted = links.assign(source=np.roll(links["source"].to_numpy(), 11))
    wrong = transfer(fit(data, graph_of(data, permuted)), data, "rna", "protein")
    assert right.accuracy > wrong.accuracy + 0.15
    apart = MosaicVI(data, n_latent=10, n_hidden=64, alignment="none")
    apart.train(EPOCHS, **QUIET)
    assert right.accuracy > transfer(apart, data, "rna", "protein").accuracy + 0.15


@pytest.mark.parametrize("seed", [1, 2])
def test_not_by_the_luck_of_one_seed(seed: int) -> None:
    mdata = draw(UNPAIRED, seed=seed)
    found = transfer(fit(mdata, graph_of(mdata, mdata.uns["links"])), mdata, "rna", "protein")
    least = stats.binom.ppf(1 - 1e-6, found.n_cells, found.chance) / found.n_cells
    assert found.accuracy > least + 0.04


def test_pairs_help_the_cells_that_have_none(data: MuData, aligned: MosaicVI) -> None:
    some = draw({"rna+protein": 0.3, "rna": 0.35, "protein": 0.35})
    model = fit(some, graph_of(some, some.uns["links"]))
    assert len(model.module.aligned) == 2
    with_pairs = transfer(model, some, "rna", "protein")
    assert with_pairs.accuracy > transfer(aligned, data, "rna", "protein").accuracy + 0.08


def test_pairs_of_strangers_are_refused_aloud() -> None:
    some = draw({"rna+protein": 0.3, "rna": 0.35, "protein": 0.35})
    edges = graph_of(some, some.uns["links"])

    def start(mdata: MuData) -> list[str]:
        MosaicVI.setup_mudata(mdata, {m: LIKELIHOODS[m] for m in mdata.mod}, batch_key="batch")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            MosaicVI(mdata, graph=edges)
        return [str(warning.message) for warning in caught]

    assert not any("strangers" in text for text in start(some))
    protein = some["protein"].copy()
    both = np.flatnonzero(protein.obs_names.isin(some["rna"].obs_names))
    assert len(both) >= ENOUGH_TO_REFUSE
    names = protein.obs_names.to_numpy().astype(object)
    names[both] = names[np.roll(both, 7)]
    protein.obs_names = names
    del protein.obs["batch"]
    wrong = MuData({"rna": some["rna"].copy(), "protein": protein})
    wrong.obs["batch"] = some.obs["batch"].reindex(wrong.obs_names)
    (said,) = (text for text in start(wrong) if "strangers" in text)
    assert f"the {len(both)} cells that hold both 'rna' and 'protein'" in said


def test_three_modalities_of_which_no_two_share_cells() -> None:
    mdata = draw({"rna": 1 / 3, "protein": 1 / 3, "atac": 1 / 3}, 1200)
    model = fit(mdata, graph_of(mdata, mdata.uns["links"]))
    # Proteins and peaks are linked through genes alone.
    for both in (("rna", "protein"), ("rna", "atac"), ("atac", "protein"), ("protein", "atac")):
        found = transfer(model, mdata, *both)
        least = stats.binom.ppf(1 - 1e-6, found.n_cells, found.chance) / found.n_cells
        assert found.accuracy > least + 0.05, both


def test_imputation_is_less_sure_than_with_pairs_and_covers(
    data: MuData, aligned: MosaicVI
) -> None:
    paired_data = draw({"rna+protein": 1.0})
    paired = fit(paired_data, None)
    names = data.obs_names[cells_with(data, "rna")]
    width = {}
    for key, model, mdata in (("none", aligned, data), ("all", paired, paired_data)):
        answer = model.impute("protein", from_modalities=["rna"], n_samples=60)
        rows = answer.obs_names.get_indexer(names)
        low, high = (answer.layers[name][rows] for name in ("q05", "q95"))
        truth = mdata.obsm["truth_protein"].toarray()[mdata.obs_names.get_indexer(names)]
        width[key] = (np.log1p(high) - np.log1p(low)).mean(0)
        assert ((truth >= low) & (truth <= high)).mean() > 0.8
    # Protein by protein, but for the two isotype controls, which are background alone.
    wider = width["none"][:-2] > width["all"][:-2]
    assert wider.mean() > 0.8
    assert width["none"].mean() > 1.05 * width["all"].mean()


def test_places_follow_their_cells(data: MuData, aligned: MosaicVI) -> None:
    cells = unimodal_cells(aligned, "rna", None, key="modalities")
    places, module = cells.places, aligned.module.aligned["rna"]
    assert (places.own.shape[1], places.shared.shape[1]) == module.widths
    np.testing.assert_allclose(np.linalg.norm(places.shared, axis=1), LENGTH, rtol=1e-5)
    scores = (places.own - module.center.numpy()) @ module.weights.numpy()
    length = np.linalg.norm(scores, axis=1, keepdims=True)
    np.testing.assert_allclose(places.shared, LENGTH * scores / length, atol=1e-4)
    order = np.random.default_rng(0).permutation(data.n_obs)
    mixed = unimodal_cells(aligned, "rna", data[order].copy(), key="modalities")
    rows = pd.Index(mixed.names).get_indexer(cells.names)
    assert not (rows == np.arange(len(rows))).all()
    for name in ("latent", "shared", "own"):
        here, there = getattr(places, name), getattr(mixed.places, name)[rows]
        np.testing.assert_allclose(here, there, atol=1e-5)


def test_edges_that_were_rewired_get_less_confidence() -> None:
    mdata = draw({"rna": 0.5, "atac": 0.5}, 1000)
    links = mdata.uns["links"]
    model = fit(mdata, graph_of(mdata, rewired(links, 0.3)))
    table = model.get_edge_confidence()
    true = set(zip(links["source"], links["target"], strict=True))
    is_true = [both in true for both in zip(table["source"], table["target"], strict=True)]
    assert 0.6 < np.mean(is_true) < 0.8
    assert table["confidence"].between(0.01, 1.0).all()
    assert roc_auc_score(is_true, table["confidence"]) > 0.7


def test_a_saved_model_keeps_its_graph_and_answers(
    data: MuData, aligned: MosaicVI, tmp_path: Path
) -> None:
    aligned.save(tmp_path / "model")
    loaded = MosaicVI.load(tmp_path / "model", data, accelerator="cpu")
    assert aligned.graph is not None
    assert loaded.graph is not None
    pd.testing.assert_frame_equal(loaded.graph.to_pandas(), aligned.graph.to_pandas())
    for name in aligned.graph.modalities:
        assert list(loaded.graph.names(name)) == list(aligned.graph.names(name))
    for name in ("rna", "protein"):
        rows = cells_with(data, name)
        np.testing.assert_array_equal(
            loaded.get_latent_representation(indices=rows, from_modalities=[name]),
            aligned.get_latent_representation(indices=rows, from_modalities=[name]),
        )
    np.testing.assert_array_equal(
        loaded.get_edge_confidence()["confidence"], aligned.get_edge_confidence()["confidence"]
    )
    answers = [
        model.impute("protein", ["rna"], indices=cells_with(data, "rna")[:50], n_samples=9)
        for model in (aligned, loaded)
    ]
    np.testing.assert_array_equal(answers[0].layers["sd"], answers[1].layers["sd"])
    # The file holds no anchors: they are found again, the same ones.
    loaded.train(1, **QUIET)
    assert aligned.anchors is not None
    assert loaded.anchors is not None
    for both, pairs in aligned.anchors.pairs.items():
        np.testing.assert_array_equal(loaded.anchors.pairs[both].left, pairs.left)
        np.testing.assert_array_equal(loaded.anchors.pairs[both].right, pairs.right)


def test_same_seed_same_result(data: MuData, aligned: MosaicVI) -> None:
    again = fit(data, graph_of(data, data.uns["links"]))
    other = fit(data, graph_of(data, data.uns["links"]), seed=1)
    z = [model.get_latent_representation() for model in (aligned, again, other)]
    np.testing.assert_array_equal(z[0], z[1])
    assert np.abs(z[0] - z[2]).max() > 0.1
