"""MosaicVI on every kind of data that a MuData may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from tests.fits import answer, build, fit, layers, small_mosaic, without_truth
from tests.helpers import make_mudata

from mosaicvi import ModalitySpec, MosaicVI
from mosaicvi._errors import DataError, MosaicviWarning
from mosaicvi.datasets import SimulatedModality, simulate
from mosaicvi.graph import Edges, FeatureGraph
from mosaicvi.model._answered_batches import AnsweredBatches
from mosaicvi.model._chunks import PredictiveRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")


def check(model: MosaicVI, target: str, source: str) -> None:
    """The model's answers are finite wherever there is evidence."""
    assert np.isfinite(model.get_latent_representation()).all()
    assert np.isfinite(model.get_elbo())
    got = answer(model, target, [source])
    for name, values in layers(got).items():
        assert np.isfinite(values[got.obs["evidence"]]).all(), name
    history = model.history["train_loss"].iloc[:, 0]
    assert np.isfinite(history).all()


@pytest.mark.parametrize(
    "patterns",
    [
        {"rna+protein": 1.0},
        {"rna": 0.5, "protein": 0.5},
        {"rna+protein": 0.1, "rna": 0.8, "protein": 0.1},
    ],
    ids=["paired", "unpaired", "few pairs"],
)
@pytest.mark.parametrize("fusion", ["product_of_experts", "mixture_of_experts"])
def test_presence_patterns(patterns: Mapping[str, float], fusion: str) -> None:
    paired = "rna+protein" in patterns
    # Without a cell in common, or a graph, modalities have to be asked for on their own.
    alignment = "auto" if paired else "none"
    mdata = small_mosaic(160, patterns=patterns)
    model = fit(build(mdata, fusion=fusion, alignment=alignment), 2)
    check(model, "protein", "rna")
    check(model, "rna", "protein")
    assert ("consistency_train" in model.history) == paired


@pytest.mark.parametrize("fusion", ["product_of_experts", "mixture_of_experts"])
def test_few_pairs_and_a_graph(fusion: str) -> None:
    """Pairs, anchors and edges in one training."""
    mdata = small_mosaic(160, patterns={"rna+protein": 0.2, "rna": 0.4, "protein": 0.4})
    features = {name: list(mdata[name].var_names) for name in ("rna", "protein")}
    edges = Edges.of(np.arange(8), len(features["rna"]) + np.arange(8), 1, 0.9, "test")
    model = build(mdata, fusion=fusion, graph=FeatureGraph(features, edges))
    fit(model, 2)
    check(model, "protein", "rna")
    check(model, "rna", "protein")
    for term in ("consistency", "contrastive", "alignment", "graph"):
        assert np.isfinite(model.history[f"{term}_train"].to_numpy()).all(), term
    found = model.get_edge_confidence()
    assert len(found) == 8
    assert found["confidence"].between(0.01, 1.0).all()


def test_one_modality() -> None:
    data = small_mosaic(160)
    alone = make_mudata({"rna": data["rna"].copy()})
    model = fit(build(alone, {"rna": "zinb"}), 2)
    assert np.isfinite(model.get_latent_representation()).all()
    drawn = model.posterior_predictive_sample("rna", n_samples=2)
    assert drawn.shape == (2, alone.n_obs, 70)
    with pytest.raises(ValueError, match="from_modalities"):
        model.impute("rna")
    assert model.module.decoders["rna"].trunk.residual is not None


