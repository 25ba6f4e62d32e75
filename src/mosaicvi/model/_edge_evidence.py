"""What the cells say of the edges of a feature graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mosaicvi import likelihoods
from mosaicvi.alignment import edge_confidence, group_cells, group_means
from mosaicvi.data._stored import held_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData
    from mosaicvi.graph import FeatureGraph

PROFILE_SUM = 1e4
"""Counts to which the profile of a group of cells is scaled before its logarithm."""


def graph_confidence(
    data: MosaicData,
    graph: FeatureGraph,
    spaces: Mapping[str, np.ndarray],
    rows: Mapping[str, np.ndarray],
    *,
    seed: int,
) -> np.ndarray:
    """Probability that each edge is right, ``(n_edges,)``.

    Parameters
    ----------
    data
        Registered data.
    graph
        Graph over exactly the registered features, in their order.
    spaces
        Modality to its cells in a space that modalities share, ``(n_rows, n_dimensions)``.
    rows
        Modality to the rows that these are.
    seed
        Seed of the groups of cells, and of the pairs of features that edges are compared with.
    """
    names = list(data.modalities)
    starts = np.concatenate([[0], np.cumsum([data.modalities[n].n_features for n in names])])
    edges = graph.edges
    first = np.searchsorted(starts, edges.source, side="right") - 1
    second = np.searchsorted(starts, edges.target, side="right") - 1
    confidence = np.ones(len(edges.source))
    for code in np.unique(first * len(names) + second):
        i, j = divmod(int(code), len(names))
        here = (first == i) & (second == j)
        # Of these two alone: cells of a small third modality would make for few groups.
        means = _common_profiles(
            data, tuple(dict.fromkeys((names[i], names[j]))), spaces, rows, seed
        )
        confidence[here] = edge_confidence(
            means[names[i]],
            means[names[j]],
            edges.source[here] - starts[i],
            edges.target[here] - starts[j],
            edges.sign[here].astype(float),
            seed=seed,
        )
    return confidence


def _common_profiles(
    data: MosaicData,
    names: tuple[str, ...],
    spaces: Mapping[str, np.ndarray],
    rows: Mapping[str, np.ndarray],
    seed: int,
) -> dict[str, np.ndarray]:
    """Modality to its profile of each group that has cells of all, ``(n_groups, n_features)``."""
    groups = group_cells([spaces[name] for name in names], seed=seed)
    n_groups = max(int(codes.max()) for codes in groups) + 1
    held = [np.bincount(codes, minlength=n_groups) > 0 for codes in groups]
    common = np.flatnonzero(np.logical_and.reduce(held))
    return {
        name: _profiles(data.modalities[name], rows[name], codes, n_groups)[common]
        for name, codes in zip(names, groups, strict=True)
    }


def _profiles(
    modality: ModalityData, rows: np.ndarray, codes: np.ndarray, n_groups: int
) -> np.ndarray:
    """Mean log profile of each group of cells, ``(n_groups, n_features)``."""
    likelihood = likelihoods.get(modality.spec.likelihood)
    if not likelihood.is_count:
        return group_means(modality.shown(rows), codes, n_groups)
    if likelihood.uses_library_size:
        mean = _streamed_means(modality, rows, codes, n_groups, log=False)
        share = mean / np.maximum(mean.sum(1, keepdims=True), 1e-12)
        return np.asarray(np.log1p(PROFILE_SUM * share))
    logged = _streamed_means(modality, rows, codes, n_groups, log=True)
    return np.asarray(logged - logged.mean(1, keepdims=True))


def _streamed_means(
    modality: ModalityData, rows: np.ndarray, codes: np.ndarray, n_groups: int, *, log: bool
) -> np.ndarray:
    """Mean counts, or log1p counts, of each group, a few megabytes of cells at a time."""
    total = np.zeros((n_groups, modality.n_features))
    for part, block in held_blocks(modality.values, rows):
        counts = sp.csr_matrix(block)
        size = np.bincount(codes[part], minlength=n_groups)[:, None]
        total += group_means(counts.log1p() if log else counts, codes[part], n_groups) * size
    return np.asarray(total / np.maximum(np.bincount(codes, minlength=n_groups), 1)[:, None])
