"""Labels, matches, confidence, reports and atlases with a small fitted model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from lightning.pytorch import Callback
from tests.fits import QUIET, build, fit, small_mosaic, without_truth
from tests.helpers import counts_modality, fingerprint, make_mudata

from mosaicvi import MosaicVI, graph, pl, tl
from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi.datasets import SimulatedModality, simulate
from mosaicvi.tl._atlas_graph import AtlasGraph, tied
from mosaicvi.tl._build_atlas import _mudata, _named
from mosaicvi.tl._latents import unimodal_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

TYPES, CONFIDENCE = "cell_type", "mosaicvi_alignment_confidence"


@pytest.fixture(scope="module")
def model() -> MosaicVI:
    mdata = small_mosaic(360, n_proteins=12, separation=0.9, n_types=4)
    # Half of so few units would be too few: modalities would lie apart.
    return fit(build(mdata, dropout_rate=0.35), max_epochs=40)


@pytest.fixture
def mdata(model: MosaicVI) -> MuData:
    """The model's cells, as a user's copy that a test may change."""
    return model.adata.copy()


def test_labels_are_written_and_mostly_right(model: MosaicVI, mdata: MuData) -> None:
    before = fingerprint(model.adata)
    copied = tl.transfer_labels(
        model, TYPES, source="rna", target="protein", adata=mdata, n_neighbours=10, copy=True
    )
    assert fingerprint(model.adata) == before
    assert f"mosaicvi_{TYPES}" not in mdata.obs
    has_protein = copied.obs_names.isin(copied["protein"].obs_names)
    given, chance = copied.obs[f"mosaicvi_{TYPES}"], copied.obs[f"mosaicvi_{TYPES}_probability"]
    assert given[~has_protein].isna().all()
    assert chance[~has_protein].isna().all()
    assert chance[has_protein].between(0, 1).all()
    known = given.notna()
    assert (chance[known] >= 0.5).all()
    assert (copied.obs[f"mosaicvi_{TYPES}_confidence"][known] >= 0.5).all()
    truth = copied.obs[TYPES].astype(str)
    assert known.sum() > 0.5 * has_protein.sum()
    assert (given[known].astype(str) == truth[known]).mean() > 0.7
    record = copied.uns["mosaicvi"]["transfer_labels"]
    assert record["source"] == "rna"
    assert record["temperature"] > 0


def test_labels_in_place_from_the_source_alone(model: MosaicVI, mdata: MuData) -> None:
    mdata["rna"].obs["mine"] = np.where(np.arange(mdata["rna"].n_obs) % 5 == 0, None, "x")
    mdata["rna"].obs.loc[mdata["rna"].obs_names[1:80:5], "mine"] = "y"
    found = tl.transfer_labels(
        model, "mine", source="rna", target="protein", adata=mdata, key_added="t", min_confidence=0
    )
    assert found is None
    assert set(mdata.obs["t"].cat.categories) == {"x", "y"}


def test_answers_are_those_of_the_cells_whatever_their_order(
    model: MosaicVI, mdata: MuData
) -> None:
    """What is drawn among cells goes by their names."""
    rng = np.random.default_rng(0)
    mixed = make_mudata(
        {
            name: mdata[name][rng.permutation(mdata[name].n_obs)].copy()
            for name in reversed(list(mdata.mod))
        }
    )
    for data in (mdata, mixed):
        tl.transfer_labels(model, TYPES, source="rna", target="protein", adata=data)
        tl.alignment_confidence(model, adata=data)
    ours, theirs = mdata.obs, mixed.obs.loc[mdata.obs_names]
    assert not mixed.obs_names.equals(mdata.obs_names)
    for key in (f"{TYPES}_probability", f"{TYPES}_confidence", "alignment_confidence"):
        np.testing.assert_allclose(ours[f"mosaicvi_{key}"], theirs[f"mosaicvi_{key}"], atol=1e-6)
    matches, others = (tl.match_cells(model, adata=data) for data in (mdata, mixed))
    assert list(matches["source"].unique()) == [
        cell for cell in mdata.obs_names if cell in mdata["rna"].obs_names
    ]
    others = others.set_index("source").loc[matches["source"]]
    for key in ("target", "mutual"):
        assert list(matches[key]) == list(others[key])
    np.testing.assert_allclose(matches["confidence"], others["confidence"], atol=1e-6)


def test_bad_requests_of_labels(model: MosaicVI, mdata: MuData) -> None:
    def ask(
        key: str = TYPES, source: str = "rna", target: str = "protein", **options: float
    ) -> None:
        tl.transfer_labels(model, key, source=source, target=target, adata=mdata, **options)

    with pytest.raises(RequestError, match="atac"):
        ask(source="atac")
    with pytest.raises(RequestError, match="another modality"):
        ask(target="rna")
    with pytest.raises(RequestError, match="min_probability"):
        ask(min_probability=2)
    with pytest.raises(RequestError, match="n_neighbours"):
        ask(n_neighbours=10.5)
    with pytest.raises(DataError, match="in no obs"):
        ask("absent")
    mdata["rna"].obs["empty"] = None
    with pytest.raises(DataError, match="empty"):
        ask("empty")
    mdata["rna"].obs["one"] = "T"
    with pytest.raises(DataError, match="two or more"):
        ask("one")
    mdata["rna"].obs["apart"] = np.resize(["T", "B"], mdata["rna"].n_obs)
    mdata["protein"].obs["apart"] = np.resize(["Tc", "Bc"], mdata["protein"].n_obs)
    with pytest.raises(DataError, match=r"conflict|share none"):
        ask("apart")
    only = ~mdata["protein"].obs_names.isin(mdata["rna"].obs_names)
    mdata["protein"].obs.loc[~only, "apart"] = None
    with pytest.raises(DataError, match="share none"):
        ask("apart")


def test_confidence_of_every_cell(model: MosaicVI, mdata: MuData) -> None:
    tl.alignment_confidence(model, adata=mdata)
    assert mdata.obs["mosaicvi_alignment_confidence"].between(0, 1).all()
    table = mdata.obsm["mosaicvi_alignment_confidence"]
    pairs = mdata.uns["mosaicvi"]["alignment_confidence"]["pairs"]
    assert list(pairs) == ["rna>protein", "protein>rna"]
    has_rna = mdata.obs_names.isin(mdata["rna"].obs_names)
    np.testing.assert_array_equal(np.isfinite(table[:, 0]), has_rna)
    with pytest.raises(RequestError, match="two modalities"):
        tl.alignment_confidence(model, modalities=["rna"])
    for wrong in ([0], 0, [5.5], []):
        with pytest.raises(RequestError, match="n_neighbours"):
            tl.alignment_confidence(model, n_neighbours=wrong)
    with pytest.raises(RequestError, match=r"only \['rna'\]"):
        tl.alignment_confidence(model, modalities="rna")
    one = tl.alignment_confidence(model, adata=mdata, n_neighbours=10, copy=True)
    same = tl.alignment_confidence(model, adata=mdata, n_neighbours=np.array([10]), copy=True)
    np.testing.assert_array_equal(one.obsm[CONFIDENCE], same.obsm[CONFIDENCE])


def test_without_anchors_the_latent_is_all_that_is_known(model: MosaicVI) -> None:
    places = unimodal_cells(model, "rna", None, key="modalities").places
    assert places.shared is places.latent
    assert places.own is places.latent


def test_matches_within_groups(model: MosaicVI) -> None:
    matches = tl.match_cells(model, "rna", "protein", k=2, group_key="batch")
    batch = model.adata.obs["batch"].astype(str)
    left, right = batch.loc[matches["source"]], batch.loc[matches["target"]]
    np.testing.assert_array_equal(left.to_numpy(), right.to_numpy())
    assert (matches.groupby("source").size() == 2).all()
    single = tl.match_cells(model, "protein", "rna", one_to_one=True)
    assert single["target"].is_unique
    assert single["source"].is_unique
    with pytest.raises(RequestError, match="one_to_one"):
        tl.match_cells(model, k=2, one_to_one=True)


def test_figure(model: MosaicVI, mdata: MuData) -> None:
    tl.alignment_confidence(model, adata=mdata)
    mdata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(mdata.n_obs, 2))
    panels = pl.alignment(mdata, TYPES, batch_key="batch")
    titles = [panel.get_title(loc="left") for panel in panels]
    assert titles == ["modality", "label", "batch", "alignment confidence", "confidence by label"]
    assert len(pl.alignment(mdata, ax=panels[:2])) == 2
    with pytest.raises(RequestError, match="one a panel"):
        pl.alignment(mdata, TYPES, ax=panels[:2])
    with pytest.raises(RequestError, match="absent"):
        pl.alignment(mdata, "absent")
    with pytest.raises(RequestError, match="X_mosaicvi"):
        pl.alignment(mdata, umap_key="absent")
    confidence = mdata.obs["mosaicvi_alignment_confidence"].copy()
    without = mdata.obs[TYPES].where(confidence.isna())
    for values, labels, number in ((np.nan, mdata.obs[TYPES], 2), (confidence, without, 3)):
        mdata.obs["few"], mdata.obs["some"] = values, labels
        assert len(pl.alignment(mdata, "some", confidence_key="few")) == number


def test_figure_names_categories_in_their_order(model: MosaicVI, mdata: MuData) -> None:
    mdata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(mdata.n_obs, 2))
    mdata.obs[CONFIDENCE] = 0.5
    numbers = np.arange(mdata.n_obs) % 11
    mdata.obs["leiden"] = pd.Categorical(numbers.astype(str), map(str, range(12)))
    mdata.obs["plate"] = np.where(numbers == 3, np.nan, numbers)
    panels = pl.alignment(mdata, "plate", batch_key="leiden")
    label, batch = ([text.get_text() for text in p.get_legend().texts] for p in panels[1:3])
    assert batch == [str(number) for number in range(11)]
    assert label == ["0", "1", "2", *[str(number) for number in range(4, 11)], "none"]
    assert {text.get_text() for text in panels[4].get_yticklabels()} == set(label[:-1])
    mdata.obs["score"] = np.random.default_rng(0).normal(size=mdata.n_obs)
    with pytest.raises(RequestError, match=r"'score'.*different numbers.*qcut"):
        pl.alignment(mdata, "score")


@pytest.fixture(scope="module")
def paired() -> MuData:
    specs = {
        "rna": SimulatedModality.rna(40, likelihood="nb"),
        "protein": SimulatedModality.protein(6),
    }
    return without_truth(simulate(120, specs, n_latent=3, seed=1))


def genes_and_peaks(genes: Sequence[str]) -> MuData:
    """Cells with some genes and three peaks, at 1, 50 and 200 kilobases."""
    cells = [f"c{i}" for i in range(4)]
    peaks = [f"chr1:{place}-{place + 100}" for place in (1000, 50_000, 200_000)]
    return make_mudata(
        {"rna": counts_modality(cells, genes), "atac": counts_modality(cells, peaks)}
    )


def genes_table(chromosome: str) -> pd.DataFrame:
    """Annotation of one gene that holds the first two peaks."""
    place = {"chrom": chromosome, "start": 900, "end": 60_000, "gene": "GENE1", "strand": "+"}
    return pd.DataFrame([place])


def test_atlas_in_one_call(paired: MuData) -> None:
    assays = {name: part.copy() for name, part in paired.mod.items()}
    mdata, model = tl.build_atlas(
        assays,
        batch_key="batch",
        likelihoods={"rna": "nb"},
        model_kwargs={"n_latent": 4, "n_hidden": 16},
        train_kwargs={"max_epochs": 2, **QUIET},
    )
    assert set(mdata.obs_names) == set(paired.obs_names)
    assert mdata.obsm["X_umap"].shape == (mdata.n_obs, 2)
    assert mdata.obsm["X_mosaicvi"].shape == (mdata.n_obs, 4)
    assert mdata.obs["mosaicvi_alignment_confidence"].notna().all()
    assert mdata.obsp["connectivities"].shape == (mdata.n_obs, mdata.n_obs)
    assert list(mdata.obs.loc[paired.obs_names, "atlas_batch"]) == list(paired.obs["batch"])
    assert model.is_trained


@pytest.mark.parametrize("key", ["day", None])
def test_atlas_warns_of_batches_by_the_name_that_they_were_given(key: str | None) -> None:
    rna = counts_modality([f"a{i}" for i in range(60)], ["CD4", *map("GENE{}".format, range(9))])
    protein = counts_modality([f"b{i}" for i in range(60)], ["CD4", "CD8a"])
    for day, part in enumerate((rna, protein)):
        part.obs["day"] = f"day{day}"
    with pytest.warns(MosaicviWarning, match="inseparable") as found:
        tl.build_atlas(
            {"rna": rna, "protein": protein},
            batch_key=key,
            model_kwargs={"n_latent": 4, "n_hidden": 16},
            train_kwargs={"max_epochs": 1, **QUIET},
        )
    (said,) = (str(each.message) for each in found if "inseparable" in str(each.message))
    assert said.startswith("batch_key 'day' and" if key else "batch (no batch_key: each assay is")
    assert "atlas_batch" not in said


def test_atlas_takes_views_and_leaves_them_views(paired: MuData) -> None:
    view = paired["rna"][:50]
    found = _named({"rna": view, "protein": paired["protein"]}, None)
    assert view.is_view
    assert not found["rna"].is_view
    assert list(found["rna"].obs_names) == list(view.obs_names)
    np.testing.assert_array_equal(found["rna"].X.toarray(), view.X.toarray())


def test_atlas_of_what_nothing_ties(paired: MuData) -> None:
    rna, other = paired["rna"].copy(), paired["protein"].copy()
    other.obs_names = "other:" + other.obs_names
    with pytest.raises(DataError, match="nothing ties"):
        tl.build_atlas({"rna": rna, "spots": other}, likelihoods={"spots": "nb"})
    with pytest.raises(RequestError, match="a name for each"):
        tl.build_atlas([rna, other])
    with pytest.raises(RequestError, match="likelihood"):
        tl.build_atlas([rna, other], modalities=["rna", "spots"])
    with pytest.raises(RequestError, match="two or more"):
        tl.build_atlas({"rna": rna})


@pytest.mark.parametrize(
    ("antibodies", "with_graph"),
    [(("CD3", "CD4", "CD8a", "CD14", "CD19", "CD56"), True), ("uvwxyz", False)],
)
def test_cells_of_one_name_by_chance_are_told_of_and_features_are_asked(
    antibodies: Sequence[str], with_graph: bool
) -> None:
    genes = ["CD3D", "CD4", "CD8A", "CD14", "CD19", "NCAM1", *map("GENE{}".format, range(34))]
    rna = counts_modality([f"c{i}" for i in range(60)], genes)
    protein = counts_modality([f"c{i}" for i in range(58, 118)], antibodies)
    with pytest.warns(MosaicviWarning) as said:
        _, model = tl.build_atlas(
            {"rna": rna, "protein": protein},
            model_kwargs={"n_latent": 4, "n_hidden": 16},
            train_kwargs={"max_epochs": 1, **QUIET},
        )
    texts = [str(each.message) for each in said]
    assert any("only 2 cells hold both" in text and "(3.3%" in text for text in texts)
    assert (model.graph is not None) is with_graph
    assert any("no graph could be built" in text for text in texts) is not with_graph


def test_atlas_takes_chromosomes_of_either_style() -> None:
    built = AtlasGraph(genes_table("1")).built(genes_and_peaks(["GENE1"]))
    assert len(built.edges.source) == 2


def test_atlas_passes_the_rule_and_symbols_to_the_builder() -> None:
    mdata = genes_and_peaks(["a"])
    mdata["rna"].var["short"] = ["GENE1"]
    wide = AtlasGraph(genes_table("chr1"), graph.Window(200_000), "short").built(mdata)
    assert len(wide.edges.source) == 3
    assert len(AtlasGraph(genes_table("chr1"), None, "short").built(mdata).edges.source) == 2
    with pytest.raises(RequestError, match="absent"):
        AtlasGraph(genes_table("chr1"), None, "absent").built(mdata)


def test_atlas_says_which_settings_of_a_graph_have_no_use(paired: MuData) -> None:
    assays = dict(paired.mod)
    empty = graph.FeatureGraph({name: part.var_names for name, part in assays.items()})
    with pytest.raises(RequestError, match=r"'rule'.*either graph= or rule, gene_symbols"):
        tl.build_atlas(assays, graph=empty, rule=graph.Window(), gene_symbols="short")
    with pytest.raises(RequestError, match=r"'rule'.*genes and peaks.*'protein'"):
        tl.build_atlas(assays, rule=graph.Window(), likelihoods={"rna": "nb"})


def test_atlas_reads_symbols_of_genes_named_by_identifiers() -> None:
    cells = [f"c{i}" for i in range(4)]
    genes = [f"ENSG{i:011d}" for i in range(12)]
    symbols = ["CD3D", "CD4", "MS4A1", *[f"ACTB{i}" for i in range(9)]]
    parts = {"rna": counts_modality(cells, genes), "protein": counts_modality(cells, ["CD4"])}
    with pytest.raises(DataError, match="called gene_symbols"):
        AtlasGraph().built(make_mudata(parts))
    parts["rna"].var["mine"] = symbols
    assert len(AtlasGraph(gene_symbols="mine").built(make_mudata(parts)).edges.source) == 1
    parts["rna"].var["gene_symbols"] = symbols
    assert len(AtlasGraph().built(make_mudata(parts)).edges.source) == 1


def test_atlas_asks_for_no_graph_of_assays_that_cells_tie() -> None:
    ours, theirs = [f"c{i}" for i in range(6)], [f"d{i}" for i in range(6)]
    genes = ["CD3D", "CD4", "MS4A1", *[f"ACTB{i}" for i in range(9)]]
    paired = {
        "rna": counts_modality(ours, genes),
        "atac": counts_modality(ours, ["chr1:100-200"]),  # where genes lie is not known
        "methylation": counts_modality(ours, ["region"]),  # which no builder knows
    }
    unpaired = {"protein": counts_modality(theirs, ["CD4"])}
    built = AtlasGraph().needed(make_mudata({**paired, **unpaired}))
    assert built is not None
    assert set(built.modalities) == {*paired, "protein"}
    assert set(built.to_pandas()["target_modality"]) == {"protein"}
    # What the user asked for is built, or it is said why not.
    with pytest.raises(DataError, match="no gene is in the annotation"):
        AtlasGraph(genes_table("chr1")).needed(make_mudata({**paired, **unpaired}))
    apart = {**paired, "methylation": counts_modality(["e"], ["region"])}
    with pytest.raises(DataError, match=r"'methylation'.*nothing ties"):
        AtlasGraph().needed(make_mudata({**apart, **unpaired}))


def test_atlas_of_a_mudata_is_refused(paired: MuData) -> None:
    with pytest.raises(RequestError, match=r"dict\(mdata.mod\)"):
        tl.build_atlas(paired)  # type: ignore[arg-type]


def test_atlas_names_from_uns(paired: MuData) -> None:
    parts = [part.copy() for part in paired.mod.values()]
    for name, part in zip(paired.mod, parts, strict=True):
        part.uns["modality"] = name
    mdata = _mudata(_named(parts, None), None)
    assert list(mdata.mod) == list(paired.mod)
    assert len(tied(mdata)) == 1
    assert isinstance(mdata.obs["atlas_batch"].dtype, pd.CategoricalDtype)


def test_consistency_is_correlation_over_metacells(model: MosaicVI) -> None:
    data = model.adata
    genes, proteins = data["rna"].var_names, data["protein"].var_names
    rows = pd.DataFrame(
        {"source": genes[: len(proteins)], "target": proteins, "sign": 1, "weight": 1.0}
    )
    edges = graph.from_table(data, rows, "rna", "protein", weight="weight", sign="sign")
    table = tl.integration_consistency(model, edges, n_metacells=4, n_permutations=5)
    assert list(table["type"])[-1] == "all"
    assert table["consistency"].between(-1, 1).all()
    flipped = graph.from_table(
        data, rows.assign(sign=-1), "rna", "protein", weight="weight", sign="sign"
    )
    other = tl.integration_consistency(model, flipped, n_metacells=4, n_permutations=5)
    np.testing.assert_allclose(other["consistency"], -table["consistency"])
    with pytest.raises(RequestError, match="no edge"):
        tl.integration_consistency(model, graph.FeatureGraph({"rna": genes, "protein": proteins}))


@pytest.mark.parametrize("n_labelled", [0, 1])
def test_negative_transfer_wants_two_labelled_cells(model: MosaicVI, n_labelled: int) -> None:
    present = model.adata_manager.data.modalities["rna"].present
    names = np.full(model.adata.n_obs, None, dtype=object)
    names[np.flatnonzero(~present)] = "another type"
    names[np.flatnonzero(present)[:n_labelled]] = "a type"
    model.adata.obs["few"] = names
    with pytest.raises(DataError, match=rf"'rna', key 'few': {n_labelled} of \d+ cells have a"):
        tl.negative_transfer(model, "few", modalities=["rna"])
    del model.adata.obs["few"]


def test_negative_transfer_against_itself_and_a_trained_model(model: MosaicVI) -> None:
    same = tl.negative_transfer(
        model, TYPES, separate={"rna": model, "protein": model}, n_resamples=20
    )
    np.testing.assert_array_equal(same["difference"], 0)
    assert not same["harmed"].any()
    found = tl.negative_transfer(
        model,
        TYPES,
        modalities=["protein"],
        n_resamples=50,
        train_kwargs={"max_epochs": 1, **QUIET},
    )
    assert list(found["type"])[-1] == "all"
    assert (found["low"] <= found["difference"]).all()
    assert (found["difference"] <= found["high"]).all()
    np.testing.assert_allclose(found["joint"] - found["separate"], found["difference"])


def test_what_is_no_model_or_graph_is_named(model: MosaicVI) -> None:
    calls = {
        "alignment_confidence": (),
        "match_cells": (),
        "negative_transfer": (TYPES,),
        "to_anndata": (),
        "protein_background": (),
        "integration_consistency": (None,),
    }
    for name, given in calls.items():
        with pytest.raises(RequestError, match=r"'model'.*found MuData.*pass the model"):
            getattr(tl, name)(model.adata, *given)
    for graph_ in (None, nx.Graph()):
        with pytest.raises(RequestError, match=r"'graph'.*from_networkx"):
            tl.integration_consistency(model, graph_)  # type: ignore[arg-type]
    links = graph.from_names(model.adata)
    for key in ("n_metacells", "n_permutations"):
        with pytest.raises(RequestError, match=key):
            tl.integration_consistency(model, links, **{key: 0})
    with pytest.raises(RequestError, match=r"'separate'.*'RNA'.*'rna'"):
        tl.negative_transfer(model, TYPES, separate={"RNA": model})


def test_figure_takes_columns_of_the_modalities(model: MosaicVI, mdata: MuData) -> None:
    """Assays that share no cells bring their labels in an obs of their own."""
    mdata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(mdata.n_obs, 2))
    for name, each in mdata.mod.items():
        kinds = [f"{name} {kind}" for kind in "ba"]
        each.obs["kind"] = pd.Categorical(np.resize(kinds, each.n_obs), kinds)
    panel = pl.alignment(mdata, "kind")[1]
    shown = [text.get_text() for text in panel.get_legend().texts]
    # Of cells with both the first modality's.
    assert shown == ["rna b", "rna a", "protein b", "protein a"]
    panel = pl.alignment(mdata, "protein:kind")[1]
    names = [text.get_text() for text in panel.get_legend().texts]
    assert names[:2] == ["protein b", "protein a"]


class InterruptStep(Callback):
    def on_train_batch_end(self, *args: object) -> None:
        raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:training was interrupted before its first epoch")
def test_an_interrupted_fit_is_no_result(model: MosaicVI, paired: MuData) -> None:
    settings = {**QUIET, "max_epochs": 2, "callbacks": InterruptStep()}
    with pytest.raises(KeyboardInterrupt):
        tl.negative_transfer(model, "cell_type", modalities=["protein"], train_kwargs=settings)
    with pytest.raises(KeyboardInterrupt):
        tl.build_atlas({name: paired[name].copy() for name in paired.mod}, train_kwargs=settings)
    del settings["callbacks"]
    known = set(MosaicVI._setup_adata_manager_store)
    tl.negative_transfer(model, "cell_type", modalities=["protein"], train_kwargs=settings)
    assert set(MosaicVI._setup_adata_manager_store) == known


def test_cells_can_be_reordered_and_filtered_after_confidence(
    model: MosaicVI, mdata: MuData
) -> None:
    """mudata 0.3 fails on a DataFrame in obsm, in mdata[...].copy() and in mdata.update()."""
    found = tl.alignment_confidence(model, adata=mdata, copy=True)
    turned = found[np.arange(found.n_obs)[::-1]].copy()
    shown = turned.obsm[CONFIDENCE][turned.obs_names.get_indexer(found.obs_names)]
    np.testing.assert_array_equal(shown, found.obsm[CONFIDENCE])
    found.mod["rna"] = found["rna"][:50].copy()
    found.update()
    assert found.obsm[CONFIDENCE].shape == (found.n_obs, 2)


def test_names_in_a_figure_do_not_cover_each_other(model: MosaicVI, mdata: MuData) -> None:
    """Of many labels the largest are named in place, save where a larger one's name stands."""
    kinds = np.resize([f"kind {number}" for number in range(14)], mdata.n_obs)
    kinds[kinds == "kind 13"] = "kind 0"  # the largest
    mdata.obs["kind"] = kinds
    number = np.array([int(kind.split()[1]) for kind in kinds])
    number[number == 1] = 0  # at the place of the largest
    mdata.obsm["X_umap"] = np.stack([number % 4, number // 4], axis=1).astype(float)
    named = {text.get_text() for text in pl.alignment(mdata, "kind")[1].texts}
    assert "kind 0" in named
    assert "kind 1" not in named
    with pytest.raises(RequestError, match=r"batch_key.*dict.*name of one column"):
        pl.alignment(mdata, "kind", batch_key={"rna": "batch"})


def test_a_small_third_modality_leaves_the_consistency_of_two() -> None:
    """Metacells had to hold cells of all modalities, and so hardly any counted."""
    kinds = SimulatedModality
    modalities = {"rna": kinds.rna(40), "atac": kinds.atac(40), "protein": kinds.protein(14)}
    patterns = {"rna+atac": 0.5, "rna": 0.23, "atac": 0.23, "protein": 0.04}
    mdata = simulate(400, modalities, patterns=patterns, batches=1, seed=0)
    likelihoods = {name: kind.likelihood for name, kind in modalities.items()}
    names = {name: part.var_names for name, part in mdata.mod.items()}
    links = graph.FeatureGraph.from_pandas(mdata.uns["links"], names)
    model = fit(build(mdata, likelihoods, graph=links), 1)
    with pytest.warns(MosaicviWarning, match="left out.*'rna' and 'protein'"):
        table = tl.integration_consistency(model, links, n_permutations=3)
    assert list(table["modalities"]) == ["rna-atac", "all"]
    alone = tl.integration_consistency(
        model, links.subset(modalities=["rna", "atac"]), n_permutations=3
    )
    pd.testing.assert_frame_equal(table, alone)
