"""What the getters of MosaicVI return, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pytest
from tests.fits import (
    answer,
    assert_same_answer,
    build,
    fit,
    layers,
    small_mosaic,
    without_truth,
)

from mosaicvi import MosaicVI
from mosaicvi._errors import MosaicviWarning, RequestError
from mosaicvi.datasets import SimulatedModality, simulate

if TYPE_CHECKING:
    from mudata import MuData

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")

N_CELLS, N_GENES, N_PROTEINS = 240, 70, 10


@pytest.fixture(scope="module")
def mdata() -> MuData:
    return small_mosaic(N_CELLS)


@pytest.fixture(scope="module")
def model(mdata: MuData) -> MosaicVI:
    return fit(build(mdata), 6)


@pytest.fixture(scope="module")
def has(mdata: MuData) -> dict[str, np.ndarray]:
    return {name: np.asarray(mdata.obsmap[name]).ravel() > 0 for name in mdata.mod}


# --- what the getters return -------------------------------------------------------------------


def test_latent_representation(model: MosaicVI, has: dict[str, np.ndarray]) -> None:
    z = model.get_latent_representation()
    assert z.shape == (N_CELLS, 5)
    assert z.dtype == np.float32
    assert np.isfinite(z).all()
    mean, variance = model.get_latent_representation(from_modalities=["rna"], return_dist=True)
    np.testing.assert_array_equal(np.isfinite(mean).all(1), has["rna"])
    np.testing.assert_array_equal(np.isnan(variance).all(1), ~has["rna"])
    assert ((variance[has["rna"]] > 0) & (variance[has["rna"]] < 1)).all()
    draw = model.get_latent_representation(give_mean=False, seed=1)
    other = model.get_latent_representation(give_mean=False, seed=2)
    assert not np.allclose(draw, other)
    np.testing.assert_array_equal(draw, model.get_latent_representation(give_mean=False, seed=1))


def test_more_evidence_narrows_the_posterior(model: MosaicVI, has: dict[str, np.ndarray]) -> None:
    both = has["rna"] & has["protein"]
    _, joint = model.get_latent_representation(return_dist=True)
    _, one = model.get_latent_representation(from_modalities=["protein"], return_dist=True)
    assert (joint[both] < one[both]).all()


def test_impute(model: MosaicVI, mdata: MuData, has: dict[str, np.ndarray]) -> None:
    with pytest.warns(MosaicviWarning, match="hold none of 'rna'") as caught:
        protein = model.impute("protein", ["rna"], n_samples=15, quantiles=(0.1, 0.5, 0.9))
    assert len([w for w in caught if issubclass(w.category, MosaicviWarning)]) == 1
    assert isinstance(protein, anndata.AnnData)
    assert protein.shape == (N_CELLS, N_PROTEINS)
    assert list(protein.obs_names) == list(mdata.obs_names)
    assert list(protein.var_names) == list(mdata["protein"].var_names)
    expected = {"log1p_mean", "sd", "denoised", "q10", "q50", "q90"}
    assert {name for name in protein.layers if name is not None} == expected
    np.testing.assert_array_equal(protein.obs["measured"], has["protein"])
    np.testing.assert_array_equal(protein.obs["evidence"], has["rna"])
    for name, values in layers(protein).items():
        np.testing.assert_array_equal(np.isnan(values).all(1), ~has["rna"], err_msg=name)
        assert np.isfinite(values[has["rna"]]).all(), name
        assert (values[has["rna"]] >= 0).all(), name
    got = {name: values[has["rna"]] for name, values in layers(protein).items()}
    assert (got["q10"] <= got["q50"]).all()
    assert (got["q50"] <= got["q90"]).all()
    assert {"imputability", "imputable"} <= set(protein.var)


def test_from_modalities_none_is_all_but_the_target(model: MosaicVI) -> None:
    assert_same_answer(answer(model, "protein"), answer(model, "protein", ["rna"]))
    assert answer(model, "protein").uns["mosaicvi"]["from_modalities"] == ["rna"]


def test_scales_agree_with_each_other(model: MosaicVI, has: dict[str, np.ndarray]) -> None:
    counts = answer(model, "protein", ["rna"])
    log1p = answer(model, "protein", ["rna"], scale="log1p")
    clr = answer(model, "protein", ["rna"], scale="clr")
    foreground = answer(model, "protein", ["rna"], scale="foreground")
    rows = has["rna"]
    np.testing.assert_allclose(log1p.X[rows], counts.layers["log1p_mean"][rows], rtol=1e-5)
    np.testing.assert_allclose(clr.X[rows].sum(1), 0, atol=1e-4)
    assert (foreground.X[rows] < counts.layers["denoised"][rows]).mean() > 0.9


def test_posterior_predictive_sample(model: MosaicVI, has: dict[str, np.ndarray]) -> None:
    drawn = model.posterior_predictive_sample("rna", ["protein"], n_samples=4)
    assert drawn.shape == (4, N_CELLS, N_GENES)
    inside = drawn[:, has["protein"]]
    assert np.isnan(drawn[:, ~has["protein"]]).all()
    np.testing.assert_array_equal(inside, np.round(inside))
    assert (inside >= 0).all()


def test_normalized_expression(model: MosaicVI, has: dict[str, np.ndarray]) -> None:
    rna = model.get_normalized_expression("rna")
    assert rna.shape == (N_CELLS, N_GENES)
    np.testing.assert_allclose(rna.sum(axis=1), 1, atol=1e-4)
    thousand = model.get_normalized_expression("rna", library_size=1000.0)
    np.testing.assert_allclose(thousand, 1000 * rna, rtol=1e-4)
    rows = np.flatnonzero(has["rna"])
    observed = model.get_normalized_expression("rna", library_size="observed", indices=rows)
    counts = np.asarray(model.adata["rna"].X.sum(1)).ravel()
    order = np.asarray(model.adata.obsmap["rna"]).ravel()[rows].astype(int) - 1
    np.testing.assert_allclose(observed.sum(axis=1), counts[order], rtol=1e-3)
    protein = model.get_normalized_expression("protein", ["rna"])
    assert np.isfinite(protein[has["rna"]]).all(axis=None)
    assert protein[~has["rna"]].isna().all(axis=None)


def test_foreground_probability(model: MosaicVI, has: dict[str, np.ndarray]) -> None:
    own = model.get_protein_foreground_probability()
    assert own.shape == (N_CELLS, N_PROTEINS)
    assert ((own >= 0) & (own <= 1)).all(axis=None)
    told = model.get_protein_foreground_probability(from_modalities=["rna"])
    np.testing.assert_array_equal(told.notna().all(axis=1), has["rna"])
    both = np.flatnonzero(has["rna"] & has["protein"])
    assert not np.allclose(own.iloc[both], told.iloc[both])
    with pytest.raises(RequestError, match="nb_mixture"):
        model.get_protein_foreground_probability("rna")


def test_elbo_and_reconstruction_error(model: MosaicVI, mdata: MuData) -> None:
    elbo = model.get_elbo()
    assert np.isfinite(elbo)
    assert elbo < 0  # log-probabilities of counts: higher is better
    error = model.get_reconstruction_error()
    assert set(error) == {"rna", "protein"}
    assert all(value > 0 for value in error.values())
    assert fit(build(mdata), 1).get_elbo() < elbo + 30


def test_elbo_is_the_sum_of_its_parts(model: MosaicVI, has: dict[str, np.ndarray]) -> None:
    error = model.get_reconstruction_error(n_samples=5)
    mean, variance = model.get_latent_representation(return_dist=True)
    divergence = 0.5 * (variance - 1 - np.log(variance) + mean**2).sum(1)
    total = sum(error[name] * has[name].mean() for name in error) + divergence.mean()
    assert model.get_elbo(n_samples=5) == pytest.approx(-total, rel=1e-4)


@pytest.mark.parametrize("fusion", ["product_of_experts", "mixture_of_experts"])
def test_modality_contribution(mdata: MuData, has: dict[str, np.ndarray], fusion: str) -> None:
    shares = fit(build(mdata, fusion=fusion), 1).get_modality_contribution()
    assert list(shares.columns) == ["rna", "protein", "prior"]
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    for name, rows in has.items():
        assert (shares.loc[~rows, name] == 0).all()
        assert (shares.loc[rows, name] > 0).all()
    both = has["rna"] & has["protein"]
    limit = 0.5 if fusion == "mixture_of_experts" else 1.0
    # An expert of a mixture of two never counts for more than its weight.
    assert (shares.loc[both, ["rna", "protein"]] <= limit + 1e-6).to_numpy().all()


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_indices(model: MosaicVI, has: dict[str, np.ndarray]) -> None:
    chosen = np.flatnonzero(has["rna"])[[4, 0, 9]]
    mask = np.zeros(N_CELLS, dtype=bool)
    mask[chosen] = True
    whole = model.get_latent_representation()
    np.testing.assert_allclose(
        model.get_latent_representation(indices=chosen), whole[chosen], atol=1e-6
    )
    np.testing.assert_array_equal(
        model.get_latent_representation(indices=mask),
        model.get_latent_representation(indices=np.sort(chosen)),
    )
    np.testing.assert_array_equal(
        model.get_latent_representation(indices=[-1]),
        model.get_latent_representation(indices=[N_CELLS - 1]),
    )
    twice = answer(model, "protein", ["rna"], indices=[int(chosen[0]), int(chosen[0])])
    # The same draws; the last bits of a product depend on the row that a cell has in it.
    np.testing.assert_allclose(twice.X[0], twice.X[1], rtol=1e-6)
    for bad in ([N_CELLS], [-N_CELLS - 1], [], np.ones(3, dtype=bool)):
        with pytest.raises(RequestError, match="indices"):
            model.get_latent_representation(indices=bad)


# --- requests that cannot be answered ----------------------------------------------------------


def test_no_selected_cell_has_evidence(model: MosaicVI, has: dict[str, np.ndarray]) -> None:
    without = np.flatnonzero(~has["rna"])
    with pytest.raises(RequestError, match="from_modalities"):
        model.impute("protein", ["rna"], indices=without)
    with pytest.raises(RequestError, match="none of the"):
        model.get_latent_representation(from_modalities=["rna"], indices=without)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.impute("atac"),
        lambda m: m.impute("protein", ["rnaa"]),
        lambda m: m.get_latent_representation(from_modalities=["atac"]),
        lambda m: m.posterior_predictive_sample("atac"),
        lambda m: m.get_normalized_expression("atac"),
        lambda m: m.get_protein_foreground_probability("adt"),
    ],
)
def test_unknown_modality_lists_the_known(model: MosaicVI, call: object) -> None:
    with pytest.raises(RequestError, match=r"'rna', 'protein'"):
        call(model)  # type: ignore[operator]


def test_library_size_errors(model: MosaicVI, has: dict[str, np.ndarray]) -> None:
    with pytest.raises(RequestError, match="no library size"):
        model.impute("protein", ["rna"], library_size=1000)
    for bad in (-1.0, 0.0, float("nan"), "median"):
        with pytest.raises(RequestError, match="library_size"):
            model.impute("rna", ["protein"], library_size=bad)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="not measured by it"):
        model.posterior_predictive_sample("rna", ["protein"], library_size="observed")
    fixed = answer(model, "rna", ["protein"], library_size=500.0)
    np.testing.assert_allclose(fixed.layers["denoised"][has["protein"]].sum(1), 500, rtol=1e-3)


def test_other_bad_requests(model: MosaicVI) -> None:
    with pytest.raises(RequestError, match="scale"):
        model.impute("protein", ["rna"], scale="sqrt")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="foreground"):
        model.impute("rna", ["protein"], scale="foreground")
    with pytest.raises(RequestError, match="n_samples"):
        model.impute("protein", ["rna"], n_samples=0)
    with pytest.raises(RequestError, match="batch1"):
        model.impute("protein", ["rna"], transform_batch="nowhere")
    with pytest.raises(RequestError, match="from_modalities"):
        model.impute("protein", [])
    with pytest.raises(RequestError, match="kl_weigth"):
        model.train(1, plan_kwargs={"kl_weigth": 1.0})
    with pytest.raises(RequestError, match="MuData"):
        MosaicVI.setup_anndata(anndata.AnnData(np.ones((2, 2), dtype=np.float32)))


@pytest.mark.parametrize("level", [-0.1, 1.5, float("nan")])
def test_bad_quantiles(model: MosaicVI, level: float) -> None:
    with pytest.raises(RequestError, match="quantiles"):
        model.impute("protein", ["rna"], quantiles=(level,))


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_library_size_of_numpys_kinds(model: MosaicVI, kind: type) -> None:
    """A mean of counts is a ``float32``, and was not heard."""
    given = {"n_samples": 4, "indices": np.arange(20)}
    plain = model.posterior_predictive_sample("rna", library_size=50, **given)
    drawn = model.posterior_predictive_sample("rna", library_size=kind(50), **given)
    np.testing.assert_array_equal(plain, drawn)


def test_draws_take_batches_in_turn(model: MosaicVI) -> None:
    batches = ["batch1", "batch2"]
    first, second, both = (
        model.get_normalized_expression("rna", transform_batch=each, n_samples=n, indices=[0, 1])
        for each, n in ((batches[0], 1), (batches[1], 2), (batches, None))
    )
    assert not np.allclose(both, first)
    assert not np.allclose(both, second)
    with pytest.raises(RequestError, match="2 or more, as draws take the batches"):
        model.impute("rna", ["protein"], transform_batch=batches, n_samples=1)


def test_transform_batch(model: MosaicVI, has: dict[str, np.ndarray]) -> None:
    own = answer(model, "rna", ["protein"])
    first = answer(model, "rna", ["protein"], transform_batch="batch1")
    second = answer(model, "rna", ["protein"], transform_batch="batch2")
    mixed = answer(model, "rna", ["protein"], transform_batch=["batch1", "batch2"])
    batch = model.adata.obs["batch"].to_numpy()
    for name, there in (("batch1", first), ("batch2", second)):
        rows = has["protein"] & (batch == name)
        np.testing.assert_allclose(
            there.layers["denoised"][rows], own.layers["denoised"][rows], rtol=1e-4
        )
    assert not np.allclose(first.X[has["protein"]], second.X[has["protein"]])
    assert np.isfinite(mixed.X[has["protein"]]).all()


def test_imputability_of_positive_values_is_that_of_their_logs() -> None:
    specs = {
        "rna": SimulatedModality.rna(40, likelihood="nb"),
        "own": replace(SimulatedModality.normal(12), likelihood="lognormal"),
    }
    mdata = without_truth(simulate(300, specs, patterns={"rna+own": 1.0}, n_latent=3, seed=1))
    mdata["own"].X[0, :3] = np.nan
    built = fit(build(mdata, {"rna": "nb", "own": "lognormal"}), 2)
    cells = built.validation_indices
    told = built.impute("own", ["rna"], indices=cells, n_samples=50)
    predicted, measured = (np.log(np.asarray(each)) for each in (told.X, mdata["own"].X[cells]))
    expected = [
        np.corrcoef(x[np.isfinite(y)], y[np.isfinite(y)])[0, 1]
        for x, y in zip(predicted.T, measured.T, strict=True)
    ]
    np.testing.assert_allclose(told.var["imputability"], expected, atol=1e-4)


def test_expected_values_in_a_batch_that_did_not_measure_are_averaged_over_its_offsets() -> None:
    mdata = small_mosaic(120)
    lacks = np.asarray(mdata.obsmap["protein"]).ravel() == 0
    batch = mdata.obs["batch"].astype(str).where(~lacks, "unstained")
    for part in (mdata, *mdata.mod.values()):
        part.obs["batch"] = batch.loc[part.obs_names]
    model = fit(build(mdata), 1)

    def expected(rows: np.ndarray, **given: object) -> np.ndarray:
        return model.get_normalized_expression("protein", ["rna"], indices=rows, **given).to_numpy()

    holds = np.flatnonzero(~lacks & (np.asarray(mdata.obsmap["rna"]).ravel() > 0))
    unstained = np.flatnonzero(lacks)
    np.testing.assert_array_equal(expected(unstained), expected(unstained, n_samples=25))
    for rows, given in ((holds, {}), (unstained, {"transform_batch": "batch1"})):
        np.testing.assert_array_equal(expected(rows, **given), expected(rows, n_samples=1, **given))
    assert not np.array_equal(expected(unstained), expected(unstained, n_samples=1))
