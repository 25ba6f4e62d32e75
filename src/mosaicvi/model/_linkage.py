"""What ties modalities before any training: linked features, known pairs, anchors from both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mosaicvi import likelihoods
from mosaicvi.alignment import (
    Anchors,
    AnchorSpec,
    CellPairs,
    find_anchors,
    regress,
    smooth,
    unit,
)
from mosaicvi.model._edge_evidence import graph_confidence
from mosaicvi.model._inputs import encode, rows_read
from mosaicvi.model._technical import Technical, explain_technical
from mosaicvi.model._ties import warn_refused
from mosaicvi.nn._aligned_inputs import AlignedInputs
from mosaicvi.nn._graph_prior import GraphArrays

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData
    from mosaicvi.graph import FeatureGraph

N_SMOOTHED = 30
"""Cells of a modality over which sparse linked features are averaged."""

SPARSE_COUNTS = 5.0
"""Features with fewer counts a cell on average are smoothed over neighbours; an antibody that is
counted in every cell needs none."""

MANY_LINKED = 32
"""From so many linked features on, sparse ones are also regressed on their modality's components;
with 12 that made matches worse (decisions, "What the fourth round changed")."""

MAX_LINKED = 128
"""Linked features beyond this number are reduced to as many principal components."""

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
    more = _more_neighbours(data, kept, spec)
    confidence = None
    if graph is not None:
        first = find_anchors(
            values,
            _linked(data, graph, technical, kept),
            known,
            replace(spec, n_rounds=1),
            n_neighbours=more,
        )
        spaces = {name: unit(first.canonical.scores(name, each)) for name, each in values.items()}
        confidence = graph_confidence(data, graph, spaces, kept, seed=seed)
        graph = graph.reweight(graph.edges.weight * confidence)
    linked = _linked(data, graph, technical, kept)
    anchors = find_anchors(values, linked, known, spec, n_neighbours=more)
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
    return Linkage(inputs, Anchors(canonical, pairs, anchors.refused), confidence)


def _linked(
    data: MosaicData,
    graph: FeatureGraph | None,
    technical: Mapping[str, Technical],
    kept: Mapping[str, np.ndarray],
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Linked features of every two modalities that the graph links."""
    return {
        both: sides
        for both in combinations(data.modalities, 2)
        if (sides := linked_features(data, graph, both, technical, kept)) is not None
    }


def _more_neighbours(
    data: MosaicData, kept: Mapping[str, np.ndarray], spec: AnchorSpec
) -> dict[tuple[str, str], int]:
    """Neighbours of two modalities that are both sparse."""
    sparse = [name for name, rows in kept.items() if _is_sparse(data.modalities[name], None, rows)]
    return dict.fromkeys(combinations(sparse, 2), max(spec.n_neighbours, SPARSE_NEIGHBOURS))


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


def linked_features(
    data: MosaicData,
    graph: FeatureGraph | None,
    both: tuple[str, str],
    technical: Mapping[str, Technical],
    kept: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray] | None:
    """Cells of two modalities on the linked features of the one that has fewer of them.

    The modality with fewer linked features keeps them, encoded by its likelihood; counts of the
    other are summed over each one's positive edges, less those over its negative ones. Sparse ones
    are averaged over neighbours in their own modality, and where there are many of them also
    regressed on its components: two ways to free them of noise, which count alike. Batch and depth
    are regressed out.

    Returns
    -------
    ``(n_kept, n_columns)`` of each: the linked features standardised, or principal components of
    many; a part for each way where there are two, rows of unit length within parts; None where the
    graph has no edge between the two.
    """
    if graph is None:
        return None
    features = {name: list(data.modalities[name].var_names) for name in both}
    adjacency = sp.csr_matrix(graph.adjacency(features), dtype=np.float64)
    split = len(features[both[0]])
    between = sp.csr_matrix(adjacency[:split, split:])
    linked = np.diff(between.indptr) > 0, np.diff(between.tocsc().indptr) > 0
    if not linked[0].any():
        return None
    # Where they have equally many, the narrower modality: not whichever was named first.
    n_linked, width = [int(side.sum()) for side in linked], [len(side) for side in linked]
    first_is_axis = (n_linked[0], width[0]) < (n_linked[1], width[1])
    axis, other = both if first_is_axis else both[::-1]
    onto = between[linked[0]].T if first_is_axis else between[:, linked[1]]
    columns = linked[0] if first_is_axis else linked[1]
    sides = {
        axis: _axis_values(data.modalities[axis], columns, kept[axis]),
        other: _onto(data.modalities[other], sp.csr_matrix(onto), kept[other]),
    }
    # Cells times thousands of features, several times over: half the digits will do.
    precision = np.float32 if int(columns.sum()) > MAX_LINKED else np.float64
    sides = {name: each.astype(precision, copy=False) for name, each in sides.items()}
    sparse = [
        name
        for name in both
        if _is_sparse(data.modalities[name], columns if name == axis else None, kept[name])
    ]
    several = bool(sparse) and int(columns.sum()) >= MANY_LINKED
    ways = (_smoothed, _regressed) if several else (_smoothed,)
    found = []
    for way in ways:
        # One way at a time, and what is done with is let go.
        ready = [
            (way if name in sparse else _plain)(
                data.modalities[name], sides[name], technical[name], kept[name]
            )
            for name in both
        ]
        found.append(_reduced(ready))
    if not several:
        return found[0]
    left, right = (
        np.concatenate([unit(one), unit(two)], axis=1) for one, two in zip(*found, strict=True)
    )
    return left, right