def test_three_modalities_with_missing_continuous_values() -> None:
    specs = {
        "rna": SimulatedModality.rna(40, likelihood="nb"),
        "protein": SimulatedModality.protein(6),
        "score": SimulatedModality.normal(7),
    }
    data = without_truth(
        simulate(
            180,
            specs,
            patterns={"rna+protein+score": 0.4, "rna+score": 0.3, "protein": 0.3},
            n_latent=4,
            seed=2,
        )
    )
    rng = np.random.default_rng(0)
    values = np.array(data["score"].X)
    values[rng.random(values.shape) < 0.2] = np.nan
    data["score"].X = values
    model = fit(build(data, {"rna": "zinb", "protein": "nb_mixture", "score": "normal"}), 3)
    check(model, "score", "rna")
    check(model, "protein", "score")
    got = answer(model, "score", ["rna", "protein"])
    assert "log1p_mean" not in got.layers
    assert "cross/score_train" in model.history
    with pytest.raises(ValueError, match="continuous"):
        model.impute("score", ["rna"], scale="log1p")


@pytest.mark.parametrize(("factor", "origin"), [(1e-1, 0.0), (1e7, 0.0), (1.0, 1e3)])
def test_units_of_a_continuous_modality_do_not_matter(factor: float, origin: float) -> None:
    """A density's nats depend on units; the weight of the modality must not."""

    def fitted(scale: float, zero: float, names: tuple[str, ...]) -> MosaicVI:
        specs = {"rna": SimulatedModality.rna(30, likelihood="nb"),
                 "score": SimulatedModality.normal(6)}  # fmt: skip
        data = without_truth(simulate(150, specs, n_latent=3, seed=4))
        data["score"].X = np.asarray(data["score"].X) * scale + zero
        chosen = make_mudata({name: data[name].copy() for name in names})
        likelihoods = {"rna": "nb", "score": "normal"}
        return fit(build(chosen, {name: likelihoods[name] for name in names}), 3)

    for names in (("rna", "score"), ("score",)):
        one, other = fitted(1.0, 0.0, names), fitted(factor, origin, names)
        left = one.posterior_predictive_sample("score", ["score"], n_samples=50).mean(0)
        right = other.posterior_predictive_sample("score", ["score"], n_samples=50).mean(0)
        right = (right - origin) / factor
        known = np.isfinite(left)
        assert np.corrcoef(left[known], right[known])[0, 1] > 0.9999
        assert np.abs(left[known] - right[known]).max() < 0.02 * left[known].std()


@pytest.mark.parametrize("kind", ["poisson", "zinb", "nb"])
def test_count_likelihoods(kind: str) -> None:
    model = fit(build(small_mosaic(120), {"rna": kind, "protein": "nb"}), 1)
    check(model, "protein", "rna")


def test_accessibility_as_zeros_and_ones() -> None:
    """Peaks open with the latent state are told from genes, for cells that have genes only."""
    specs = {
        "rna": SimulatedModality.rna(40, likelihood="nb"),
        "atac": SimulatedModality.atac(90, likelihood="bernoulli", linked_to=None),
    }
    patterns = {"rna+atac": 0.7, "rna": 0.3}
    data = without_truth(simulate(500, specs, patterns=patterns, n_latent=3, n_types=3, seed=1))
    model = fit(build(data, {"rna": "nb", "atac": "bernoulli"}), 40)
    check(model, "atac", "rna")
    draws = model.posterior_predictive_sample("atac", ["rna"], n_samples=20)
    assert set(np.unique(draws)) <= {0.0, 1.0}
    held = data.obs_names.get_indexer(data["atac"].obs_names)
    measured = data["atac"].X.toarray()
    probability = answer(model, "atac", ["rna"], n_samples=50)[held].X
    # better than each peak's mean: the log loss of a constant
    mean = np.clip(measured.mean(0), 1e-3, 1 - 1e-3)
    chosen = np.clip(probability, 1e-3, 1 - 1e-3)
    gain = np.where(measured > 0, np.log(chosen / mean), np.log((1 - chosen) / (1 - mean)))
    assert gain.mean() > 0.005


