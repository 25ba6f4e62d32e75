"""The joint latent space of paired and mosaic cells: ``python -m tests.benchmarks.joint_latent``.

Embeds the cells of a data set by each method, and prints as JSON how well types can be told apart
there (accuracy of 15 nearest neighbours over five folds, agreement of Leiden clusters at the best
of some resolutions, scores of scib-metrics), how well batches mix within types, and how much of
batch and of depth of the RNA can be read within types.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.metrics import (
    adjusted_rand_score,
    balanced_accuracy_score,
    normalized_mutual_info_score,
)
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

import mosaicvi
from mosaicvi import metrics

LIKELIHOODS = {"rna": "zinb", "protein": "nb_mixture", "atac": "poisson"}
LEAST_CELLS = 10
RESOLUTIONS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0)


def main() -> None:
    """Embed and score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="pbmc_mosaic", help="a data set of mosaicvi.datasets")
    parser.add_argument("--paired", action="store_true", help="only cells with all modalities")
    parser.add_argument("--n-cells", type=int, default=None)
    parser.add_argument("--methods", default="rna,concatenated,mosaicvi")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    mdata = cells(asked.data, asked.paired, asked.n_cells, asked.seed)
    for method in asked.methods.split(","):
        start = time.perf_counter()
        for name, latent in EMBEDDINGS[method](mdata, asked.seed).items():
            seconds = round(time.perf_counter() - start, 1)
            found = {**vars(asked), "method": name, "seconds": seconds, **scores(mdata, latent)}
            del found["methods"]
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()


def cells(data: str, paired: bool, n_cells: int | None, seed: int) -> MuData:
    """Cells with ``batch`` and ``cell_type``, their counts as float32 CSR."""
    given = getattr(mosaicvi.datasets, data)()
    names = given.obs_names
    if paired:
        held = [np.asarray(given.obsm[name], dtype=bool).ravel() for name in given.mod]
        names = names[np.all(held, axis=0)]
    if n_cells is not None:
        names = names[np.random.default_rng(seed).permutation(len(names))[:n_cells]]
    tables = {}
    for name, table in given.mod.items():
        tables[name] = table[table.obs_names.isin(names)].copy()
        tables[name].X = sp.csr_matrix(tables[name].X).astype(np.float32)
        tables[name].obs = tables[name].obs[[]]
    mdata = MuData(tables)
    for column in ("batch", "cell_type"):
        mdata.obs[column] = given.obs.loc[mdata.obs_names, column].astype(str).to_numpy()
    return mdata


def rna(mdata: MuData, seed: int) -> dict[str, pd.DataFrame]:
    """Fifty principal components of log-normalised genes, as in scanpy's tutorial."""
    table = mdata["rna"].copy()
    sc.pp.normalize_total(table, target_sum=1e4)
    sc.pp.log1p(table)
    sc.pp.highly_variable_genes(table, n_top_genes=min(2000, table.n_vars))
    table = table[:, table.var["highly_variable"]].copy()
    sc.pp.scale(table, max_value=10)
    sc.tl.pca(table, n_comps=50, random_state=seed)
    return {"rna": pd.DataFrame(table.obsm["X_pca"], index=table.obs_names)}


def other(mdata: MuData, seed: int) -> pd.DataFrame:
    """Thirty components of centred log ratios of proteins, or latent semantic ones of regions."""
    (name,) = set(mdata.mod) - {"rna"}
    table = mdata[name]
    if name == "protein":
        values = np.log1p(table.X.toarray())
        values -= values.mean(1, keepdims=True)
        values = (values - values.mean(0)) / (values.std(0) + 1e-9)
        found = PCA(min(30, table.n_vars), random_state=seed).fit_transform(values)
    else:
        open_ = (table.X > 0).astype(np.float32)
        share = np.asarray(open_.mean(0)).ravel()
        scaled = sp.diags(1 / np.maximum(np.asarray(open_.sum(1)).ravel(), 1)) @ open_
        scaled = sp.csr_matrix(scaled @ sp.diags(np.log1p(1 / np.maximum(share, 1e-9))))
        scaled.data = np.log1p(1e4 * scaled.data)
        found = TruncatedSVD(31, random_state=seed).fit_transform(scaled)[:, 1:]
        found = (found - found.mean(0)) / found.std(0)
    return pd.DataFrame(found, index=table.obs_names)


