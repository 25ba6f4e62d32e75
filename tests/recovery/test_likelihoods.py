"""Both models recover rates of methylation and intensities that they did not see."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from tests.fits import QUIET
from tests.recovery.test_factors import matched

from mosaicvi import FactorVI, MosaicVI
from mosaicvi.datasets import SimulatedModality, simulate, true_mean

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

N_CELLS, N_LATENT = 500, 3


@cache
def drawn(likelihood: str):
    """RNA and a second modality; a third of the cells lack the one, a sixth the other."""
    second = SimulatedModality.methylation(80)
    if likelihood == "student":
        second = SimulatedModality("student", second.names, signal_sd=1.0)
    if likelihood == "lognormal":
        second = SimulatedModality("lognormal", second.names, signal_sd=1.0, abundance=(3.0, 1.0))
    return simulate(
        N_CELLS,
        {"rna": SimulatedModality.rna(120, likelihood="nb"), "second": second},
        patterns={"rna+second": 0.5, "rna": 0.33, "second": 0.17},
        batches=1,
        n_latent=N_LATENT,
        n_types=0,
        seed=4,
    )


def fitted(model_class, likelihood: str, mdata):
    model_class.setup_mudata(mdata, {"rna": "nb", "second": likelihood})
    if model_class is FactorVI:
        model = FactorVI(mdata, n_factors=5)
        model.train(60, **QUIET)
    else:
        model = MosaicVI(mdata, n_latent=5, n_hidden=32)
        model.train(60, batch_size=64, **QUIET)
    return model


def scaled(values: np.ndarray, likelihood: str) -> np.ndarray:
    return np.log(values) if likelihood == "lognormal" else values


@pytest.mark.parametrize("likelihood", ["beta_binomial", "lognormal", "student"])
@pytest.mark.parametrize("model_class", [MosaicVI, FactorVI])
def test_recovery(model_class, likelihood: str) -> None:
    mdata = drawn(likelihood)
    model = fitted(model_class, likelihood, mdata)
    truth = scaled(true_mean(mdata, "second"), likelihood)
    hidden = ~np.isin(mdata.obs_names, mdata.mod["second"].obs_names)
    seen = ~hidden
    answer = model.impute("second", from_modalities=["rna"], n_samples=50)
    imputed = scaled(np.asarray(answer.layers["denoised"]), likelihood)
    centre = truth[seen].mean(0)
    error = ((imputed - truth)[hidden] ** 2).mean()
    trivial = ((centre - truth)[hidden] ** 2).mean()
    # RNA of some 2,000 counts knows z well, but not exactly.
    assert error < 0.35 * trivial, error / trivial
    own = scaled(np.asarray(model.get_normalized_expression("second", indices=seen)), likelihood)
    assert ((own - truth[seen]) ** 2).mean() < 0.2 * ((centre - truth[seen]) ** 2).mean()
    # Intervals of a rate hold its mean; those of an intensity hold the hidden value.
    target = truth if likelihood == "beta_binomial" else np.asarray(mdata.obsm["truth_second"])
    low, high = (np.asarray(answer.layers[name]) for name in ("q05", "q95"))
    inside = ((low <= target) & (high >= target))[hidden].mean()
    assert 0.8 < inside < (1.0 if likelihood == "beta_binomial" else 0.97)
    if likelihood != "student":
        assert np.nanmin(answer.X) >= 0
    if likelihood == "beta_binomial":
        assert np.nanmax(answer.X) <= 1
    if model_class is FactorVI:
        z = np.asarray(mdata.obsm["truth_z"])
        both = np.isin(mdata.obs_names, mdata.mod["rna"].obs_names) & seen
        found = model.get_latent_representation()
        # Dense loadings leave the rotation open: the span is what is recovered.
        design = np.column_stack([found[both], np.ones(both.sum())])
        residual = z[both] - design @ np.linalg.lstsq(design, z[both], rcond=None)[0]
        assert (1 - residual.var(0) / z[both].var(0)).min() > 0.85
        table = model.get_variance_explained()
        assert (table["r2"] <= 1).all()


def test_sparse_factors_of_methylation() -> None:
    """With sparse weights the factors themselves are found, and where they act."""
    rng = np.random.default_rng(5)
    from anndata import AnnData
    from scipy.special import expit
    from tests.helpers import make_mudata

    active = np.array([[1, 1], [1, 0], [0, 1]], dtype=bool)
    z = rng.normal(size=(500, 3))
    parts = {}
    for column, name in enumerate(("one", "two")):
        w = rng.normal(size=(100, 3)) * (rng.random((100, 3)) < 0.4) * active[:, column]
        n = rng.poisson(6.0, (500, 100))
        p = expit(z @ w.T + rng.normal(0, 1, 100))
        k = rng.binomial(n, rng.beta(20 * p, 20 * (1 - p)))
        adata = AnnData(shape=(500, 100))
        adata.layers["methylated"], adata.layers["coverage"] = k, n
        adata.obs_names = [f"cell{i:03d}" for i in range(500)]
        adata.var_names = [f"{name}{j}" for j in range(100)]
        parts[name] = adata
    model = FactorVI.setup_mudata(
        mdata := make_mudata(parts), {"one": "beta_binomial", "two": "beta_binomial"}
    )
    model = FactorVI(mdata, n_factors=5)
    model.train(60, **QUIET)
    found = model.get_latent_representation()
    correlation, order = matched(found, z)
    assert correlation.mean() > 0.9, correlation
    np.testing.assert_array_equal(model.get_activity().to_numpy()[order], active)