def test_zero_cells_zero_features_and_huge_counts() -> None:
    data = small_mosaic(120, patterns={"rna+protein": 0.5, "rna": 0.5})
    for name in ("rna", "protein"):
        values = data[name].X.toarray()
        values[0] = 0  # a cell without counts
        values[:, 3] = 0  # a feature that is always zero
        values[1, 4] = 1e6
        data[name].X = type(data[name].X)(values)
    model = fit(build(data, {"rna": "zinb", "protein": "nb_mixture"}), 3)
    check(model, "protein", "rna")
    check(model, "rna", "protein")
    got = answer(model, "rna", ["protein"])
    assert got.layers["denoised"][got.obs["evidence"], 3].max() < 0.5


def test_minibatch_of_one_cell() -> None:
    data = small_mosaic(61)
    check(fit(build(data), 1, batch_size=1, indices=np.arange(20)), "protein", "rna")
    check(fit(build(data), 2, batch_size=60, train_size=1.0), "protein", "rna")


@pytest.mark.parametrize("n_cells", [6, 20])
def test_very_few_cells(n_cells: int) -> None:
    data = small_mosaic(n_cells, patterns={"rna+protein": 0.5, "rna": 0.25, "protein": 0.25})
    check(fit(build(data), 2), "protein", "rna")


def test_representation() -> None:
    data = small_mosaic(160)
    rng = np.random.default_rng(0)
    data["rna"].obsm["X_embedding"] = rng.normal(3, 2, (data["rna"].n_obs, 9)).astype(np.float32)
    spec = ModalitySpec("nb", representation="X_embedding")
    model = fit(build(data, {"rna": spec, "protein": "nb_mixture"}), 2)
    check(model, "protein", "rna")
    assert model.module.projections["rna"].n_inputs == 10  # the embedding and log depth
    query = small_mosaic(160)
    query["rna"].obsm["X_embedding"] = np.asarray(data["rna"].obsm["X_embedding"]) + 1
    assert not np.allclose(
        model.get_latent_representation(), model.get_latent_representation(query)
    )


def test_covariates() -> None:
    data = small_mosaic(160)
    data.obs["site"] = pd.Categorical(np.where(np.arange(160) % 3 == 0, "x", "y"))
    data.obs["age"] = np.linspace(20, 80, 160)
    keys = {"categorical_covariate_keys": ["site"], "continuous_covariate_keys": ["age"]}
    model = fit(build(data, setup=keys), 3)
    check(model, "protein", "rna")
    assert model.module.decoders["rna"].covariates.shape == (3, 70)
    assert model.module.decoders["rna"].covariates.abs().max() > 0


def test_one_batch_key_a_modality_and_none() -> None:
    data = small_mosaic(160)
    for name, modality in data.mod.items():
        modality.obs[f"{name}_lane"] = np.where(np.arange(modality.n_obs) % 2 == 0, "1", "2")
    keys = {"rna": "rna_lane", "protein": "protein_lane"}
    check(fit(build(data, batch_key=keys), 2), "protein", "rna")
    check(fit(build(data, batch_key=None), 2), "protein", "rna")


# --- panels that differ between batches --------------------------------------------------------


def panel_data(n_genes: int = 70, lacking: int = 30, **options: object) -> MuData:
    genes = SimulatedModality.rna(n_genes).names
    return small_mosaic(
        200,
        n_genes=n_genes,
        panels={"rna": {"batch2": list(genes[: n_genes - lacking])}},
        **options,
    )


@pytest.fixture(scope="module")
def panel_model() -> MosaicVI:
    data = panel_data(patterns={"rna+protein": 0.7, "protein": 0.3})
    return fit(build(data, setup={"panel_key": {"rna": "panel"}}), 8)


def test_panels(panel_model: MosaicVI) -> None:
    check(panel_model, "rna", "protein")
    check(panel_model, "protein", "rna")


def test_panels_beside_a_representation() -> None:
    """With enough pairs for a cross predictor, whose inputs then have no panel."""
    data = panel_data(patterns={"rna+protein": 1.0})
    rng = np.random.default_rng(0)
    data["rna"].obsm["X_embedding"] = rng.normal(size=(200, 4)).astype(np.float32)
    spec = ModalitySpec("nb", representation="X_embedding")
    likelihoods = {"rna": spec, "protein": "nb_mixture"}
    model = fit(build(data, likelihoods, setup={"panel_key": {"rna": "panel"}}), 2)
    assert model.module.predictors["rna"].n_scores > 0
    check(model, "protein", "rna")


