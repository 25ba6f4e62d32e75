"""The pinned set of packages lets the common scanpy calls work.

They are what users run on a latent space, and newer releases of scanpy's dependencies have broken
them before: more than 4,096 cells with another metric than euclidean take scanpy's approximate
neighbours, which the smaller tests of other packages never reach.
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from matplotlib import pyplot as plt

N_CELLS, N_FEATURES, N_LATENT, N_NEIGHBORS = 5000, 30, 8, 15


@pytest.fixture(scope="module")
def groups() -> np.ndarray:
    """Two groups of cells."""
    return np.arange(N_CELLS) % 2


@pytest.fixture(scope="module")
def adata(groups: np.ndarray) -> ad.AnnData:
    """Counts whose first feature marks the second group, and a latent space that separates both."""
    generator = np.random.default_rng(0)
    rate = np.full((N_CELLS, N_FEATURES), 0.5)
    rate[groups == 1, 0] = 5.0
    latent = generator.normal(size=(N_CELLS, N_LATENT))
    latent[:, 0] += 20.0 * (2 * groups - 1)
    cells = ad.AnnData(sp.csr_matrix(generator.poisson(rate).astype(np.float32)))
    cells.obsm["X_mosaicvi"] = latent.astype(np.float32)
    cells.obs["group"] = np.array(["first", "second"])[groups]
    cells.obs["group"] = cells.obs["group"].astype("category")
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    return cells


@pytest.fixture(scope="module")
def neighbors(adata: ad.AnnData) -> ad.AnnData:
    """The same cells with their graph of euclidean neighbours."""
    sc.pp.neighbors(adata, n_neighbors=N_NEIGHBORS, use_rep="X_mosaicvi")
    return adata


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbors(adata: ad.AnnData, groups: np.ndarray, metric: str) -> None:
    cells = sc.pp.neighbors(
        adata, n_neighbors=N_NEIGHBORS, use_rep="X_mosaicvi", metric=metric, copy=True
    )
    distances = cells.obsp["distances"].tocoo()
    assert distances.shape == (N_CELLS, N_CELLS)
    assert np.mean(groups[distances.row] == groups[distances.col]) > 0.999


def test_umap_and_its_plot(neighbors: ad.AnnData) -> None:
    sc.tl.umap(neighbors, maxiter=10)
    assert np.isfinite(neighbors.obsm["X_umap"]).all()
    ax = sc.pl.umap(neighbors, color=neighbors.var_names[0], show=False)
    assert ax.collections[0].get_offsets().shape == (N_CELLS, 2)
    plt.close(ax.figure)


def test_leiden_finds_the_groups(neighbors: ad.AnnData, groups: np.ndarray) -> None:
    sc.tl.leiden(neighbors, flavor="igraph", n_iterations=2, directed=False, resolution=0.01)
    for cluster in neighbors.obs["leiden"].cat.categories:
        assert len(set(groups[(neighbors.obs["leiden"] == cluster).to_numpy()])) == 1


@pytest.mark.parametrize("method", ["t-test", "wilcoxon"])
def test_rank_genes_groups_finds_the_marker(adata: ad.AnnData, method: str) -> None:
    sc.tl.rank_genes_groups(adata, "group", method=method)
    assert adata.uns["rank_genes_groups"]["names"]["second"][0] == adata.var_names[0]
