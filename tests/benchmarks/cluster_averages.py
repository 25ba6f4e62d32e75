"""Draws averaged over clusters: ``python -m tests.benchmarks.cluster_averages DATA TO``.

Half of the cells that hold both modalities lose one, and get it imputed from the other. With
``--unpaired`` the other half loses the other one: links tie the modalities, and no cell. Do 90 %
intervals of draws averaged over a cluster (k-means on components of the evidence, some 50 cells
each) hold the cluster's measured mean, and those of differences between two clusters? By the model,
by draws that share nothing between cells (``independent``), and by values of neighbours;
unpaired also by draws whose places are moved alike in all dimensions (``even``). Prints a line of
JSON each: shares held of single cells, of means and of differences, and widths of the
latter two, relative to the mean over the cells, medians over features; and the CRPS of log1p of
single cells.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from mudata import MuData
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.neighbors import NearestNeighbors

from mosaicvi import MosaicVI, datasets, graph
from mosaicvi.bm._graphs import annotation_of
from mosaicvi.metrics import crps_from_samples
from mosaicvi.model import _counterparts, _shared_noise
from mosaicvi.model._summaries import places_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mosaicvi.graph import FeatureGraph

LIKELIHOODS = {"rna": "zinb", "protein": "nb_mixture", "atac": "poisson"}
N_DRAWS, N_NEIGHBOURS, N_COMPONENTS, N_FEATURES, CELLS, N_DIFFERENCES = 100, 30, 30, 300, 50, 300


def main() -> None:
    """Fit once and answer for the other half."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=("pbmc10k_cite", "pbmc_mosaic", "snareseq_cortex"))
    parser.add_argument("to", choices=("rna", "protein", "atac"), help="modality that is lost")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=int, help="at most so many; default: all with both")
    parser.add_argument("--unpaired", action="store_true", help="no cell of training holds both")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    mdata = getattr(datasets, given.data)()
    (evidence,) = (name for name in mdata.mod if name != given.to)
    both = mdata[evidence].obs_names.intersection(mdata[given.to].obs_names)
    rng = np.random.default_rng(given.seed)
    both = both[rng.permutation(len(both))[: given.cells]]
    asked, known = both[::2], both[1::2]
    shown = asked if given.unpaired else both
    training = MuData(
        {evidence: mdata[evidence][shown].copy(), given.to: mdata[given.to][known].copy()}
    )
    batch = mdata.obs.get("batch", pd.Series("one", index=mdata.obs_names))
    training.obs["batch"] = batch.reindex(training.obs_names).astype(str)
    likelihoods = {name: LIKELIHOODS[name] for name in training.mod}
    MosaicVI.setup_mudata(training, likelihoods, batch_key="batch")
    model = MosaicVI(training, graph=_links(training) if given.unpaired else None, seed=given.seed)
    model.train(enable_progress_bar=False)
    counts = sp.csr_matrix(mdata[given.to].X)
    most = np.sort(np.argsort(-np.asarray(counts.sum(axis=0)).ravel())[:N_FEATURES])
    counts = counts[:, most]
    truth = counts[mdata[given.to].obs_names.get_indexer(asked)].toarray()
    components = _components(mdata[evidence][both].X)
    asked_at, known_at = both.get_indexer(asked), both.get_indexer(known)
    n_clusters = max(len(asked) // CELLS, 3)
    clusters = KMeans(n_clusters, n_init=3, random_state=0).fit_predict(components[asked_at])
    rows = training.obs_names.get_indexer(asked)
    defaults = _shared_noise.SHARE, _counterparts.MOVED
    kept = model.counterparts
    even = {name: replace(each) for name, each in kept.items()}
    for each in even.values():
        vars(each)["directions"] = torch.eye(each.places.shape[1])
    ways = [("mosaicvi", defaults, kept), ("independent", (0.0, 0.0), kept)]
    if given.unpaired:
        ways.append(("even", (defaults[0], 1.0), even))
    for how, shared, model.counterparts in ways:
        _shared_noise.SHARE, _counterparts.MOVED = shared
        draws = model.posterior_predictive_sample(
            given.to, [evidence], indices=rows, n_samples=N_DRAWS
        )
        _tell(given, how, draws[:, :, most].astype(np.float64), truth, clusters)
    search = NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(components[known_at])
    near = search.kneighbors(components[asked_at], return_distance=False)
    picks = rng.integers(0, N_NEIGHBOURS, (N_DRAWS, len(asked)))
    values = counts[mdata[given.to].obs_names.get_indexer(known)].toarray()
    _tell(given, "neighbours", values[near[np.arange(len(asked)), picks]], truth, clusters)


def _links(training: MuData) -> FeatureGraph:
    if "atac" in training.mod:
        return graph.from_coordinates(training, "rna", "atac", annotation=annotation_of("mm10"))
    return graph.from_names(training, "rna", "protein")


def _tell(
    given: argparse.Namespace,
    how: str,
    draws: NDArray[np.float64],
    truth: NDArray[np.float64],
    clusters: NDArray[np.int64],
) -> None:
    named = range(clusters.max() + 1)
    means = np.stack([draws[:, clusters == each].mean(1) for each in named], 1)
    measured = np.stack([truth[clusters == each].mean(0) for each in named])
    pairs = np.random.default_rng(0).integers(0, len(named), (2, N_DIFFERENCES))
    first, second = pairs[:, pairs[0] != pairs[1]]
    differences = means[:, first] - means[:, second]
    typical = truth.mean(0).clip(1e-6)
    found = {
        **vars(given),
        "how": how,
        "n_clusters": len(named),
        "cells_held": _held(draws, truth)[0],
        "crps": round(float(crps_from_samples(np.log1p(draws), np.log1p(truth)).mean()), 4),
    }
    for key, drawn, true in (
        ("means", means, measured),
        ("differences", differences, measured[first] - measured[second]),
    ):
        held, width = _held(drawn, true)
        found |= {f"{key}_held": held, f"{key}_width": round(float(np.median(width / typical)), 3)}
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def _held(
    draws: NDArray[np.float64], truth: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Share of values in intervals of 90 %, and their widths."""
    low, high = np.quantile(draws, places_of((0.05, 0.95), len(draws)), axis=0)
    return round(float(((truth >= low) & (truth <= high)).mean()), 4), high - low


def _components(values: object) -> NDArray[np.float64]:
    counts = sp.csr_matrix(values)
    depth = np.maximum(np.asarray(counts.sum(axis=1)), 1.0)
    logs = sp.csr_matrix(counts.multiply(np.median(depth) / depth)).log1p()
    components = TruncatedSVD(min(N_COMPONENTS, logs.shape[1] - 1), random_state=0)
    return np.asarray(components.fit_transform(logs))


if __name__ == "__main__":
    main()