def test_a_partial_panel_is_no_smaller_answer(panel_model: MosaicVI) -> None:
    """Counts of measured features are not thinned out by features the batch did not measure."""
    data = panel_model.adata
    measured = np.asarray(data["rna"].varm["panel"]["batch2"], dtype=bool)
    has = np.asarray(data.obsmap["rna"]).ravel() > 0
    rows = np.flatnonzero((data.obs["batch"].to_numpy() == "batch2") & has)
    place = np.asarray(data.obsmap["rna"]).ravel()[rows].astype(int) - 1
    truth = data["rna"].X.toarray()[place][:, measured].sum(1)
    got = answer(panel_model, "rna", ["protein"], indices=rows, n_samples=50)
    predicted = got.layers["denoised"][:, measured].sum(1)
    assert predicted.mean() == pytest.approx(truth.mean(), rel=0.15)
    own = panel_model.get_normalized_expression("rna", library_size="observed", indices=rows)
    np.testing.assert_allclose(own.loc[:, measured].sum(axis=1), truth, rtol=0.02)


def test_unmeasured_features_are_less_certain(panel_model: MosaicVI) -> None:
    """A feature that a batch did not measure draws its batch offset; a measured one knows it."""
    sampler = panel_model._sampler(None, 0)
    names = sampler.data.modalities["rna"].cell_batch_names
    rows = np.array([np.flatnonzero(names == each)[0] for each in ("batch1", "batch2")])
    request = PredictiveRequest("rna", ("protein",), 200)
    offsets, _ = AnsweredBatches(sampler.module, sampler.data, request, 0).offsets(rows)
    spread = offsets["mean"].expand(200, 2, 70).std(0)
    lacking = ~panel_model.module.decoders["rna"].measured
    assert lacking.any()
    assert (spread[lacking] > 0.05).all()
    assert (spread[~lacking] == 0).all()


def test_a_batch_that_lacks_features_is_answered_for_with_its_doubt(panel_model: MosaicVI) -> None:
    """By ``transform_batch`` as for its own cells."""
    sampler = panel_model._sampler(None, 0)
    request = PredictiveRequest("rna", ("protein",), 200, transform_batch=(1,))
    offsets, _ = AnsweredBatches(sampler.module, sampler.data, request, 0).offsets(np.array([0]))
    spread = offsets["mean"].std(0).squeeze()
    lacking = ~panel_model.module.decoders["rna"].measured[1]
    assert (spread[lacking] > 0.05).all()
    assert (spread[~lacking] == 0).all()


def test_regions_of_a_batch_with_fewer() -> None:
    """Open regions of a panel stand for fragments, to which regions' own factors do not add."""
    rng = np.random.default_rng(1)
    rate = np.exp(rng.normal(size=200) * 1.8)
    cells = np.exp(rng.normal(size=(240, 1)) * rng.normal(size=200) * 0.3) * rate
    is_open = rng.poisson(cells / cells.sum(1, keepdims=True) * 180) > 0
    batch = np.where(np.arange(240) % 2, "whole", "part")
    panel = pd.DataFrame({"whole": True, "part": np.arange(200) >= 20})
    is_open &= panel[batch].to_numpy().T
    part = small_mosaic(240, patterns={"rna+protein": 1.0})["protein"].copy()
    regions = AnnData(
        sp.csr_matrix(is_open.astype(np.float32)),
        obs=pd.DataFrame(index=part.obs_names),
        var=pd.DataFrame(index=[f"region{i}" for i in range(200)]),
    )
    panel.index = regions.var_names
    regions.varm["panel"] = panel
    for each in (regions, part):
        each.obs["batch"] = batch
    data = make_mudata({"atac": regions, "protein": part})
    setup = {"panel_key": {"atac": "panel"}}
    model = build(data, {"atac": "bernoulli", "protein": "nb"}, setup=setup)
    fit(model, 30)
    rows = np.flatnonzero(batch == "whole")
    asked = {"indices": rows, "n_samples": 10}
    drawn = model.posterior_predictive_sample("atac", ["protein"], **asked)
    assert drawn.sum(-1).mean() == pytest.approx(is_open[rows].sum(1).mean(), rel=0.05)


