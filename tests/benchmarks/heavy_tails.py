"""Continuous values, with outliers or without: ``python -m tests.benchmarks.heavy_tails DATA N``.

A quarter of 1,500 cells of ``pbmc10k_cite`` (of ``pbmc_mosaic``: of all with both) lose their
protein, centred log-ratios here, or of the ``simulated`` cells below 30 scores, and the other
modality answers (``--back``: loses RNA, and the scores answer); ``N`` is the seed. ``--noise
outliers`` moves one value in a hundred by ten standard deviations up or down, ``tails`` adds noise
of Student's t with 2.5 degrees of freedom, in the hidden cells as well. Prints a line of JSON for
each of: the likelihoods ``normal`` and ``student`` at defaults; the first with values weighed up
for themselves, as they were before (``weighed``); and values of 30 nearest neighbours. CRPS of
features in units of their standard deviation (of log1p counts for ``--back``), and what 80 and 90 %
intervals hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from typing import TYPE_CHECKING
from unittest import mock

import mudata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from mosaicvi import MosaicVI, datasets, metrics
from mosaicvi.bm._encodings import log_normalise
from mosaicvi.model import _training

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_CELLS, N_GENES, N_SCORES, N_DRAWS = 1500, 1000, 30, 100
MOST_SCORED = 500
"""Features that are scored, evenly apart."""


def scores_of(protein: AnnData) -> np.ndarray:
    """Centred log-ratios of antibody counts."""
    logs = np.log1p(sp.csr_matrix(protein.X).toarray().astype(np.float64))
    return np.asarray(logs - logs.mean(1, keepdims=True))


def simulated(rng: np.random.Generator) -> tuple[AnnData, np.ndarray]:
    """RNA and scores that are linear in six shared dimensions; two are the scores' own."""
    n_cells = 2000
    centers = 3 * rng.normal(size=(5, 6))
    z = (rng.normal(size=(n_cells, 6)) + centers[rng.integers(0, 5, n_cells)]) / 3
    loadings = rng.normal(size=(6, N_GENES)) * 0.6 * (rng.random((6, N_GENES)) < 0.3)
    rates = np.exp(z @ loadings + rng.normal(0, 1.2, N_GENES))
    rates *= np.exp(rng.normal(7.3, 0.4, n_cells) - np.log(rates.sum(1)))[:, None]
    counts = sp.csr_matrix(rng.poisson(rng.gamma(2.0, rates / 2.0)).astype(np.float32))
    own = np.column_stack([z, rng.normal(size=(n_cells, 2))])
    weights = rng.normal(size=(8, N_SCORES)) * (rng.random((8, N_SCORES)) < 0.5)
    noise = rng.normal(size=(n_cells, N_SCORES)) * np.exp(rng.normal(-0.2, 0.4, N_SCORES))
    cells = pd.DataFrame(index=[f"c{number}" for number in range(n_cells)])
    return AnnData(counts, cells), own @ weights + noise


def paired(name: str, noise: str, seed: int) -> dict[str, AnnData]:
    """RNA and scores of the same cells."""
    rng = np.random.default_rng((seed, 50))
    if name == "simulated":
        rna, values = simulated(rng)
    else:
        mdata = getattr(datasets, name)()
        cells = mdata["rna"].obs_names.intersection(mdata["protein"].obs_names)
        cells = cells[np.sort(rng.permutation(len(cells))[:MOST_CELLS])]
        rna, values = mdata["rna"][cells], scores_of(mdata["protein"][cells])
    spread = values.std(0)
    if noise == "outliers":
        moved = rng.random(values.shape) < 0.01
        values = values + moved * rng.choice([-10.0, 10.0], values.shape) * spread
    elif noise == "tails":
        values = values + rng.standard_t(2.5, values.shape) * 0.3 * spread
    scores = AnnData(values.astype(np.float32), rna.obs[[]].copy())
    return {"rna": AnnData(rna.X.copy(), rna.obs[[]].copy()), "score": scores}


