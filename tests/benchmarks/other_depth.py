"""A query sequenced to another depth: ``python -m tests.benchmarks.other_depth DATA SHARE``.

Half of the cells train with both modalities; the RNA counts of the others are thinned to a share,
and their protein is imputed: by the model, by the model as it read depth before (``before``), and
by the values of neighbours in components of the RNA (``neighbours``). Prints a line of JSON each:
CRPS on log1p, and the share of values that 90 % intervals hold, mean over proteins.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings

import numpy as np
import scipy.sparse as sp
from mudata import MuData
from sklearn.decomposition import TruncatedSVD
from sklearn.neighbors import NearestNeighbors

from mosaicvi import MosaicVI, datasets, metrics
from mosaicvi.nn._familiar_depth import nothing_known

N_CELLS, N_DRAWS, N_NEIGHBOURS, N_COMPONENTS = 2000, 100, 30, 30


def main() -> None:
    """Fit once and answer for thinned cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=("pbmc10k_cite", "pbmc_mosaic"))
    parser.add_argument("share", type=float, help="of the RNA's counts; 1: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--thinned", type=float, default=0.0, help="as in plan_kwargs")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    mdata = getattr(datasets, given.data)()
    names = mdata["rna"].obs_names.intersection(mdata["protein"].obs_names)
    rng = np.random.default_rng(given.seed)
    names = names[rng.permutation(len(names))[:N_CELLS]]
    known, asked = names[::2], names[1::2]
    rna = mdata["rna"][asked].copy()
    counts = sp.csr_matrix(rna.X)
    counts.data = rng.binomial(counts.data.astype(int), given.share).astype(np.float32)
    counts.eliminate_zeros()
    rna.X = counts
    training = MuData({name: mdata[name][known].copy() for name in ("rna", "protein")})
    likelihoods = {"rna": "zinb", "protein": "nb_mixture"}
    MosaicVI.setup_mudata(training, likelihoods)
    model = MosaicVI(training, seed=given.seed)
    model.train(plan_kwargs={"thinned": given.thinned}, enable_progress_bar=False)
    levels = model.module.projections["rna"].levels
    truth = np.log1p(_dense(mdata["protein"][asked].X))
    for how in ("before", "now"):
        model.module.projections["rna"].levels = (
            levels if how == "now" else nothing_known(len(levels) - 2)
        )
        query = MuData({"rna": rna.copy()})
        draws = model.posterior_predictive_sample(
            "protein", ["rna"], adata=query, n_samples=N_DRAWS
        )
        order = query.obs_names.get_indexer(asked)
        _tell(given, how, np.log1p(draws[:, order]), truth)
    near = _neighbours(sp.csr_matrix(training["rna"].X), counts)
    values = np.log1p(_dense(training["protein"].X))
    order = training["protein"].obs_names.get_indexer(training["rna"].obs_names)
    _tell(given, "neighbours", values[order][near].swapaxes(0, 1), truth)


def _tell(given: argparse.Namespace, how: str, draws: np.ndarray, truth: np.ndarray) -> None:
    pit = metrics.randomised_pit(draws, truth.astype(draws.dtype))
    found = {
        **vars(given),
        "how": how,
        "crps": round(float(metrics.crps_from_samples(draws, truth).mean()), 4),
        "held": round(float(metrics.coverage(pit, (0.9,)).mean()), 4),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def _neighbours(known: sp.csr_matrix, asked: sp.csr_matrix) -> np.ndarray:
    size = np.median(np.asarray(known.sum(axis=1)))
    both = []
    for counts in (known, asked):
        depth = np.maximum(np.asarray(counts.sum(axis=1)), 1.0)
        both.append(sp.csr_matrix(counts.multiply(size / depth)).log1p())
    components = TruncatedSVD(N_COMPONENTS, random_state=0).fit(both[0])
    first, second = (components.transform(values) for values in both)
    search = NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(first)
    return np.asarray(search.kneighbors(second, return_distance=False))


def _dense(values: object) -> np.ndarray:
    return np.asarray(values.toarray() if sp.issparse(values) else values)


if __name__ == "__main__":
    main()