def query_of_a_new_batch(*, table: pd.DataFrame | None) -> MuData:
    """Ten cells of a batch that was not there at setup, none of which shows the first genes."""
    query = panel_data(patterns={"rna+protein": 1.0})
    query = make_mudata({name: part[:10].copy() for name, part in query.mod.items()})
    values = query["rna"].X.toarray()
    values[:, :35] = 0
    query["rna"].X = sp.csr_matrix(values)
    for part in query.mod.values():
        part.obs["batch"] = "new"
    del query["rna"].varm["panel"]
    if table is not None:
        query["rna"].varm["panel"] = table.set_axis(query["rna"].var_names)
    return query


def test_panel_of_a_new_batch(panel_model: MosaicVI) -> None:
    """Zeros of features that a query's batch did not measure are no zeros."""
    none = query_of_a_new_batch(table=None)
    whole = query_of_a_new_batch(table=pd.DataFrame({"new": np.ones(70, dtype=bool)}))
    part = query_of_a_new_batch(table=pd.DataFrame({"new": np.arange(70) >= 35}))
    latent = [
        panel_model.get_latent_representation(each, from_modalities=["rna"])
        for each in (none, whole, part)
    ]
    np.testing.assert_array_equal(latent[0], latent[1])
    assert np.abs(latent[0] - latent[2]).max() > 0.1
    nats = [panel_model.get_reconstruction_error(each)["rna"] for each in (whole, part)]
    assert nats[1] < nats[0]
    wrong = query_of_a_new_batch(table=pd.DataFrame({"new": np.arange(70) < 35}))
    with pytest.raises(DataError, match="batch 'new' for features that the panel calls unmeasured"):
        panel_model.get_latent_representation(wrong)


def test_means_of_a_new_batch_do_not_run_away() -> None:
    """One measured batch says nothing of what scale another has, and means stay finite."""
    model = fit(build(small_mosaic(200, patterns={"rna+protein": 0.7, "rna": 0.3}, batches=1)), 10)
    query = small_mosaic(60, seed=11, batches=1)
    for each in (query, *query.mod.values()):
        each.obs["batch"] = "new"
    known = answer(model, "protein", ["rna"], adata=query, transform_batch="batch1", n_samples=1000)
    new = answer(model, "protein", ["rna"], adata=query, n_samples=1000)
    rows = new.obs["evidence"].to_numpy()
    ratio = new.X[rows].mean(0) / known.X[rows].mean(0)
    assert ratio.max() < 10
    logs = new.layers["log1p_mean"][rows].mean(0) / known.layers["log1p_mean"][rows].mean(0)
    np.testing.assert_allclose(logs, 1, atol=0.35)


# --- another MuData ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> MosaicVI:
    return fit(build(small_mosaic(200)), 3)


def test_query_with_fewer_modalities(model: MosaicVI) -> None:
    whole = small_mosaic(200)
    query = make_mudata({"rna": whole["rna"].copy()})
    got = answer(model, "protein", adata=query)
    assert got.shape == (query.n_obs, 10)
    assert np.isfinite(got.X).all()
    assert not got.obs["measured"].any()
    both = answer(model, "protein", ["rna"])
    np.testing.assert_allclose(both[got.obs_names].X, got.X, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="from_modalities"):
        model.impute("rna", adata=query)


