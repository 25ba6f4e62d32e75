"""A small accuracy gate on real cells: a broken model fails it, noise does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.fits import QUIET
from tests.helpers import make_mudata

from mosaicvi import MosaicVI, datasets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HIDDEN = "p4_0"
N_DRAWS = 60


def crps(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of each entry, from sorted draws."""
    ordered = np.sort(samples, axis=0)
    count = len(ordered)
    weights = (2 * np.arange(1, count + 1) - count - 1).reshape(-1, 1, 1)
    spread = (weights * ordered).sum(0) / count**2
    return np.abs(samples - truth).mean(0) - spread


@pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")
def test_protein_of_a_hidden_donor(require_file: Callable[[str], Path]) -> None:
    require_file("quickstart_pbmc_mosaic.h5mu")
    whole = datasets.pbmc_mosaic()
    protein = whole["protein"]
    hidden = (protein.obs["batch"] == HIDDEN).to_numpy()
    data = make_mudata({"rna": whole["rna"].copy(), "protein": protein[~hidden].copy()})
    MosaicVI.setup_mudata(data, {"rna": "zinb", "protein": "nb_mixture"}, batch_key="batch")
    model = MosaicVI(data)
    model.train(40, **QUIET)

    names = protein.obs_names[hidden]
    rows = data.obs_names.get_indexer(names)
    truth = np.log1p(protein[names].X.toarray())
    draws = np.log1p(
        model.posterior_predictive_sample("protein", ["rna"], indices=rows, n_samples=N_DRAWS)
    )
    measured = np.log1p(protein[~hidden].X.toarray())
    chosen = np.random.default_rng(0).choice(len(measured), N_DRAWS, replace=False)
    marginal = measured[chosen][:, None, :].repeat(len(rows), 1)

    ours, others = crps(draws, truth).mean(), crps(marginal, truth).mean()
    assert ours < 0.92 * others
    predicted = draws.mean(0)
    varying = truth.std(0) > 0.1
    each = [np.corrcoef(predicted[:, f], truth[:, f])[0, 1] for f in np.flatnonzero(varying)]
    assert np.corrcoef(predicted.ravel(), truth.ravel())[0, 1] > 0.8
    assert np.mean(each) > 0.35
    covered = (truth >= np.quantile(draws, 0.05, 0)) & (truth <= np.quantile(draws, 0.95, 0))
    assert covered.mean() > 0.75
