"""A small accuracy gate on real cells: a broken model fails it, noise does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.fits import QUIET
from tests.helpers import make_mudata

from mosaicvi import MosaicVI, datasets, graph

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


@pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")
def test_protein_without_a_pair(require_file: Callable[[str], Path]) -> None:
    """Counterparts are nearer to the truth than what a cell's own posterior says."""
    require_file("quickstart_pbmc_mosaic.h5mu")
    whole = datasets.pbmc_mosaic()
    rna, protein = whole["rna"], whole["protein"]
    both = rna.obs_names.intersection(protein.obs_names)
    both = both[np.random.default_rng(0).permutation(len(both))]
    data = make_mudata({"rna": rna[both[::2]].copy(), "protein": protein[both[1::2]].copy()})
    MosaicVI.setup_mudata(data, {"rna": "zinb", "protein": "nb_mixture"}, batch_key="batch")
    model = MosaicVI(data, graph=graph.from_names(data, "rna", "protein"))
    model.train(**QUIET)

    rows = data.obs_names.get_indexer(both[::2])
    truth = np.log1p(protein[both[::2]].X.toarray())
    scores, kept = [], model.counterparts
    for counterparts in (kept, {}):
        model.counterparts = counterparts
        drawn = model.posterior_predictive_sample(
            "protein", ["rna"], indices=rows, n_samples=N_DRAWS
        )
        draws = np.log1p(drawn)
        scores.append(crps(draws, truth).mean())
        held = (truth >= np.quantile(draws, 0.1, 0)) & (truth <= np.quantile(draws, 0.9, 0))
        assert 0.75 < held.mean() < 0.9
    carried_over, own = scores
    assert carried_over < 0.99 * own
    measured = np.log1p(protein[both[1::2]].X.toarray())
    anything = np.random.default_rng(0).permutation(measured)[:N_DRAWS, None]
    assert carried_over < 0.85 * crps(anything.repeat(len(rows), 1), truth).mean()
