"""FactorVI: getters, files, and two models in one process."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from anndata import AnnData
from tests.fits import QUIET, assert_same_answer, small_mosaic
from tests.helpers import fingerprint, make_mudata

from mosaicvi import FactorVI, MosaicVI, tl
from mosaicvi._errors import DataError, FileError, MosaicviWarning, RequestError
from mosaicvi.factor._objective import FactorObjective
from mosaicvi.factor._start import start_module
from mosaicvi.factor._variance import most_explained
from mosaicvi.tl._latents import unimodal_cells

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

LIKELIHOODS = {"rna": "nb", "protein": "nb_mixture"}


def built(n_factors: int = 5, mdata=None, **options) -> FactorVI:
    mdata = small_mosaic(300) if mdata is None else mdata
    FactorVI.setup_mudata(mdata, LIKELIHOODS, batch_key="batch")
    return FactorVI(mdata, n_factors=n_factors, **options)


def trained(epochs: int = 8, train_seed: int = 0, **options) -> FactorVI:
    model = built(**options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        model.train(epochs, seed=train_seed, **QUIET)
    return model


@pytest.fixture(scope="module")
def model() -> FactorVI:
    return trained()


def test_cells_lie_where_their_factors_are(model: FactorVI) -> None:
    places = unimodal_cells(model, "rna", None, key="modalities").places
    assert places.shared is places.own is places.latent


def test_getters(model: FactorVI) -> None:
    n_factors = len(model.factors)
    latent, variance = model.get_latent_representation(return_dist=True)
    assert latent.shape == variance.shape == (300, n_factors)
    assert np.isfinite(latent).all()
    assert (variance > 0).all()
    assert (variance <= 1 + 1e-5).all()
    assert model.get_factors().shape == (300, n_factors)
    assert model.get_weights("rna").shape == (70, n_factors)
    tidy = model.get_weights("protein", tidy=True)
    assert (tidy["inclusion"].between(0, 1)).all()
    assert (tidy["sd"] > 0).all()
    imputed = model.impute("protein", from_modalities=["rna"], n_samples=20)
    known = imputed[imputed.obs["evidence"]]
    assert (np.asarray(known.layers["q05"]) <= np.asarray(known.layers["q95"])).all()
    draws = model.posterior_predictive_sample("rna", n_samples=3)
    assert draws.shape == (3, 300, 70)


def test_variance_explained_stays_below_one(model: FactorVI) -> None:
    table = model.get_variance_explained()
    rest = table[table["factor"] != "not additive"]
    assert (rest["r2"] <= 1).all()
    assert (rest["low"] <= rest["high"]).all()
    for _, part in table.groupby("modality"):
        values = part.set_index("factor")["r2"]
        single = values[list(model.factors)].clip(lower=0).sum()
        np.testing.assert_allclose(values["all factors"], single + values["not additive"])


def test_what_a_factor_adds_is_the_r2_of_all_less_that_of_all_others(model: FactorVI) -> None:
    """Against a decoder that is asked with the factor at zero."""
    cells = np.asarray(model.validation_indices_)
    table = model.get_variance_explained()
    prepared = model._cells(None)
    batch = prepared.dataset.fetch(cells)
    module = model.module
    with torch.no_grad():
        z = module.posterior(module.experts(batch)).mean
        for name, part in batch.modalities.items():
            values, decoder = part.values.to_dense(), module.decoders[name]
            deviances = []
            for kept in (z * 0, z, *(z * (1 - one) for one in torch.eye(z.shape[1]))):
                parameters = decoder.distribution(
                    kept[part.positions],
                    part.batch,
                    part.library_size,
                    panel=decoder.panel(part.batch),
                    linked=module.feature_embeddings()[name],
                )
                deviances.append(float(decoder.likelihood.deviance(values, parameters).sum()))
            own = table[table["modality"] == name].set_index("factor")["added"]
            expected = (np.array(deviances[2:]) - deviances[1]) / deviances[0]
            np.testing.assert_allclose(own[list(model.factors)], expected, atol=1e-4)
            assert own[["all factors", "not additive"]].isna().all()


def test_a_factor_that_explains_only_beside_others_counts() -> None:
    rows = [("rna", "a", 0.3, 0.2), ("rna", "b", -0.01, 0.05), ("protein", "a", 0.1, 0.0)]
    rows += [("protein", "b", 0.0, 0.001), ("rna", "all factors", 0.4, np.nan)]
    table = pd.DataFrame(rows, columns=["modality", "factor", "r2", "added"])
    found = most_explained(table, ("b", "a"))
    assert list(found.index) == ["b", "a"]
    np.testing.assert_allclose(found[["rna", "protein"]], [[0.05, 0.001], [0.3, 0.1]])


def test_same_seed_same_result_and_no_parameter_store(model: FactorVI) -> None:
    pyro.get_param_store().clear()
    first, second = built(), built()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        first.train(8, **QUIET)
        second.train(2, **QUIET)
    assert len(pyro.get_param_store()) == 0
    np.testing.assert_array_equal(
        model.get_latent_representation(), first.get_latent_representation()
    )


def test_file_round_trip(model: FactorVI, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    again = FactorVI.load(tmp_path / "m", small_mosaic(300), accelerator="cpu")
    assert again.factors == model.factors
    np.testing.assert_array_equal(
        model.get_latent_representation(), again.get_latent_representation()
    )
    assert_same_answer(
        model.impute("protein", ["rna"], n_samples=8), again.impute("protein", ["rna"], n_samples=8)
    )
    assert model.get_weights("rna").equals(again.get_weights("rna"))
    with pytest.raises(FileError, match="FactorVI"):
        MosaicVI.load(tmp_path / "m", small_mosaic(300))


def test_masking_a_modality_equals_not_having_it(model: FactorVI) -> None:
    mdata = small_mosaic(300)
    masked = model.get_latent_representation(mdata, from_modalities=["rna"])
    alone = make_mudata({"rna": mdata.mod["rna"].copy()})
    rows = mdata.obs_names.get_indexer(alone.obs_names)
    np.testing.assert_allclose(masked[rows], model.get_latent_representation(alone), atol=1e-5)


def test_weights_are_uncertain_in_draws(model: FactorVI) -> None:
    one = model.module.draw_feature_embeddings(2, 0)["rna"]
    assert not np.allclose(one[0].detach().numpy(), one[1].detach().numpy())


def test_groups_scale_factors() -> None:
    mdata = small_mosaic(300)
    mdata.obs["donor"] = np.where(np.arange(300) % 3 == 0, "a", "b")
    model = trained(mdata=mdata, groups="donor", epochs=5)
    assert set(model.get_variance_explained()["group"]) == {"a", "b"}
    assert model.module.group_variance.shape == (2, len(model.factors))
    model.write_mofa_slots(mdata)
    written = mdata.uns["mofa"]["variance"]
    table = model.get_variance_explained()
    for (name, group), part in table.groupby(["modality", "group"]):
        r2 = part.set_index("factor")["r2"][list(model.factors)]
        np.testing.assert_allclose(written[name][group], 100 * r2)


def test_nonnegative_weights() -> None:
    model = trained(nonnegative=["protein"], epochs=5)
    assert (model.get_weights("protein").to_numpy() >= 0).all()


@pytest.mark.parametrize("side", [1, -1])
def test_factors_start_with_the_sign_that_nonnegative_weights_have(side: int) -> None:
    """Blocks of positive weights: a factor that starts upside down has none, and stays so."""
    rng = np.random.default_rng(0)
    z, block = rng.normal(size=(300, 4)), np.arange(24) % 4
    values = side * z[:, block] + 0.7 * rng.normal(size=(300, 24))
    adata = AnnData(values.astype(np.float32))
    adata.var_names = [f"v{number}" for number in range(24)]
    mdata = make_mudata({"values": adata})
    FactorVI.setup_mudata(mdata, {"values": "normal"})
    model = FactorVI(mdata, n_factors=4, nonnegative=True)
    start_module(model.module, model._cells(None).dataset, np.arange(300), seed=0)
    weights = model.module.weights["values"].mean().detach().numpy()
    means = np.array([weights[block == number].mean(0) for number in range(4)])
    assert (means.max(1) > 0.5).all(), means
    assert sorted(means.argmax(1)) == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def lacking() -> FactorVI:
    """Two normal modalities; no validation cell holds the second, to which a factor belongs."""
    rng = np.random.default_rng(0)
    z, parts = rng.normal(size=(400, 3)), {}
    for name, n_cells, own in (("one", 400, (0, 1)), ("two", 30, (1, 2))):
        loads = np.zeros((30, 3))
        loads[:, own] = rng.normal(size=(30, 2))
        values = z[:n_cells] @ loads.T + 0.3 * rng.normal(size=(n_cells, 30))
        parts[name] = AnnData(values.astype(np.float32))
        parts[name].obs_names = [f"cell{number}" for number in range(n_cells)]
        parts[name].var_names = [f"{name}{number}" for number in range(30)]
    mdata = make_mudata(parts)
    FactorVI.setup_mudata(mdata, {"one": "normal", "two": "normal"})
    model = FactorVI(mdata, n_factors=4)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        model.train(30, train_size=0.99, least_share=0, **QUIET)
    assert not model.adata_manager.data.presence[model.validation_indices_, 1].any()
    model.truth = z[:30, 2]
    return model


def test_a_modality_that_no_validation_cell_holds_is_judged_on_its_own(lacking: FactorVI) -> None:
    table = lacking.get_variance_explained()
    n_validation = len(lacking.validation_indices_)
    counts = table.groupby("modality")["n_cells"].unique()
    assert counts["two"].tolist() == [30]
    assert counts["one"].tolist() == [n_validation]
    # What the others are judged on does not change by it.
    alone = lacking.get_variance_explained(indices=lacking.validation_indices_)
    assert set(alone["modality"]) == {"one"}
    both = table[table["modality"] == "one"].merge(alone, on="factor")
    np.testing.assert_allclose(both["r2_x"], both["r2_y"], rtol=1e-6, atol=1e-6)
    few = lacking.get_variance_explained(n_cells=3).groupby("modality")["n_cells"].unique()
    assert few["two"].tolist() == few["one"].tolist() == [3]
    # Its own factor is there, and acts nowhere else.
    found = np.asarray(lacking.get_latent_representation())[:30]
    own = np.abs(np.corrcoef(found.T, lacking.truth)[-1, :-1])
    assert own.max() > 0.9
    assert lacking.get_activity().iloc[own.argmax()].tolist() == [False, True]


def test_activity_where_the_data_lack_a_modality(lacking: FactorVI, tmp_path: Path) -> None:
    lacking.save(tmp_path / "m")
    one = make_mudata({"one": lacking.adata.mod["one"].copy()})
    again = FactorVI.load(tmp_path / "m", one, accelerator="cpu")
    assert set(again.get_variance_explained()["modality"]) == {"one"}
    with pytest.raises(RequestError, match=r"'two'.*no cell of the model's data"):
        again.get_activity()


def test_mofa_slots(model: FactorVI) -> None:
    mdata = small_mosaic(300)
    model.write_mofa_slots(mdata)
    assert mdata.obsm["X_mofa"].shape == (300, len(model.factors))
    assert mdata.varm["LFs"].shape == (mdata.n_vars, len(model.factors))


def test_input_is_left_alone() -> None:
    mdata = small_mosaic(300)
    before = fingerprint(mdata)
    trained(mdata=mdata, epochs=2)
    assert fingerprint(mdata) == before


@pytest.mark.parametrize("n_factors", [200, 0, 2.5, None, "3"])
def test_more_factors_than_cells_or_features_or_a_part_of_one(n_factors: Any) -> None:
    with pytest.raises(RequestError, match="n_factors"):
        built(n_factors)


@pytest.mark.parametrize("n_cells", [0, -1, 2.5, None])
def test_no_number_of_cells_is_refused(n_cells: Any) -> None:
    with pytest.raises(RequestError, match="n_cells"):
        built(3).get_variance_explained(n_cells=n_cells)


@pytest.mark.parametrize("n_samples", [0, 2.5])
def test_no_draws_of_a_bound_are_refused(n_samples: Any) -> None:
    with pytest.raises(RequestError, match="n_samples"):
        built(3).get_elbo(n_samples=n_samples)


def test_constant_modality() -> None:
    mdata = small_mosaic(300)
    mdata.mod["protein"].X = np.ones(mdata.mod["protein"].shape, dtype=np.float32)
    with pytest.raises(DataError, match="constant"):
        built(mdata=mdata)


def test_group_of_one_cell() -> None:
    mdata = small_mosaic(300)
    mdata.obs["donor"] = ["a"] * 299 + ["b"]
    with pytest.warns(MosaicviWarning, match="1 of 2 groups of 'donor' have one cell each.*'b'"):
        built(mdata=mdata, groups="donor")


def test_nan_in_counts_names_the_layer() -> None:
    mdata = small_mosaic(300)
    values = np.array(mdata.mod["protein"].X.todense(), dtype=np.float32)
    values[0, 0] = np.nan
    mdata.mod["protein"].layers["raw"] = values
    with pytest.raises(DataError, match="layer 'raw' holds 1 NaN"):
        FactorVI.setup_mudata(
            mdata, {"rna": "nb", "protein": {"likelihood": "nb_mixture", "layer": "raw"}}
        )


def test_plots(model: FactorVI) -> None:
    from mosaicvi import pl

    n_factors = len(model.factors)
    ax = pl.variance_explained(model)
    assert len(ax.get_yticks()) == n_factors + 1
    ax = pl.weights(model, "rna", n_features=12)
    assert len(ax.get_yticks()) == 12
    ax = pl.factors(model, color="cell_type")
    assert sum(len(c.get_offsets()) for c in ax.collections) == 300
    obs = model.adata.obs
    try:
        number = np.arange(300) % 30
        obs["leiden"] = pd.Categorical(
            np.where(number == 7, None, number.astype(str)), map(str, range(30))
        )
        ax = pl.factors(model, color="leiden")
        named = {c.get_label(): tuple(c.get_facecolor()[0]) for c in ax.collections}
        assert list(named) == ["none", *(str(each) for each in range(30) if each != 7)]
        assert len(set(named.values())) == 30
        obs["score"] = np.random.default_rng(0).normal(size=300)
        with pytest.raises(RequestError, match=r"'score'.*different numbers"):
            pl.factors(model, color="score")
    finally:
        obs.drop(columns=["leiden", "score"], inplace=True, errors="ignore")  # noqa: PD002
    with pytest.raises(RequestError, match="no factor"):
        pl.weights(model, "rna", "nothing")


def test_elbo_by_split(model: FactorVI) -> None:
    held = model.get_elbo(indices=model.validation_indices_, n_samples=20)
    assert held == model.get_elbo(indices=model.validation_indices_, n_samples=20)
    assert np.isfinite(held)
    everything = model.get_elbo(n_samples=20)
    parts = [
        len(rows) * model.get_elbo(indices=rows, n_samples=20)
        for rows in (model.train_indices_, model.validation_indices_)
    ]
    n_cells = len(model.train_indices_) + len(model.validation_indices_)
    np.testing.assert_allclose(everything, sum(parts) / n_cells, rtol=1e-5)


def test_elbo_is_that_of_pyro(model: FactorVI) -> None:
    """Against the objective of training, which draws weights from a normal of the same moments."""
    rows = np.asarray(model.train_indices_)
    batch = model._cells(None).dataset.fetch(rows)
    objective = FactorObjective(len(rows))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        losses = [float(objective(model.module, batch).total) for _ in range(40)]
    elbo = model.get_elbo(indices=rows, n_samples=40)
    assert abs(elbo + np.mean(losses)) < 4 * np.std(losses) / np.sqrt(20) + 0.002 * abs(elbo)


def test_restarts_keep_the_best_and_say_how_stable_it_is(tmp_path: Path) -> None:
    model = built(n_factors=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        model.train(10, restarts=2, **QUIET)
    table = model.get_stability()
    assert list(table.index) == list(model.factors)
    assert list(table.columns) == ["stability", "least", "correlation 1"]
    assert table.to_numpy().min() >= 0
    assert table.to_numpy().max() <= 1 + 1e-6
    model.save(tmp_path / "model")
    again = FactorVI.load(tmp_path / "model", adata=False)
    np.testing.assert_allclose(again.get_stability(), table)
    with pytest.raises(RequestError, match="restarts"):
        model.train(2, restarts=2, **QUIET)


def test_the_seed_of_answers_changes_no_factor(model: FactorVI) -> None:
    other = trained(seed=7)
    assert other.factors == model.factors
    np.testing.assert_array_equal(
        model.get_latent_representation(), other.get_latent_representation()
    )
    for name in LIKELIHOODS:
        np.testing.assert_array_equal(model.get_weights(name), other.get_weights(name))
    draws = [each.posterior_predictive_sample("rna", indices=[0, 1]) for each in (model, other)]
    assert (draws[0] != draws[1]).any()


def test_the_seed_of_a_fit_is_its_noise_alone(model: FactorVI) -> None:
    other = trained(train_seed=3)
    np.testing.assert_array_equal(model.train_indices_, other.train_indices_)
    np.testing.assert_array_equal(model.validation_indices_, other.validation_indices_)
    one, two = model.get_weights("rna").to_numpy(), other.get_weights("rna").to_numpy()
    assert one.shape != two.shape or np.abs(one - two).max() > 1e-4


def test_no_fit_without_an_epoch() -> None:
    with pytest.raises(RequestError, match=r"'max_epochs'.*1 or more"):
        built().train(0, **QUIET)


def test_weights_of_a_model_that_is_not_trained_come_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="untrained model"):
        built().get_weights("rna")


def test_no_restarts_no_stability(model: FactorVI) -> None:
    with pytest.raises(RequestError, match="fitted once"):
        model.get_stability()
    with pytest.raises(RequestError, match="restarts"):
        built().train(1, restarts=0, **QUIET)


def test_halves_say_which_factors_come_back(tmp_path: Path) -> None:
    def fit(least: float, epochs: int = 10) -> FactorVI:
        model = built(n_factors=4)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            model.train(epochs, least_stability=least, **QUIET)
        return model

    model = fit(0.0)
    table = model.get_stability()
    assert list(table.index) == list(model.factors)
    assert list(table.columns) == ["halves", "half 1", "half 2"]
    np.testing.assert_allclose(table["halves"], table[["half 1", "half 2"]].mean(axis=1))
    assert table.to_numpy().min() >= 0
    assert table.to_numpy().max() <= 1 + 1e-6
    pd.testing.assert_frame_equal(table, fit(0.0).get_stability())
    model.save(tmp_path / "model")
    again = FactorVI.load(tmp_path / "model", adata=False)
    np.testing.assert_allclose(again.get_stability(), table)
    # None is found so well: the best one is left, and that the halves are asked changes no more.
    assert len(fit(0.9999).factors) == 1
    plain = trained(epochs=10, n_factors=4)
    np.testing.assert_array_equal(plain.get_weights("rna"), model.get_weights("rna"))


@pytest.mark.parametrize("key", ["least_share", "least_stability"])
def test_shares_and_correlations_are_below_one(key: str) -> None:
    with pytest.raises(RequestError, match=key):
        built().train(1, **{key: 1.0}, **QUIET)


@pytest.mark.parametrize("by", ["weights", "factors"])
def test_stability_over_models(model: FactorVI, by: str) -> None:
    table = tl.factor_stability([model, model], by=by)
    np.testing.assert_allclose(table["stability"], 1, atol=1e-5)
    assert list(table["partner 1"]) == list(model.factors)
    other = trained(train_seed=3)
    table = tl.factor_stability([model, other, model], by=by)
    np.testing.assert_allclose(table["correlation 2"], 1, atol=1e-5)
    np.testing.assert_allclose(table["stability"], (table["correlation 1"] + 1) / 2, atol=1e-5)
    partners = [name for name in table["partner 1"] if name is not None]
    assert len(set(partners)) == len(partners)


def test_stability_needs_two_models(model: FactorVI) -> None:
    with pytest.raises(RequestError, match="models"):
        tl.factor_stability([model])
    with pytest.raises(RequestError, match=r"'models'.*FactorVI"):
        tl.factor_stability(model)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="found str"):
        tl.factor_stability(["a", "b"])  # type: ignore[list-item]
    with pytest.raises(RequestError, match="by"):
        tl.factor_stability([model, model], by="genes")  # type: ignore[arg-type]


def test_variance_that_factors_take_away_is_drawn(
    model: FactorVI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An R2 below zero was left blank, like one of zero."""
    from mosaicvi import pl

    table = model.get_variance_explained()
    first = (table["factor"] == model.factors[0]) & (table["modality"] == "rna")
    r2 = np.where(first, -0.2, 0.0)
    monkeypatch.setattr(model, "get_variance_explained", lambda: table.assign(r2=r2))
    texts = [each.get_text() for each in pl.variance_explained(model).texts]
    assert texts.count("-20.0") == 1
    assert set(texts) == {"-20.0", ""}


def test_inclusion_of_a_nonnegative_weight_is_that_of_draws() -> None:
    """A slab below zero is clipped: such a weight is zero, however sure it is."""
    model = trained(nonnegative=["protein"], epochs=5)
    weights = model.module.weights["protein"]
    with torch.no_grad():
        weights.loc[0, 0], weights.log_scale[0, 0], weights.inclusion[0, 0] = -0.5, -3.0, 1 - 1e-6
    tidy = model.get_weights("protein", tidy=True)
    drawn = weights.draw(4000, 0, "test").detach().numpy().reshape(4000, -1)
    assert tidy["weight"][0] == 0
    assert tidy["inclusion"][0] < 0.01
    np.testing.assert_allclose(tidy["inclusion"], (drawn != 0).mean(0), atol=0.04)
    np.testing.assert_allclose(tidy["sd"], drawn.std(0), rtol=0.15, atol=0.01)
    rna = model.get_weights("rna", tidy=True)["inclusion"].to_numpy(dtype=np.float32)
    np.testing.assert_array_equal(rna, model.module.weights["rna"].inclusion.numpy().ravel())
