"""A panel of genes beside whole RNA: ``python -m tests.benchmarks.gene_panel DATA GENES SEED``.

No cell has both, as with targeted panels (MERFISH, Xenium) beside single-cell RNA. Half of some
cells keep their RNA; of the others genes of a panel are left, with about a third of their
molecules: a share that differs by gene (log-normal, standard deviation .5) and is so much lower in
cells of many counts that within a type depth says little of depth. Both are linked by the names of
the genes. Asked for are the counts of the other genes in cells of the panel. Prints a line of JSON
each: CRPS of log1p, Pearson correlation of a point (of its own within types), what 80 % intervals
of cells and 90 % intervals of averages over clusters of some 50 cells hold, and labels to the panel
and back (accuracy, balanced).

``mosaicvi`` are the answers, ``even`` those whose places are moved alike in all dimensions and by
the whole scale, as before, ``still`` those whose places are not moved. ``neighbours_latent`` are
counts of 30 cells near in the latent space, ``neighbours_DIMENSIONS`` of cells near in principal
components of the panel's genes, log-normalised over these and standardised in either half,
``neighbours_linked`` and ``neighbours_smoothed`` those of the comparison of alignments. ``any`` are
counts of any cell; ``type`` of cells of the true type, which no method is told.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
import torch
from anndata import AnnData
from mudata import MuData
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from mosaicvi import MosaicVI, datasets, graph, metrics
from mosaicvi.bm._alignment_input import AlignmentInput
from mosaicvi.bm._cell_types import leiden_types
from mosaicvi.bm._encodings import log_normalise
from mosaicvi.bm.aligners._features import shared_components
from mosaicvi.bm.aligners._linked import LinkedFeatures
from mosaicvi.bm.aligners._smoothed import SmoothedFeatures
from mosaicvi.model import _counterparts
from mosaicvi.model._summaries import places_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LIKELIHOODS = {"rna": "zinb", "panel": "nb"}
N_DRAWS, N_ASKED, N_SCORED, N_NEIGHBOURS, CELLS = 50, 1000, 500, 30, 50
FACTOR, LEAST, SHARE = 0.5, 5, 0.75
"""Spread of the genes' factors; counts that a cell of the panel has at least; most of its molecules
that are kept of a gene of factor one."""


@dataclass(frozen=True)
class Task:
    """Two halves of some cells, and what is asked of them.

    Attributes
    ----------
    mdata
        RNA of one half, panel of the other.
    types
        Modality to types.
    asked
        Cells of the panel that are asked about.
    scored
        Genes of the RNA that are not on the panel, and are scored.
    truth
        Counts of both, ``(n_asked, n_scored)``.
    clusters
        Cluster of each of these cells, by its panel.
    """

    mdata: MuData
    types: dict[str, NDArray[np.str_]]
    asked: NDArray[np.int64]
    scored: NDArray[np.int64]
    truth: Floats
    clusters: NDArray[np.int64]


def read(
    name: str, n_cells: int, rng: np.random.Generator
) -> tuple[sp.csr_matrix, NDArray[np.str_], pd.Index]:
    """Counts, types and genes of some cells; Leiden clusters where there are no types."""
    mdata = getattr(datasets, name)()
    rna = mdata["rna"]
    counts = sp.csr_matrix(rna.X)
    kept = np.ones(rna.n_obs, dtype=bool)
    if "cell_type" in mdata.obs:
        types = mdata.obs["cell_type"].reindex(rna.obs_names).to_numpy(str)
        kept = np.array(["misc" not in each.lower() for each in types])
    else:
        types = leiden_types(counts, counts[:2])[0]
    if "is_type" in mdata.obs:
        kept &= mdata.obs["is_type"].reindex(rna.obs_names).to_numpy(bool)
    rows = rng.permutation(np.flatnonzero(kept))[:n_cells]
    seen = np.asarray((counts[rows] > 0).sum(axis=0)).ravel() >= 10
    return counts[rows][:, seen], types[rows], rna.var_names[seen]


def choose(
    counts: sp.csr_matrix, types: NDArray[np.str_], n_genes: int, how: str
) -> NDArray[np.int64]:
    """Columns of highly variable genes, or of the strongest markers of the types in turn."""
    table = AnnData(counts.copy(), obs=pd.DataFrame({"type": pd.Categorical(types)}))
    sc.pp.normalize_total(table, target_sum=1e4)
    sc.pp.log1p(table)
    if how == "variable":
        sc.pp.highly_variable_genes(table, n_top_genes=n_genes)
        return np.flatnonzero(table.var["highly_variable"].to_numpy())
    number = table.obs["type"].value_counts()
    table = table[table.obs["type"].isin(number.index[number >= LEAST])].copy()
    sc.tl.rank_genes_groups(table, "type", method="t-test")
    ranked = pd.DataFrame(table.uns["rank_genes_groups"]["names"]).to_numpy().ravel()
    return np.sort(pd.unique(ranked)[:n_genes].astype(np.int64))


def thinned(
    counts: sp.csr_matrix,
    types: NDArray[np.str_],
    genes: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Counts of another chemistry, ``(n_cells, n_genes)``: fewer, by gene, and by cell."""
    depth = np.asarray(counts.sum(axis=1)).ravel()
    of_cell = np.ones(len(types))
    for each in np.unique(types):
        own = types == each
        of_cell[own] = np.minimum(1.0, np.quantile(depth[own], 0.1) / depth[own])
    of_cell *= SHARE * rng.uniform(0.6, 1.0, len(types))
    of_gene = np.exp(rng.normal(0, FACTOR, len(genes)))
    chance = np.minimum(1.0, of_cell[:, None] * of_gene)
    return rng.binomial(counts[:, genes].toarray().astype(int), chance).astype(np.float32)


