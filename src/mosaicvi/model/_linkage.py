"""What ties modalities before any training: linked features, known pairs, anchors from both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi.alignment import (
    LEAST_PAIRS,
    Anchors,
    AnchorSpec,
    CellPairs,
    find_anchors,
    unit,
)
from mosaicvi.model._edge_evidence import graph_confidence
from mosaicvi.model._link_agreement import few_links, link_agreement
from mosaicvi.model._linked_columns import is_sparse
from mosaicvi.model._linked_features import linked_sides
from mosaicvi.model._technical import explain_technical
from mosaicvi.model._ties import warn_refused
from mosaicvi.model._unseen_counts import unseen_correlation
from mosaicvi.nn._aligned_inputs import AlignedInputs
from mosaicvi.nn._graph_prior import GraphArrays

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData
    from mosaicvi.graph import FeatureGraph

SPARSE_NEIGHBOURS = 30
"""Neighbours among which mutual ones are taken where cells of both modalities are sparse: each says
so little that its match is rarely among the first."""

MAX_CELLS = 20_000
"""Cells of each modality among which anchors are sought."""


@dataclass(frozen=True)
class Linkage:
    """What ties modalities before training.

    Attributes
    ----------
    inputs
        Modality to the inputs that its encoder shares with others.
    anchors
        Directions and pairs of cells, as rows of the modalities.
    confidence
        Probability that each edge of the graph is right, ``(n_edges,)``; None without a graph.
    """

    inputs: Mapping[str, AlignedInputs]
    anchors: Anchors
    confidence: np.ndarray | None


def link(
    data: MosaicData,
    graph: FeatureGraph | None,
    projected: Mapping[str, np.ndarray],
    spec: AnchorSpec,
    *,
    seed: int,
) -> Linkage:
    """Find what modalities share: anchors, then which edges they bear out, then anchors again.

    Parameters
    ----------
    data
        Registered data.
    graph
        Which features belong together, over exactly the registered features; None: known pairs
        alone.
    projected
        Modality to its frozen projection of every cell, ``(n_modality_cells, n_inputs)``.
    spec
        How anchors are sought.
    seed
        Seed of subsamples.
    """
    technical = {
        name: explain_technical(modality, projected[name], seed=seed)
        for name, modality in data.modalities.items()
    }
    residuals = {name: each.residuals for name, each in technical.items()}
    kept = {name: _subsample(modality, data, seed) for name, modality in data.modalities.items()}
    values = {name: residuals[name][rows] for name, rows in kept.items()}
    known = true_pairs(data, kept)
    neighbours = _neighbours(data, kept, spec)
    confidence, few = None, {}
    if graph is not None:
        few = few_links(data, graph, technical, kept, known, neighbours, seed=seed)
        first = find_anchors(
            values,
            linked_sides(data, graph, technical, kept),
            known,
            replace(spec, n_rounds=1),
            n_neighbours=neighbours,
        )
        spaces = {name: unit(first.canonical.scores(name, each)) for name, each in values.items()}
        confidence = graph_confidence(data, graph, spaces, kept, seed=seed)
        graph = graph.reweight(graph.edges.weight * confidence)
    worth = None
    told = all(len(known.get(both, ())) >= LEAST_PAIRS for both in combinations(values, 2))
    if graph is not None and not told:
        widths = {name: each.shape[1] for name, each in residuals.items()}
        worth = unseen_correlation(
            data, graph, kept, spec, widths=widths, n_neighbours=neighbours, seed=seed
        )
    linked = linked_sides(data, graph, technical, kept)
    anchors = find_anchors(values, linked, known, spec, n_neighbours=neighbours, worth=worth)
    for both in anchors.refused:
        warn_refused(both, len(known[both]))
    canonical = anchors.canonical
    inputs = {
        name: AlignedInputs(
            *technical[name].effects, canonical.center[name], canonical.weights[name]
        )
        for name in data.modalities
    }
    pairs = {
        both: CellPairs(kept[both[0]][found.left], kept[both[1]][found.right], found.weight)
        for both, found in anchors.pairs.items()
    }
    return Linkage(inputs, Anchors(canonical, pairs, anchors.refused, few), confidence)


def agreement(
    data: MosaicData, graph: FeatureGraph, projected: Mapping[str, np.ndarray], *, seed: int
) -> pd.DataFrame:
    """What :func:`~mosaicvi.model._link_agreement.link_agreement` says before any training."""
    technical = {
        name: explain_technical(modality, projected[name], seed=seed)
        for name, modality in data.modalities.items()
    }
    kept = {name: _subsample(modality, data, seed) for name, modality in data.modalities.items()}
    neighbours = _neighbours(data, kept, AnchorSpec())
    return link_agreement(data, graph, technical, kept, neighbours, seed=seed)


def _neighbours(
    data: MosaicData, kept: Mapping[str, np.ndarray], spec: AnchorSpec
) -> dict[tuple[str, str], int]:
    """Neighbours of every two modalities: more where both are sparse."""
    sparse = {name for name, rows in kept.items() if is_sparse(data.modalities[name], None, rows)}
    more = max(spec.n_neighbours, SPARSE_NEIGHBOURS)
    return {
        both: more if sparse.issuperset(both) else spec.n_neighbours
        for both in combinations(data.modalities, 2)
    }


def graph_arrays(
    data: MosaicData, graph: FeatureGraph, confidence: np.ndarray | None
) -> GraphArrays:
    """Edges of a graph over exactly the registered features, weighted by what bears them out."""
    edges = graph.edges
    sizes = tuple(modality.n_features for modality in data.modalities.values())
    weight = edges.weight if confidence is None else edges.weight * confidence
    return GraphArrays(edges.source, edges.target, edges.sign, weight, sizes)


def true_pairs(
    data: MosaicData, kept: Mapping[str, np.ndarray]
) -> dict[tuple[str, str], CellPairs]:
    """Cells that hold two modalities, as rows among the kept rows of each."""
    found = {}
    for first, second in combinations(data.modalities, 2):
        rows = data.modalities[first].rows, data.modalities[second].rows
        places = [_places(kept[name], data.modalities[name].n_cells) for name in (first, second)]
        both = (rows[0] >= 0) & (rows[1] >= 0)
        left, right = places[0][rows[0][both]], places[1][rows[1][both]]
        here = (left >= 0) & (right >= 0)
        if here.any():
            found[first, second] = CellPairs(left[here], right[here], np.ones(int(here.sum())))
    return found


def _subsample(modality: ModalityData, data: MosaicData, seed: int) -> np.ndarray:
    """Rows of a modality among which anchors are sought, ascending; paired cells first."""
    if modality.n_cells <= MAX_CELLS:
        return np.arange(modality.n_cells)
    rng = np.random.default_rng(seed)
    order = rng.permutation(modality.n_cells)
    paired = (data.presence.sum(1) >= 2)[modality.cells]
    order = order[np.argsort(~paired[order], kind="stable")]
    return np.sort(order[:MAX_CELLS])


def _places(kept: np.ndarray, n_rows: int) -> np.ndarray:
    """Place of each row among the kept ones, -1 where it is not, ``(n_rows,)``."""
    places = np.full(n_rows, -1, dtype=np.int64)
    places[kept] = np.arange(len(kept))
    return places
