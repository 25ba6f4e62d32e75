"""Methylation in two layers, and intensities: setup, missing values, files and bad input."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse as sp
from matplotlib import pyplot as plt
from tests.fits import QUIET, assert_same_answer, without_truth
from tests.helpers import SCVI_UNS_KEYS, fingerprint

from mosaicvi import FactorVI, MosaicVI, pl, tl
from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi.data import ModalitySpec, build_manager
from mosaicvi.datasets import SimulatedModality, simulate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mudata import MuData

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

BOTH = {"rna": "nb", "cpg": "beta_binomial"}


def methylome(n_cells: int = 120) -> MuData:
    return without_truth(
        simulate(
            n_cells,
            {"rna": SimulatedModality.rna(30, likelihood="nb"),
             "cpg": SimulatedModality.methylation(70)},
            batches=2,
            n_latent=3,
            seed=1,
        )
    )  # fmt: skip


def spoil(layer: str, value: float) -> Callable[[MuData], None]:
    def change(mdata: MuData) -> None:
        dense = mdata.mod["cpg"].layers[layer].toarray()
        dense[2, 1] = value
        mdata.mod["cpg"].layers[layer] = dense

    return change


def swap(mdata: MuData) -> None:
    layers = mdata.mod["cpg"].layers
    layers["methylated"], layers["coverage"] = layers["coverage"], layers["methylated"]


def rates(mdata: MuData) -> None:
    layers = mdata.mod["cpg"].layers
    whole = layers["coverage"].toarray()
    layers["methylated"] = layers["methylated"].toarray() / np.maximum(whole, 1)


def drop(mdata: MuData) -> None:
    del mdata.mod["cpg"].layers["coverage"]


def uncovered(mdata: MuData) -> None:
    for name in ("methylated", "coverage"):
        mdata.mod["cpg"].layers[name] = mdata.mod["cpg"].layers[name] * 0


CASES: dict[str, tuple[Callable[[MuData], None], tuple[str, ...]]] = {
    "NaN": (spoil("methylated", np.nan), ("layer 'methylated' holds 1 NaN", "region0002")),
    "NaN in coverage": (spoil("coverage", np.nan), ("layer 'coverage' holds 1 NaN",)),
    "infinite": (spoil("coverage", np.inf), ("layer 'coverage' holds 1 infinite",)),
    "negative": (spoil("methylated", -1.0), ("layer 'methylated' holds 1 negative", "'cpg'")),
    "above coverage": (swap, ("'methylated' is above layer 'coverage'", "region", " of ")),
    "rates": (rates, ("fractional", "multiply them by the coverage")),
    "no coverage layer": (drop, ("no layer 'coverage'", "coverage_layer=")),
    "nothing covered": (uncovered, ("'coverage' is zero everywhere",)),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_pairs_are_refused(name: str) -> None:
    change, says = CASES[name]
    mdata = methylome()
    change(mdata)
    before = fingerprint(mdata)
    with pytest.raises(DataError) as caught:
        build_manager(mdata, BOTH)
    for text in says:
        assert text in str(caught.value)
    assert fingerprint(mdata) == before
    assert not any(key in mdata.uns for key in SCVI_UNS_KEYS)


def test_requests_that_do_not_fit() -> None:
    mdata = methylome()
    with pytest.raises(RequestError, match="reads no coverage"):
        build_manager(mdata, {"rna": {"likelihood": "nb", "coverage_layer": "coverage"}})
    with pytest.raises(DataError, match="values of zero or less"):
        build_manager(mdata, {"rna": "lognormal"})
    dense = np.abs(np.random.default_rng(0).normal(size=mdata.mod["rna"].shape)) + 0.1
    dense[3, 2] = -1.0
    mdata.mod["rna"].layers["intensity"] = dense
    with pytest.raises(DataError, match="1 values of zero or less, the first in cell"):
        build_manager(mdata, {"rna": ModalitySpec("lognormal", layer="intensity")})


def test_layers_of_any_name_and_kind() -> None:
    """CSR, dense and integer layers, named by the user, in a dict or a specification, agree."""
    mdata = methylome()
    cpg = mdata.mod["cpg"]
    cpg.layers["mc"] = cpg.layers["methylated"].toarray().astype(np.int64)
    cpg.layers["cov"] = sp.csc_matrix(cpg.layers["coverage"])
    automatic = build_manager(mdata, BOTH).data.modalities["cpg"]
    asked: dict[str, Any] = {"likelihood": "beta_binomial", "layer": "mc", "coverage_layer": "cov"}
    for spec in (asked, ModalitySpec(**asked)):
        named = build_manager(mdata, {"cpg": spec}).data.modalities["cpg"]
        np.testing.assert_array_equal(automatic.values, named.values)
    whole = cpg.layers["coverage"].toarray()
    np.testing.assert_array_equal(np.isnan(automatic.values), whole == 0)
    np.testing.assert_array_equal(automatic.values.imag[whole > 0], whole[whole > 0])
    assert automatic.missing


@pytest.mark.parametrize("model_class", [MosaicVI, FactorVI])
def test_uncovered_values_say_nothing(model_class: Any) -> None:
    """A fit with zero coverage is the same, bit for bit, whatever X holds there; rates come out."""
    answers = []
    for filler in (0.0, 7.0):
        mdata = methylome()
        dense = mdata.mod["cpg"].X.toarray()
        dense[mdata.mod["cpg"].layers["coverage"].toarray() == 0] = filler
        mdata.mod["cpg"].X = dense
        before = fingerprint(mdata)
        model_class.setup_mudata(mdata, BOTH, batch_key="batch")
        model = model_class(mdata)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            model.train(3, **QUIET)
        assert fingerprint(mdata) == before
        answers.append(model.impute("cpg", ["rna"], n_samples=6))
    assert_same_answer(*answers)
    values = np.asarray(answers[0].X)
    assert np.nanmin(values) >= 0
    assert np.nanmax(values) <= 1
    drawn = model.posterior_predictive_sample("cpg", n_samples=2)
    assert drawn.shape == (2, mdata.n_obs, 70)
    with pytest.raises(RequestError, match="continuous"):
        model.impute("cpg", ["rna"], scale="log1p")


def test_files_new_cells_and_to_anndata(tmp_path: Path) -> None:
    mdata = methylome()
    MosaicVI.setup_mudata(mdata, BOTH, batch_key="batch")
    model = MosaicVI(mdata, n_latent=4, n_hidden=16)
    model.train(2, **QUIET)
    model.save(tmp_path / "m")
    again = MosaicVI.load(tmp_path / "m", methylome(), accelerator="cpu")
    assert_same_answer(
        model.impute("cpg", ["rna"], n_samples=4), again.impute("cpg", ["rna"], n_samples=4)
    )
    new = methylome()
    new.mod["cpg"] = new.mod["cpg"][:, ::-1].copy()
    new.update()
    np.testing.assert_allclose(
        model.get_latent_representation(), model.get_latent_representation(new), atol=1e-5
    )
    new = methylome()
    swap(new)
    with pytest.raises(DataError, match="above"):
        model.get_latent_representation(new)
    table = tl.to_anndata(model)
    assert np.isfinite(np.asarray(table.X)).all()


def test_constant_rates_and_intensities_are_no_factors() -> None:
    mdata = methylome()
    cpg = mdata.mod["cpg"]
    cpg.layers["methylated"] = cpg.layers["coverage"].copy()
    cpg.layers["intensity"] = np.full(cpg.shape, 2.5)
    for spec in ("beta_binomial", ModalitySpec("lognormal", layer="intensity")):
        FactorVI.setup_mudata(mdata, {"rna": "nb", "cpg": spec})
        with pytest.raises(DataError, match="all 70 features are constant"):
            FactorVI(mdata, n_factors=3)


def test_a_cell_without_any_coverage_is_warned_of() -> None:
    mdata = methylome()
    cpg = mdata.mod["cpg"]
    for name in ("methylated", "coverage"):
        dense = cpg.layers[name].toarray()
        dense[0] = 0
        cpg.layers[name] = dense
    with pytest.warns(MosaicviWarning, match="1 cells have no coverage"):
        build_manager(mdata, BOTH)


def test_reads_are_not_drawn_beside_imputed_rates() -> None:
    mdata = methylome()
    MosaicVI.setup_mudata(mdata, BOTH, batch_key="batch")
    model = MosaicVI(mdata, n_latent=4, n_hidden=16)
    model.train(1, **QUIET)
    imputed = model.impute("cpg", ["rna"], n_samples=4)
    reads = mdata["cpg"].to_df(layer="methylated")
    with pytest.raises(RequestError, match="beside imputed rates"):
        pl.imputation(imputed, reads)
    coverage = mdata["cpg"].to_df(layer="coverage")
    pl.imputation(imputed, reads / coverage.where(coverage > 0))
    plt.close("all")