def test_query_of_an_unseen_batch(model: MosaicVI) -> None:
    query = small_mosaic(60, seed=11)
    for part in (query, *query.mod.values()):
        part.obs["batch"] = pd.Categorical(["new"] * part.n_obs)
    got = answer(model, "protein", ["rna"], adata=query, n_samples=200)
    rows = got.obs["evidence"].to_numpy()
    assert np.isfinite(got.X[rows]).all()
    assert np.isfinite(model.get_elbo(query))
    seen = answer(model, "protein", ["rna"], adata=query, n_samples=200, transform_batch="batch1")
    ratio = np.log1p(got.layers["q95"][rows]) - np.log1p(got.layers["q05"][rows])
    ratio = ratio / (np.log1p(seen.layers["q95"][rows]) - np.log1p(seen.layers["q05"][rows]))
    assert np.median(ratio) > 1


def test_each_unseen_batch_draws_its_own_offsets(model: MosaicVI) -> None:
    """Cells of one new batch shift together from draw to draw, cells of two do not."""
    query = small_mosaic(120, seed=11, patterns={"rna+protein": 1.0})
    labels = np.where(np.arange(query.n_obs) % 2, "new1", "new2")
    for part in (query, *query.mod.values()):
        part.obs["batch"] = pd.Categorical(labels)
    with pytest.warns(MosaicviWarning, match="new1"):
        draws = model.posterior_predictive_sample("protein", ["rna"], adata=query, n_samples=300)
    shift = np.log1p(draws) - np.log1p(draws).mean(0)
    first, second = shift[:, labels == "new1"], shift[:, labels == "new2"]
    half = first.shape[1] // 2
    together, apart = [], []
    for feature in range(draws.shape[-1]):
        left, right = first[:, :half, feature].mean(1), first[:, half:, feature].mean(1)
        together.append(np.corrcoef(left, right)[0, 1])
        other = np.corrcoef(left, second[:, :, feature].mean(1))[0, 1]
        apart.append(other)
    assert np.mean(together) > 0.3
    assert abs(np.mean(apart)) < 0.1


def test_query_of_a_batch_that_gains_a_modality() -> None:
    """Values of a batch that trained without the modality are scored, not masked."""
    data = small_mosaic(160, patterns={"batch1": {"rna+protein": 1.0}, "batch2": {"protein": 1.0}})
    fitted = fit(build(data), 2)
    query = small_mosaic(160, patterns={"rna+protein": 1.0})
    second = np.flatnonzero(query.obs["batch"].to_numpy() == "batch2")
    error = fitted.get_reconstruction_error(query, second)
    assert error["rna"] > 1


def test_view_is_refused(model: MosaicVI) -> None:
    with pytest.raises(ValueError, match="view"):
        model.get_latent_representation(small_mosaic(200)[:20])


def test_modality_names_with_a_dot_or_of_a_method() -> None:
    data = small_mosaic(100)
    odd = make_mudata({"rna.v2": data["rna"].copy(), "keys": data["protein"].copy()})
    model = fit(build(odd, {"rna.v2": "nb", "keys": "nb_mixture"}), 1)
    check(model, "keys", "rna.v2")


def test_query_of_another_depth() -> None:
    """Cells of four times the counts are the same cells, and not giant ones."""
    mdata = small_mosaic(300, patterns={"rna+protein": 1.0}, batches=1)
    model = fit(build(mdata), 20)
    query = make_mudata({"rna": mdata["rna"].copy()})
    counts = np.random.default_rng(0).poisson(mdata["rna"].X.toarray() * 4)
    query["rna"].X = sp.csr_matrix(counts.astype(np.float32))
    known = answer(model, "protein", ["rna"]).layers["log1p_mean"]
    deep = answer(model, "protein", ["rna"], adata=query).layers["log1p_mean"]
    assert np.abs(deep - known).mean() < 0.09
    depth = model.module.projections["rna"].scale.shape[0]
    inputs = model._cells(query).dataset.encoder_inputs["rna"][:, depth]
    assert abs(np.median(inputs)) < 0.3