def fitted(
    tables: Mapping[str, AnnData],
    answer: str,
    hidden: np.ndarray,
    likelihood: str,
    seed: int,
) -> np.ndarray:
    """Draws of hidden cells, ``(n_draws, n_hidden, n_features)``."""
    kept = {
        name: table[~hidden].copy() if name == answer else table for name, table in tables.items()
    }
    mdata = mudata.MuData(kept)
    MosaicVI.setup_mudata(mdata, {"rna": "zinb", "score": likelihood})
    model = MosaicVI(mdata, seed=seed)
    model.train(enable_progress_bar=False)
    cells = mdata.obs_names.get_indexer(tables[answer].obs_names[hidden])
    evidence = [name for name in tables if name != answer]
    return np.asarray(
        model.posterior_predictive_sample(
            answer, indices=cells, from_modalities=evidence, n_samples=N_DRAWS
        )
    )


def neighbours(tables: Mapping[str, AnnData], answer: str, hidden: np.ndarray) -> np.ndarray:
    """Values of the 30 cells that are nearest by the other modality, shape as of draws."""
    if answer == "score":
        logs = np.asarray(log_normalise(sp.csr_matrix(tables["rna"].X)).todense())
        space = PCA(30, random_state=0).fit(logs[~hidden]).transform(logs)
    else:
        values = np.asarray(tables["score"].X)
        space = values / values.std(0)
    search = NearestNeighbors(n_neighbors=30).fit(space[~hidden])
    near = search.kneighbors(space[hidden], return_distance=False)
    return dense(tables[answer])[~hidden][near].transpose(1, 0, 2)


def dense(table: AnnData) -> np.ndarray:
    """Values of a table."""
    return np.asarray(table.X.toarray() if sp.issparse(table.X) else table.X, dtype=np.float64)


def main() -> None:
    """Fit, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=("pbmc10k_cite", "pbmc_mosaic", "simulated"))
    parser.add_argument("seed", type=int)
    parser.add_argument("--noise", choices=("none", "outliers", "tails"), default="none")
    parser.add_argument("--back", action="store_true", help="the scores answer for RNA")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    tables = paired(given.data, given.noise, given.seed)
    answer = "rna" if given.back else "score"
    n_cells = tables[answer].n_obs
    hidden = np.zeros(n_cells, dtype=bool)
    hidden[np.random.default_rng(given.seed).permutation(n_cells)[: n_cells // 4]] = True
    truth = dense(tables[answer])[hidden]
    step = max(truth.shape[1] // MOST_SCORED, 1)
    for how in ("normal", "student", "weighed", "neighbours"):
        if how == "neighbours":
            draws = neighbours(tables, answer, hidden)
        elif how == "weighed":
            # As if values were of no noise: their reconstruction has the modality's weight.
            with mock.patch.object(_training, "_reliable", return_value=1.0):
                draws = fitted(tables, answer, hidden, "normal", given.seed)
        else:
            draws = fitted(tables, answer, hidden, how, given.seed)
        sys.stdout.write(json.dumps({**vars(given), "how": how, **judged(draws, truth, step)}))
        sys.stdout.write("\n")


def judged(draws: np.ndarray, truth: np.ndarray, step: int) -> dict[str, float]:
    """Scores of draws, ``(n_draws, n_cells, n_features)``."""
    draws, truth = draws[..., ::step], truth[:, ::step]
    if step > 1:
        draws, truth = np.log1p(draws), np.log1p(truth)
    else:
        draws, truth = draws / truth.std(0), truth / truth.std(0)
    found = {"crps": float(np.mean(metrics.crps_from_samples(draws, truth)))}
    for level in (80, 90):
        low, high = np.quantile(draws, [0.5 - level / 200, 0.5 + level / 200], axis=0)
        found[f"held{level}"] = float(((low <= truth) & (truth <= high)).mean())
    return {key: round(value, 4) for key, value in found.items()}


if __name__ == "__main__":
    main()
