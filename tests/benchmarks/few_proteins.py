"""Two or three proteins beside many genes: ``python -m tests.benchmarks.few_proteins DATA N SEED``.

Half of the cells lose their protein. What is asked is how much so small a modality may weigh: its
weight in the objective is measured, and bounded (``--most``; ``inf``: as it is measured). Prints as
JSON the measured weight, and CRPS, Pearson correlation and what 80 % intervals hold, of log1p, by
the model at each bound, by kernel ridge, means of types and nearest neighbours.

``linear`` are the cells of :mod:`tests.benchmarks.near_linear_cells`, ``generative`` those of
``datasets.simulate``, ``hybrid`` RNA of ``pbmc10k_cite`` with proteins that follow its components.
Proteins are drawn by the seed, of ``pbmc_mosaic`` among the sixty that vary most.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from sklearn.decomposition import TruncatedSVD
from tests.benchmarks.near_linear_cells import near_linear_cells

from mosaicvi import datasets
from mosaicvi.bm import methods
from mosaicvi.bm._encodings import log_normalise
from mosaicvi.bm._imputation import Imputation
from mosaicvi.bm._score import score
from mosaicvi.datasets import SimulatedModality, simulate
from mosaicvi.model import _construct, _training

BASELINES = ("kernel_ridge", "type_means", "knn")
VARYING = 60


def hybrid(n_cells: int, n_proteins: int, seed: int) -> mudata.MuData:
    """Real RNA, and proteins of which the foreground is a logistic function of its components."""
    rng = np.random.default_rng((seed, 9))
    rna = datasets.pbmc10k_cite()["rna"]
    counts = sp.csr_matrix(rna.X)[rng.permutation(rna.n_obs)[:n_cells]]
    state = TruncatedSVD(10, random_state=0).fit_transform(log_normalise(counts))
    state = (state - state.mean(0)) / state.std(0)
    form = state @ rng.normal(0, 0.6, (10, n_proteins))
    gate = 1 / (1 + np.exp(-2 * (form - 0.3)))
    size = np.exp(rng.normal(0, 0.3, n_cells))[:, None]
    mean = size * np.exp(rng.normal(3.5, 1, n_proteins)) * gate
    mean += (
        3 * np.exp(rng.normal(0, 0.7, n_proteins)) * np.exp(rng.normal(0, 0.5, n_cells))[:, None]
    )
    obs = pd.DataFrame(index=[f"c{number}" for number in range(n_cells)])
    protein = rng.poisson(rng.gamma(5, mean / 5)).astype(np.float32)
    names = pd.DataFrame(index=[f"AB{number}" for number in range(n_proteins)])
    return mudata.MuData(
        {
            "rna": AnnData(counts.astype(np.float32), obs.copy(), rna.var[[]].copy()),
            "protein": AnnData(protein, obs.copy(), names),
        }
    )


def whole(name: str, n_proteins: int, seed: int, n_cells: int) -> mudata.MuData:
    """Cells with both modalities, and with the proteins wanted, or more."""
    if name == "linear":
        return near_linear_cells(n_cells, seed)
    if name == "generative":
        modalities = {
            "rna": SimulatedModality.rna(2000),
            "protein": SimulatedModality.protein(n_proteins, 0),
        }
        return simulate(n_cells, modalities, patterns={"rna+protein": 1.0}, seed=seed)
    if name == "hybrid":
        return hybrid(n_cells, n_proteins, seed)
    return getattr(datasets, name)()


def cut(name: str, n_proteins: int, seed: int, n_cells: int) -> mudata.MuData:
    """Some cells with both, and some proteins."""
    mdata = whole(name, n_proteins, seed, n_cells)
    rng = np.random.default_rng((seed, n_proteins, 1))
    cells = mdata["rna"].obs_names.intersection(mdata["protein"].obs_names)
    cells = cells[np.sort(rng.permutation(len(cells))[:n_cells])]
    kept = np.sort(rng.choice(mdata["protein"].n_vars, n_proteins, replace=False))
    if name == "pbmc_mosaic":
        values = sp.csr_matrix(mdata["protein"][cells].X).toarray()
        varying = np.argsort(-np.log1p(values).std(0))[:VARYING]
        kept = np.sort(rng.choice(varying, n_proteins, replace=False))
    tables = {"rna": mdata["rna"][cells], "protein": mdata["protein"][cells, kept]}
    found = mudata.MuData(
        {
            key: AnnData(each.X.copy(), each.obs[[]].copy(), each.var[[]].copy())
            for key, each in tables.items()
        }
    )
    for key in {"batch", "cell_type"} & set(mdata.obs):
        found.obs[key] = mdata.obs[key].reindex(found.obs_names).astype(str).to_numpy()
    if "batch" not in found.obs:
        found.obs["batch"] = "0"
    return found


def main() -> None:
    """Fit with every bound, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "data", choices=("linear", "generative", "hybrid", "pbmc10k_cite", "pbmc_mosaic")
    )
    parser.add_argument("proteins", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--cells", type=int, default=2000, help="at most")
    parser.add_argument("--most", default="inf,25,15", help="bounds of the weight")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    measured: list[float] = []

    def weights(*arguments: object) -> dict[str, float]:
        found = _construct.modality_weights(*arguments)
        measured.append(found["protein"])
        return found

    _training.modality_weights = weights
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5mu"
        cut(given.data, given.proteins, given.seed, given.cells).write(path)
        task = Imputation(data=str(path), hide=0.5).task(given.seed)
    found: dict[str, object] = {**vars(given), "features": list(task.public.features)}
    ways = [(name, name, None) for name in BASELINES]
    ways += [(f"at most {each}", "mosaicvi", float(each)) for each in given.most.split(",")]
    for name, method, most in ways:
        if most is not None:
            _training.MOST_WEIGHT = most
        options = {"train.enable_progress_bar": False} if method == "mosaicvi" else {}
        answer = methods.get(method)(task.public.with_options(options))
        answer.fit()
        scores = score(answer.predict()[""], task.truth)
        keys = "crps_log1p", "pearson", "coverage_80%"
        found[name] = [round(scores[key]["mean"], 4) for key in keys]
    found["weight"] = round(measured[0], 1)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