def _plain(
    modality: ModalityData, values: np.ndarray, technical: Technical, rows: np.ndarray
) -> np.ndarray:
    """Linked features without batch and depth."""
    return technical.take_from(modality, values, rows)


def _smoothed(
    modality: ModalityData, values: np.ndarray, technical: Technical, rows: np.ndarray
) -> np.ndarray:
    """The same, averaged over alike cells first."""
    near = smooth(values, technical.residuals[rows], N_SMOOTHED)
    return technical.take_from(modality, near, rows)


def _regressed(
    modality: ModalityData, values: np.ndarray, technical: Technical, rows: np.ndarray
) -> np.ndarray:
    """The same, regressed on the modality's components afterwards."""
    return regress(technical.take_from(modality, values, rows), technical.residuals[rows])


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


def _is_sparse(modality: ModalityData, columns: np.ndarray | None, rows: np.ndarray) -> bool:
    """Whether linked features are too sparse to be read cell by cell."""
    if not likelihoods.get(modality.spec.likelihood).is_count:
        return False
    values = rows_read(modality, rows)
    return float((values if columns is None else values[:, columns]).mean()) < SPARSE_COUNTS


def _axis_values(modality: ModalityData, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    depth = modality.depth
    target = 1.0 if depth is None else float(np.median(depth[depth > 0]))
    encoded = encode(modality, target, rows, rows_read(modality, rows))
    chosen = encoded[:, columns]
    dense = chosen if isinstance(chosen, np.ndarray) else chosen.toarray()
    if not likelihoods.get(modality.spec.likelihood).uses_library_size and depth is not None:
        # Counts that no library size has scaled: centred log-ratios.
        dense = dense - np.asarray(encoded.mean(1)).reshape(-1, 1)
    filled: np.ndarray = np.nan_to_num(dense - np.nanmean(dense, 0))
    return filled


def _onto(modality: ModalityData, weights: sp.csr_matrix, rows: np.ndarray) -> np.ndarray:
    """Log-normalised sums over positive edges minus those over negative ones."""
    counts = rows_read(modality, rows)
    if isinstance(counts, np.ndarray):
        filled = np.nan_to_num(counts - np.nanmean(counts, 0))
        return np.asarray(filled @ weights)
    total = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1.0)
    scale = sp.diags(1e4 / total)
    result = np.zeros((counts.shape[0], weights.shape[1]))
    for part, change in ((weights.maximum(0.0), np.add), ((-weights).maximum(0.0), np.subtract)):
        if part.nnz:
            sums = (scale @ (counts @ part)).toarray()
            change(result, np.log1p(sums, out=sums), out=result)
    return result


def _reduced(sides: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Standardise the columns, and reduce many of them to principal components of both.

    The arrays are overwritten.
    """
    for values in sides:
        spread = values.std(0)
        values -= values.mean(0)
        values /= np.where(spread > 1e-9, spread, 1.0)
    left, right = sides
    if left.shape[1] <= MAX_LINKED:
        return left, right
    for values in sides:
        values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    n_cells = sum(len(values) for values in sides)
    center = sum(values.sum(0, dtype=np.float64) for values in sides) / n_cells
    for values in sides:
        values -= center.astype(values.dtype)
    _, axes = np.linalg.eigh(np.asarray(left.T @ left + right.T @ right, dtype=np.float64))
    kept = axes[:, -MAX_LINKED:].astype(left.dtype)
    return left @ kept, right @ kept