def build(given: argparse.Namespace) -> Task:
    """Cut the cells."""
    rng = np.random.default_rng((given.seed, given.genes))
    counts, types, names = read(given.data, given.cells, rng)
    half = len(types) // 2
    genes = choose(counts[:half], types[:half], given.genes, given.panel)
    panel = thinned(counts[half:], types[half:], genes, rng)
    enough = panel.sum(1) >= LEAST
    panel, whole = panel[enough], counts[half:][enough]
    tables = {
        "rna": AnnData(counts[:half], var=pd.DataFrame(index=names)),
        "panel": AnnData(sp.csr_matrix(panel), var=pd.DataFrame(index=names[genes])),
    }
    for key, table in tables.items():
        table.obs_names = [f"{key}{cell}" for cell in range(table.n_obs)]
    asked = np.sort(rng.permutation(len(panel))[:N_ASKED])
    common = np.asarray((counts > 0).mean(axis=0)).ravel() >= 0.01
    common[genes] = False
    scored = rng.permutation(np.flatnonzero(common))[:N_SCORED]
    scored = np.sort(scored)
    components = shared_components({"": log_normalise(sp.csr_matrix(panel[asked])).toarray()}, 30)
    clusters = KMeans(max(len(asked) // CELLS, 3), n_init=3, random_state=0)
    mdata = MuData(tables)
    mdata.obs["batch"] = "one"
    return Task(
        mdata,
        {"rna": types[:half], "panel": types[half:][enough]},
        asked,
        scored,
        whole[asked][:, scored].toarray(),
        clusters.fit_predict(components[""]),
    )


def scores(task: Task, draws: NDArray[np.generic], point: Floats) -> dict[str, float]:
    """Scores of draws of counts, and of a point of log1p, of the cells that are asked about."""
    log1p, types = np.log1p(task.truth), task.types["panel"][task.asked]
    named = range(int(task.clusters.max()) + 1)
    means = np.stack([draws[:, task.clusters == each].mean(1) for each in named], 1)
    measured = np.stack([task.truth[task.clusters == each].mean(0) for each in named])
    low, high = np.quantile(means, places_of((0.05, 0.95), len(means)), axis=0)
    found = {
        "crps": metrics.crps_from_samples(np.log1p(draws), log1p).mean(),
        "pearson": np.nanmean(metrics.pearson(point, log1p)),
        "in_type": np.nanmean(metrics.within_type(metrics.pearson, point, log1p, types)),
        "held_80": metrics.coverage(metrics.randomised_pit(draws, task.truth), (0.8,))[0].mean(),
        "means_held_90": ((measured >= low) & (measured <= high)).mean(),
    }
    return {key: round(float(value), 4) for key, value in found.items()}


def neighbours(task: Task, places: dict[str, Floats]) -> dict[str, object]:
    """Scores of counts of near cells, and of labels."""
    search = NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(places["rna"])
    near = search.kneighbors(places["panel"][task.asked], return_distance=False)
    values = task.mdata["rna"].X[:, task.scored].toarray()
    picks = np.random.default_rng(0).integers(N_NEIGHBOURS, size=(N_DRAWS, len(near)))
    draws = values[near[np.arange(len(near)), picks]]
    found: dict[str, object] = dict(scores(task, draws, np.log1p(values)[near].mean(1)))
    return found | labels(task, places)


def labels(task: Task, places: dict[str, Floats]) -> dict[str, list[float]]:
    """Accuracy and balanced accuracy of labels to the panel, and back."""
    found = {}
    for key, source, target in (("to_panel", "rna", "panel"), ("back", "panel", "rna")):
        given = places[source], task.types[source], places[target], task.types[target]
        accuracy = metrics.label_transfer(*given, standardise=False).accuracy
        found[key] = [round(accuracy.plain, 3), round(accuracy.balanced, 3)]
    return found


def baselines(task: Task, links: graph.FeatureGraph) -> dict[str, dict[str, object]]:
    """Rows without a model."""
    found: dict[str, dict[str, object]] = {}
    aligned = AlignmentInput(task.mdata, ("rna", "panel"), links, LIKELIHOODS, 0)
    for kind in (LinkedFeatures, SmoothedFeatures):
        aligner = kind(aligned)
        aligner.fit()
        found[f"neighbours_{kind.name}"] = neighbours(task, aligner.predict()["wide"].latents)
    genes = task.mdata["rna"].var_names.get_indexer(task.mdata["panel"].var_names)
    shared = {"rna": task.mdata["rna"].X[:, genes], "panel": task.mdata["panel"].X}
    logs = {key: log_normalise(sp.csr_matrix(each)).toarray() for key, each in shared.items()}
    for width in (128, 30):
        found[f"neighbours_{width}"] = neighbours(task, shared_components(logs, width))
    rng, values = np.random.default_rng(0), task.mdata["rna"].X[:, task.scored].toarray()
    every = np.arange(len(values))
    for name in ("any", "type"):
        of_type = {each: np.flatnonzero(task.types["rna"] == each) for each in task.types["rna"]}
        pools = [
            of_type.get(each, every) if name == "type" else every
            for each in task.types["panel"][task.asked]
        ]
        cells = np.stack([rng.choice(pool, N_DRAWS) for pool in pools], 1)
        point = np.stack([np.log1p(values[pool]).mean(0) for pool in pools])
        found[name] = dict(scores(task, values[cells], point))
    return found


def answers(
    task: Task, links: graph.FeatureGraph, given: argparse.Namespace
) -> dict[str, dict[str, object]]:
    """Rows of one fit."""
    mdata = task.mdata
    MosaicVI.setup_mudata(mdata, LIKELIHOODS, batch_key="batch")
    model = MosaicVI(mdata, graph=links, seed=given.seed)
    rate = {} if given.feature_rate is None else {"feature_rate": given.feature_rate}
    model.train(given.epochs, enable_progress_bar=False, plan_kwargs=rate)
    rows = {key: mdata.obs_names.get_indexer(mdata[key].obs_names) for key in LIKELIHOODS}
    latents = {
        key: model.get_latent_representation(from_modalities=[key], indices=own)
        for key, own in rows.items()
    }
    found: dict[str, dict[str, object]] = {"neighbours_latent": neighbours(task, latents)}
    kept = model.counterparts
    even = {name: replace(each) for name, each in kept.items()}
    for each in even.values():
        vars(each)["directions"] = torch.eye(each.places.shape[1])
    asked = {"indices": rows["panel"][task.asked], "n_samples": N_DRAWS}
    default = _counterparts.MOVED
    for name, moved, table in (
        ("mosaicvi", default, kept),
        ("even", 1.0, even),
        ("still", 0.0, kept),
    ):
        _counterparts.MOVED, model.counterparts = moved, table
        draws = model.posterior_predictive_sample("rna", ["panel"], **asked)[:, :, task.scored]
        mean = model.impute("rna", ["panel"], quantiles=(), scale="log1p", **asked).X
        found[name] = dict(scores(task, draws, np.asarray(mean)[:, task.scored]))
    found["mosaicvi"] |= labels(task, latents)
    _counterparts.MOVED = default
    return found


def main() -> None:
    """Fit once, and print a line for each way to answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "data", choices=("pbmc10k_cite", "pbmc_mosaic", "snareseq_cortex", "sln_unpaired")
    )
    parser.add_argument("genes", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--panel", choices=("variable", "markers"), default="variable")
    parser.add_argument("--cells", type=int, default=3000, help="of both halves, at most")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--feature-rate", type=float)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    task = build(given)
    names = task.mdata["panel"].var_names
    pairs = pd.DataFrame({"rna": names, "panel": names})
    links = graph.from_table(task.mdata, pairs, "rna", "panel")
    counts = float(task.mdata["panel"].X.sum(axis=1).mean())
    about = {**vars(given), "panel_counts": round(counts, 1)}
    for how, row in {**baselines(task, links), **answers(task, links, given)}.items():
        sys.stdout.write(json.dumps({**about, "how": how, **row}) + "\n")


if __name__ == "__main__":
    main()
