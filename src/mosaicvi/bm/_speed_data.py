"""Counts of any size and density, drawn in a time that grows with the counts drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

N_TYPES = 8
SPREAD = 1.0
"""Standard deviation of the log abundance of features, and half of it between types."""
DEPTH_SD = 0.3
_CHUNK = 4096


def _draws_for(shares: np.ndarray, density: float) -> float:
    """Counts a cell at which this share of features is expected above zero."""
    low, high = 1e-3, 1e9
    for _ in range(80):
        middle = float(np.sqrt(low * high))
        expected = float((1 - np.exp(-middle * shares)).mean())
        low, high = (middle, high) if expected < density else (low, middle)
    return middle


def sparse_counts(
    types: np.ndarray, n_features: int, density: float, rng: np.random.Generator
) -> sp.csr_matrix:
    """Poisson counts of cells of several types, ``(n_cells, n_features)``.

    A cell's total is Poisson around a log-normal depth, and each count falls on a feature by the
    shares of the cell's type, which makes the features' counts Poisson too. No dense row is made.

    Parameters
    ----------
    types
        Type of each cell, shape ``(n_cells,)``.
    n_features
        Features.
    density
        Expected share of entries above zero.
    rng
        Generator.
    """
    base = SPREAD * rng.normal(size=n_features)
    shares = np.exp(base + 0.5 * SPREAD * rng.normal(size=(int(types.max()) + 1, n_features)))
    shares /= shares.sum(1, keepdims=True)
    edges = np.cumsum(shares, axis=1)
    mean = np.mean([_draws_for(each, density) for each in shares])
    parts = []
    for start in range(0, len(types), _CHUNK):
        kinds = types[start : start + _CHUNK]
        depth = mean * np.exp(DEPTH_SD * rng.normal(size=len(kinds)))
        totals = rng.poisson(depth)
        cells = np.repeat(np.arange(len(kinds)), totals)
        features = np.empty(len(cells), dtype=np.int64)
        for kind in np.unique(kinds):
            inside = kinds[cells] == kind
            places = np.searchsorted(edges[kind], rng.random(int(inside.sum())))
            features[inside] = np.minimum(places, n_features - 1)
        shape = (len(kinds), n_features)
        ones = np.ones(len(cells), dtype=np.float32)
        parts.append(sp.coo_matrix((ones, (cells, features)), shape=shape).tocsr())
    counts = sp.vstack(parts, format="csr", dtype=np.float32)
    counts.indices = counts.indices.astype(np.int32)
    return counts


def simulated_tables(
    n_cells: int, modalities: dict[str, tuple[int, float]], missing: float, seed: int
) -> dict[str, AnnData]:
    """Tables of counts.

    Parameters
    ----------
    n_cells
        Cells.
    modalities
        Modality to its number of features and its density.
    missing
        Share of cells that lack every modality but the first.
    seed
        Seed.
    """
    rng = np.random.default_rng(seed)
    types = rng.integers(N_TYPES, size=n_cells)
    types[:N_TYPES] = np.arange(N_TYPES)[: len(types)]
    names = pd.Index([f"cell{number:07d}" for number in range(n_cells)])
    lacking = np.zeros(n_cells, dtype=bool)
    lacking[rng.permutation(n_cells)[: round(missing * n_cells)]] = True
    tables = {}
    for number, (name, (n_features, density)) in enumerate(modalities.items()):
        held = np.ones(n_cells, dtype=bool) if number == 0 else ~lacking
        table = AnnData(sparse_counts(types, n_features, density, rng)[held])
        table.obs_names = names[held]
        table.var_names = [f"{name}{feature}" for feature in range(n_features)]
        tables[name] = table
    return tables