def concatenated(mdata: MuData, seed: int) -> dict[str, pd.DataFrame]:
    """Components of both, each of mean square length one; cells that hold both."""
    parts = [rna(mdata, seed)["rna"], other(mdata, seed)]
    scaled = [part / np.sqrt(np.square(part.to_numpy()).sum(1).mean()) for part in parts]
    return {"concatenated": pd.concat(scaled, axis=1, join="inner")}


def ours(mdata: MuData, seed: int) -> dict[str, pd.DataFrame]:
    """The latent space as it is, and corrected."""
    likelihoods = {name: LIKELIHOODS[name] for name in mdata.mod}
    mosaicvi.MosaicVI.setup_mudata(mdata, modalities=likelihoods, batch_key="batch")
    model = mosaicvi.MosaicVI(mdata, seed=seed)
    model.train(enable_progress_bar=False)
    found = {
        "mosaicvi": model.get_latent_representation(),
        "mosaicvi, corrected": mosaicvi.tl.correct_latent(model),
        "mosaicvi, depth too": mosaicvi.tl.correct_latent(model, depth=True),
    }
    return {name: pd.DataFrame(each, index=mdata.obs_names) for name, each in found.items()}


def totalvi(mdata: MuData, seed: int) -> dict[str, pd.DataFrame]:
    """totalVI at its defaults, over cells that hold both."""
    import scvi

    both = mdata["rna"].obs_names.intersection(mdata["protein"].obs_names)
    tables = {name: mdata[name][both].copy() for name in ("rna", "protein")}
    tables["rna"].obs["batch"] = mdata.obs.loc[both, "batch"].to_numpy()
    tables["protein"].X = tables["protein"].X.toarray()
    paired = MuData(tables)
    scvi.settings.seed = seed
    places = {"rna_layer": "rna", "protein_layer": "protein", "batch_key": "rna"}
    scvi.model.TOTALVI.setup_mudata(paired, batch_key="batch", modalities=places)
    model = scvi.model.TOTALVI(paired)
    model.train(enable_progress_bar=False)
    return {"totalvi": pd.DataFrame(model.get_latent_representation(), index=both)}


EMBEDDINGS = {"rna": rna, "concatenated": concatenated, "mosaicvi": ours, "totalvi": totalvi}


def scores(mdata: MuData, latent: pd.DataFrame) -> dict[str, Any]:
    """Scores of the cells that a method embeds."""
    obs, points = mdata.obs.loc[latent.index], latent.to_numpy()
    types, batches = obs["cell_type"].to_numpy(), obs["batch"].to_numpy()
    counts = pd.Series(types).value_counts()
    common = np.isin(types, counts.index[counts >= LEAST_CELLS])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    reader = KNeighborsClassifier(15)
    read = cross_val_predict(reader, points[common], types[common], cv=folds)
    clusters = max(agreement(points, types, each) for each in RESOLUTIONS)
    found = {
        "cells": len(points),
        "leiden_nmi": clusters[0],
        "leiden_ari": clusters[1],
        "accuracy": float((read == types[common]).mean()),
        "balanced": balanced_accuracy_score(types[common], read),
        **metrics.bio_conservation(points, types),
        "mixing": metrics.batch_mixing(points, batches, types),
    }
    depth = pd.Series(np.asarray(mdata["rna"].X.sum(1)).ravel(), index=mdata["rna"].obs_names)
    held = latent.index.isin(depth.index)
    leaks = metrics.leakage(
        points[held], types[held], batch=batches[held], depth=depth.loc[latent.index[held]]
    )
    found |= {"leakage_batch": leaks.batch, "leakage_depth": leaks.depth}
    return {key: round(float(value), 3) for key, value in found.items()}


def agreement(points: np.ndarray, types: np.ndarray, resolution: float) -> tuple[float, float]:
    """Normalised mutual information and adjusted Rand index of Leiden clusters with the types."""
    table = AnnData(points.astype(np.float32))
    sc.pp.neighbors(table, use_rep="X")
    sc.tl.leiden(table, resolution, flavor="igraph", n_iterations=2, random_state=0)
    found = table.obs["leiden"].to_numpy()
    return normalized_mutual_info_score(types, found), adjusted_rand_score(types, found)


if __name__ == "__main__":
    main()
