"""Simulated cells whose protein follows from RNA nearly linearly, where kernel ridge is at home.

Not the package's generator, so that no model of ours is favoured: six types on a gradient in eight
dimensions, log rates of 2,000 genes linear in them (a quarter of the loadings), 40 proteins of
which the foreground is a logistic function of a linear form, on a background; two batches that
shift genes. Written with numpy alone, for ``python -m mosaicvi.bm imputation``:

    python -m tests.benchmarks.near_linear_cells --cells 300 cells.h5mu
    python -m mosaicvi.bm imputation --data cells.h5mu --hide .5 --seeds 0,1,2 --labels cell_type
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import scipy.sparse as sp

N_TYPES, N_DIMENSIONS, N_GENES, N_PROTEINS, N_BATCHES = 6, 8, 2000, 40, 2
DEPTH, GENE_SIZE, PROTEIN_SIZE, BACKGROUND = 3000.0, 2.0, 5.0, 3.0


def near_linear_cells(n_cells: int, seed: int = 0) -> md.MuData:
    """Paired RNA and protein, with ``batch`` and ``cell_type`` in ``obs``."""
    rng = np.random.default_rng(seed)
    types = rng.choice(N_TYPES, n_cells, p=np.full(N_TYPES, 1 / N_TYPES))
    along = rng.random(n_cells)
    centers = rng.normal(0, 1, (N_TYPES, N_DIMENSIONS))
    gradient = rng.normal(0, 1.2, N_DIMENSIONS)
    state = centers[types] + np.outer(along - 0.5, gradient)
    state += rng.normal(0, 0.25, (n_cells, N_DIMENSIONS))

    loadings = rng.normal(0, 1, (N_DIMENSIONS, N_GENES))
    loadings *= rng.random((N_DIMENSIONS, N_GENES)) < 0.25
    base = rng.normal(-1, 1.5, N_GENES)
    batch = rng.integers(0, N_BATCHES, n_cells)
    shift = rng.normal(0, 0.3, (N_BATCHES, N_GENES))
    rates = np.exp(base + state @ loadings * 0.6 + shift[batch])
    rates /= rates.sum(1, keepdims=True)
    depth = DEPTH * np.exp(rng.normal(0, 0.4, n_cells))
    genes = rng.poisson(rng.gamma(GENE_SIZE, rates * depth[:, None] / GENE_SIZE))

    form = state @ rng.normal(0, 1, (N_DIMENSIONS, N_PROTEINS)) * 0.6
    gate = 1 / (1 + np.exp(-2.0 * (form - 0.3)))
    foreground = np.exp(rng.normal(3.5, 1, N_PROTEINS)) * gate
    background = BACKGROUND * np.exp(rng.normal(0, 0.7, N_PROTEINS))
    background = background * np.exp(rng.normal(0, 0.5, n_cells))[:, None]
    mean = np.exp(rng.normal(0, 0.3, n_cells))[:, None] * foreground + background
    proteins = rng.poisson(rng.gamma(PROTEIN_SIZE, mean / PROTEIN_SIZE))

    obs = pd.DataFrame(
        {"batch": [f"b{code}" for code in batch], "cell_type": [f"t{code}" for code in types]},
        index=[f"c{number}" for number in range(n_cells)],
    )
    tables = {
        name: ad.AnnData(
            values.astype(np.float32) if name == "protein" else sp.csr_matrix(values, dtype="f4"),
            obs=obs.copy(),
            var=pd.DataFrame(index=[f"{prefix}{number}" for number in range(values.shape[1])]),
        )
        for name, prefix, values in (("rna", "GENE", genes), ("protein", "AB", proteins))
    }
    mdata = md.MuData(tables)
    for key in obs:
        mdata.obs[key] = obs[key].to_numpy()
    return mdata


def main() -> None:
    """Write the cells to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    with md.set_options(pull_on_update=False):
        near_linear_cells(given.cells, given.seed).write(given.file)


if __name__ == "__main__":
    main()
