"""Simulated assays that share few cells or none, and fits that the graph of their links ties."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tests.fits import QUIET

from mosaicvi import MosaicVI
from mosaicvi.datasets import SimulatedModality, simulate
from mosaicvi.graph import FeatureGraph, from_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from mudata import MuData

LIKELIHOODS = {"rna": "nb", "protein": "nb_mixture", "atac": "poisson"}
SPECS = {
    "rna": SimulatedModality.rna(300, likelihood="nb"),
    "protein": SimulatedModality.protein(40),
    "atac": SimulatedModality.atac(300),
}
EPOCHS = 16


def draw(patterns: Mapping[str, float], n_cells: int = 900, seed: int = 0) -> MuData:
    """Cells of six types; the same ones whatever the patterns are."""
    names = dict.fromkeys(name for pattern in patterns for name in pattern.split("+"))
    specs = {name: SPECS[name] for name in names}
    drawn = {"n_latent": 5, "n_types": 6, "separation": 0.8, "seed": seed}
    return simulate(n_cells, specs, patterns=patterns, **drawn)


def graph_of(mdata: MuData, links: pd.DataFrame) -> FeatureGraph:
    """Graph of a table of links between any of the modalities."""
    graphs = [
        from_table(mdata, part, *both, weight="weight", sign="sign", duplicates="strongest")
        for both, part in links.groupby(["source_modality", "target_modality"])
    ]
    return graphs[0].union(*graphs[1:])


def permuted(links: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Links of which each points to the source of another, within each two modalities."""
    rng = np.random.default_rng(seed)
    wrong = links.copy()
    for _, part in links.groupby(["source_modality", "target_modality"]):
        wrong.loc[part.index, "source"] = rng.permutation(part["source"].to_numpy())
    return wrong


def fit(
    mdata: MuData, graph: FeatureGraph | None, *, seed: int = 0, epochs: int = EPOCHS
) -> MosaicVI:
    """Set up and train a small model."""
    MosaicVI.setup_mudata(mdata, {m: LIKELIHOODS[m] for m in mdata.mod}, batch_key="batch")
    model = MosaicVI(mdata, n_latent=10, n_hidden=64, graph=graph, seed=seed)
    model.train(epochs, **QUIET)
    return model
