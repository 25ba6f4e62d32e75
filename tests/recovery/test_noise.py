"""A third modality of noise must cost nothing: the fit with it is the fit without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.fits import QUIET, without_truth
from tests.helpers import make_mudata

from mosaicvi import MosaicVI
from mosaicvi.datasets import SimulatedModality, simulate

if TYPE_CHECKING:
    from mudata import MuData

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")

N_CELLS, N_NOISE = 700, 120
KINDS = {"rna": "zinb", "protein": "nb_mixture", "noise": "nb"}


@pytest.fixture(scope="module")
def data() -> MuData:
    """Simulated cells, of which two in five do not show their protein."""
    drawn = simulate(
        N_CELLS,
        {
            "rna": SimulatedModality.rna(120, likelihood="nb"),
            "protein": SimulatedModality.protein(10),
        },
        patterns={"rna+protein": 0.6, "rna": 0.4},
        batches=2,
        n_latent=4,
        n_types=0,
        seed=8,
    )
    return without_truth(drawn)


def fit(data: MuData, order: tuple[str, ...]) -> MosaicVI:
    values = np.random.default_rng(4).poisson(1.0, (N_CELLS, N_NOISE))
    names = pd.DataFrame(index=[f"noise{number}" for number in range(N_NOISE)])
    noise = anndata.AnnData(sp.csr_matrix(values, dtype=np.float32), var=names)
    noise.obs_names = data.obs_names
    noise.obs["batch"] = data["rna"].obs["batch"].to_numpy()
    known = {"rna": data["rna"], "protein": data["protein"], "noise": noise}
    mdata = make_mudata({name: known[name].copy() for name in order})
    MosaicVI.setup_mudata(mdata, {name: KINDS[name] for name in order}, batch_key="batch")
    model = MosaicVI(mdata, n_latent=8, n_hidden=64)
    # A small norm, so that gradients are clipped in every step.
    model.train(12, batch_size=64, plan_kwargs={"gradient_norm": 1.0}, **QUIET)
    return model


@pytest.fixture(scope="module")
def without(data: MuData) -> MosaicVI:
    return fit(data, ("rna", "protein"))


@pytest.fixture(
    scope="module",
    params=[("rna", "protein", "noise"), ("noise", "rna", "protein")],
    ids=["last", "first"],
)
def noisy(data: MuData, request: pytest.FixtureRequest) -> MosaicVI:
    return fit(data, request.param)


def test_noise_changes_no_bit_of_an_answer(without: MosaicVI, noisy: MosaicVI) -> None:
    """Weights, the epoch that is kept, latent space and draws: all as without it."""
    assert noisy.module.trust["noise"] == 0.0
    plain = without.module.state_dict()
    for name, value in noisy.module.state_dict().items():
        if ".noise." not in name:
            assert np.array_equal(value.numpy(), plain[name].numpy()), name
    np.testing.assert_array_equal(
        noisy.get_latent_representation(), without.get_latent_representation()
    )
    for name in ("protein", "rna"):
        draws = [
            model.posterior_predictive_sample(name, n_samples=5, seed=0)
            for model in (noisy, without)
        ]
        np.testing.assert_array_equal(*draws, err_msg=name)
    assert noisy.history["validation_loss"].equals(without.history["validation_loss"])


def test_the_decoder_of_noise_is_fitted_all_the_same(noisy: MosaicVI) -> None:
    nats = noisy.history["reconstruction/noise_train"].to_numpy().ravel()
    assert nats[-1] < nats[0]
    imputed = noisy.impute("noise", from_modalities=["rna"], n_samples=20)
    assert abs(float(np.nanmean(imputed.X)) - 1.0) < 0.1


def test_noise_adds_nothing_to_other_evidence(noisy: MosaicVI) -> None:
    assert noisy.get_modality_contribution()["noise"].max() == 0.0
