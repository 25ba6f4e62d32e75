"""A third modality of noise, added to simulated cells, must cost nothing."""

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

N_CELLS, N_DRAWS, N_NOISE = 700, 100, 120
KINDS = {"rna": "nb", "protein": "nb_mixture", "noise": "nb"}


def crps(samples: np.ndarray, truth: np.ndarray) -> float:
    """Continuous ranked probability score, from sorted draws."""
    ordered = np.sort(samples, axis=0)
    count = len(ordered)
    weights = (2 * np.arange(1, count + 1) - count - 1).reshape(-1, 1, 1)
    return float((np.abs(samples - truth).mean(0) - (weights * ordered).sum(0) / count**2).mean())


@pytest.fixture(scope="module")
def drawn() -> tuple[MuData, np.ndarray]:
    """Simulated cells, and the protein of those that do not show theirs."""
    data = simulate(
        N_CELLS,
        {
            "rna": SimulatedModality.rna(120, likelihood="nb"),
            "protein": SimulatedModality.protein(10),
        },
        patterns={"rna+protein": 0.6, "rna": 0.4},
        batches=1,
        n_latent=4,
        n_types=0,
        seed=8,
    )
    truth = data.obsm["truth_protein"].toarray()
    return without_truth(data), truth


def fit(data: MuData, *, noise: bool) -> MosaicVI:
    parts = {"rna": data["rna"].copy(), "protein": data["protein"].copy()}
    if noise:
        values = np.random.default_rng(4).poisson(1.0, (N_CELLS, N_NOISE))
        names = pd.DataFrame(index=[f"noise{number}" for number in range(N_NOISE)])
        cells = pd.DataFrame(index=data.obs_names)
        parts["noise"] = anndata.AnnData(sp.csr_matrix(values, dtype=np.float32), cells, names)
    mdata = make_mudata(parts)
    MosaicVI.setup_mudata(mdata, {name: KINDS[name] for name in parts})
    model = MosaicVI(mdata, n_latent=8, n_hidden=64)
    model.train(50, **QUIET)
    return model


@pytest.fixture(scope="module")
def noisy(drawn: tuple[MuData, np.ndarray]) -> MosaicVI:
    return fit(drawn[0], noise=True)


def score(model: MosaicVI, truth: np.ndarray, evidence: list[str]) -> float:
    cells = model.adata["protein"].obs_names
    rows = np.flatnonzero(~model.adata.obs_names.isin(cells))
    draws = model.posterior_predictive_sample(
        "protein", evidence, indices=rows, n_samples=N_DRAWS, seed=0
    )
    return crps(np.log1p(draws), np.log1p(truth[rows]))


def test_noise_does_not_worsen_imputation(
    drawn: tuple[MuData, np.ndarray], noisy: MosaicVI
) -> None:
    data, truth = drawn
    without = score(fit(data, noise=False), truth, ["rna"])
    # Trusted, the same noise costs 2 %.
    assert score(noisy, truth, ["rna", "noise"]) < 1.01 * without


def test_noise_adds_nothing_to_other_evidence(
    drawn: tuple[MuData, np.ndarray], noisy: MosaicVI
) -> None:
    truth = drawn[1]
    from_both, from_rna = (score(noisy, truth, names) for names in (["rna", "noise"], ["rna"]))
    assert from_both < 1.002 * from_rna
    # Trusted, it has a share of .12.
    assert noisy.get_modality_contribution()["noise"].max() < 0.02
