"""Write a simulated atlas to disk in chunks: ``python -m tests.benchmarks.write_atlas PATH CELLS``.

PATH ends in ``.h5mu`` or ``.zarr``.

RNA (20,000 genes, 8 % of entries above zero) and 200 proteins of cells of 20 types in 4 batches;
nine tenths of the cells hold both, the others RNA alone. Counts are negative binomial around rates
of the type, so that nearby rows are no more alike than others unless ``--sorted``.
"""

from __future__ import annotations

import argparse
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import write_elem

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 5_000
CHUNKS = {".zarr": {"chunks": (65_536,)}}
"""Stored values that zarr compresses together: some forty cells of genes."""
N_TYPES, N_BATCHES = 20, 4


def _rates(n_features: int, density: float, rng: np.random.Generator) -> np.ndarray:
    """Mean counts of each type, scaled so that the wanted share of entries is above zero."""
    base = rng.gamma(0.35, size=n_features)
    rates = base * np.exp(0.7 * rng.normal(size=(N_TYPES, n_features)))
    low, high = 1e-4, 1e4
    for _ in range(60):
        middle = np.sqrt(low * high)
        # P(x > 0) of a negative binomial with dispersion 2.
        share = float((1 - (1 + middle * rates / 2) ** -2.0).mean())
        low, high = (middle, high) if share < density else (low, middle)
    return np.asarray(middle * rates)


def counts(rates: np.ndarray, types: np.ndarray, rng: np.random.Generator) -> sp.csr_matrix:
    """Negative binomial counts of some cells, drawn a type at a time."""
    drawn = np.empty((len(types), rates.shape[1]), dtype=np.float32)
    for kind in np.unique(types):
        rows = np.flatnonzero(types == kind)
        size = (len(rows), rates.shape[1])
        shape = rng.standard_gamma(2.0, size=size, dtype=np.float32)
        drawn[rows] = rng.poisson(shape * (rates[kind] / 2).astype(np.float32))
    return sp.csr_matrix(drawn)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if path.suffix == ".zarr":
        import zarr

        yield zarr.open_group(path, mode="r+")
        return
    with h5py.File(path, "r+") as file:
        yield file


def write_atlas(
    path: Path,
    n_cells: int,
    *,
    n_genes: int = 20_000,
    density: float = 0.08,
    n_proteins: int = 200,
    is_sorted: bool = False,
    seed: int = 0,
) -> None:
    """Write an atlas of any size in the memory of one chunk."""
    rng = np.random.default_rng(seed)
    rna, protein = _rates(n_genes, density, rng), _rates(n_proteins, 0.9, rng)
    types = rng.integers(N_TYPES, size=n_cells)
    if is_sorted:
        types = np.sort(types)
    names = np.array([f"cell{i:07d}" for i in range(n_cells)])
    both = np.arange(n_cells) % 10 != 9
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical([f"b{i % N_BATCHES}" for i in range(n_cells)]),
            "cell_type": pd.Categorical([f"t{kind:02d}" for kind in types]),
        },
        index=names,
    )
    tables = {"rna": (obs, n_genes, "gene"), "protein": (obs[both], n_proteins, "protein")}
    shells = {}
    for name, (table, width, stem) in tables.items():
        var = pd.DataFrame(index=[f"{stem}{i}" for i in range(width)])
        shells[name] = anndata.AnnData(obs=table.copy(), var=var)
    atlas = mudata.MuData(shells)
    (atlas.write_zarr if path.suffix == ".zarr" else atlas.write)(path)
    with _opened(path) as file:
        stored = {}
        for start in range(0, n_cells, CHUNK):
            part = slice(start, min(start + CHUNK, n_cells))
            chunks = {
                "rna": counts(rna, types[part], rng),
                "protein": counts(protein, types[part][both[part]], rng),
            }
            for name, chunk in chunks.items():
                if name not in stored:
                    group = file["mod"][name]
                    if "X" in group:
                        del group["X"]
                    write_elem(group, "X", chunk, dataset_kwargs=CHUNKS.get(path.suffix, {}))
                    stored[name] = anndata.io.sparse_dataset(group["X"])
                else:
                    stored[name].append(chunk)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("cells", type=int)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--proteins", type=int, default=200)
    parser.add_argument("--density", type=float, default=0.08)
    parser.add_argument("--sorted", action="store_true", help="cells in the order of their types")
    given = parser.parse_args()
    write_atlas(
        given.path,
        given.cells,
        n_genes=given.genes,
        density=given.density,
        n_proteins=given.proteins,
        is_sorted=given.sorted,
    )


if __name__ == "__main__":
    main()
