"""Feature graphs from feature graphs: aligned, joined, cut and reweighted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError, RequestError
from mosaicvi.graph._edges import Edges
from mosaicvi.graph._modality import shown
from mosaicvi.graph._nodes import Nodes, resolve
from mosaicvi.graph._parts import DETAIL, REASON, Parts, take_metadata

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Graph = tuple[Nodes, Edges, pd.DataFrame]
"""Nodes, edges and metadata of a graph."""


def align(graph: Graph, features: Mapping[str, Iterable[str]]) -> Parts:
    """Put the features in this order; edges to others fall away."""
    nodes, edges, metadata = graph
    wanted = Nodes(features)
    found = [nodes.numbers(modality, names) for modality, names in wanted.features.items()]
    return _renumbered(nodes, edges, metadata, wanted.features, _joined(found))


def _joined(numbers: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int64), *numbers])


def _renumbered(
    nodes: Nodes,
    edges: Edges,
    metadata: pd.DataFrame,
    features: Mapping[str, Iterable[str]],
    found: np.ndarray,
) -> Parts:
    """Edges between the nodes ``found``, which become 0, 1, ...; -1 is a node without edges."""
    places = np.full(nodes.n, -1, dtype=np.int64)
    places[found[found >= 0]] = np.flatnonzero(found >= 0)
    source, target = places[edges.source], places[edges.target]
    keep = (source >= 0) & (target >= 0)
    rest = edges.take(keep)
    moved = Edges(source[keep], target[keep], rest.sign, rest.weight, rest.type)
    return Parts(features, moved, take_metadata(metadata, found))


def union(graphs: Sequence[Graph]) -> Parts:
    """Join features and edges, unchecked; a later check keeps the strongest of repeated edges."""
    features: dict[str, pd.Index] = {}
    for nodes, _, _ in graphs:
        for modality, names in nodes.features.items():
            before = features.get(modality, pd.Index([], dtype=object))
            features[modality] = before.append(names[~names.isin(before)])
    joined = Nodes(features)
    parts, tables, seen = [], [], np.zeros(joined.n, dtype=bool)
    for nodes, edges, metadata in graphs:
        numbers = _joined(
            [joined.numbers(modality, names) for modality, names in nodes.features.items()]
        )
        source, target = numbers[edges.source], numbers[edges.target]
        parts.append(Edges(source, target, edges.sign, edges.weight, edges.type))
        new = ~seen[numbers]
        tables.append(metadata[new].set_index(numbers[new]))
        seen[numbers] = True
    # Columns that no feature of a graph fills would decide the type of the joined column.
    filled = [table.dropna(axis=1, how="all") for table in tables]
    columns = list(dict.fromkeys(name for table in tables for name in table.columns))
    metadata = pd.concat(filled).reindex(index=np.arange(joined.n), columns=columns)
    metadata = take_metadata(metadata, np.arange(joined.n))
    edges = _concatenated(parts)
    # What one graph does not link, and says why, another may.
    linked = np.unique(np.concatenate([edges.source, edges.target]))
    metadata.loc[linked, [name for name in (REASON, DETAIL) if name in metadata]] = ""
    return Parts(features, edges, metadata)


def _concatenated(parts: Sequence[Edges]) -> Edges:
    return Edges(
        np.concatenate([part.source for part in parts]),
        np.concatenate([part.target for part in parts]),
        np.concatenate([part.sign for part in parts]),
        np.concatenate([part.weight for part in parts]),
        np.concatenate([part.type for part in parts]),
    )


def subset(
    graph: Graph,
    features: Mapping[str, Iterable[str]] | None,
    *,
    modalities: str | Sequence[str] | None,
    types: str | Sequence[str] | None,
) -> Parts:
    """Keep some features and edges, in the order they have."""
    nodes, edges, metadata = graph
    modalities = [modalities] if isinstance(modalities, str) else modalities
    for modality in modalities or ():
        resolve(nodes, modality, [], key="modalities")
    keep = np.zeros(nodes.n, dtype=bool)
    for modality, names in nodes.features.items():
        if modalities is None or modality in modalities:
            keep[nodes.numbers(modality, names)] = True
    if features is not None and not isinstance(features, Mapping):
        raise RequestError(
            f"found {type(features).__name__}",
            key="features",
            expected='names by modality, such as {"rna": ["CD4", "CD8A"]}',
        )
    for modality, chosen in (features or {}).items():
        here = nodes.codes == nodes.modalities.index(modality) if modality in nodes.features else []
        wanted = resolve(nodes, modality, chosen, key="features")
        stays = np.zeros(nodes.n, dtype=bool)
        stays[wanted] = True
        keep[here] &= stays[here]
    if types is not None:
        edges = edges.take(_of_types(edges, types))
    kept = {
        modality: names[keep[nodes.numbers(modality, names)]]
        for modality, names in nodes.features.items()
        if modalities is None or modality in modalities
    }
    return _renumbered(nodes, edges, metadata, kept, np.flatnonzero(keep))


def _of_types(edges: Edges, types: Iterable[str]) -> np.ndarray:
    wanted = [types] if isinstance(types, str) else list(types)
    known = pd.unique(edges.type)
    unknown = [kind for kind in wanted if kind not in known]
    if unknown:
        raise RequestError(
            f"the graph has no edges of type {shown(unknown)}",
            key="types",
            expected=f"some of {shown(sorted(known)) or 'none: the graph has no edges'}",
        )
    return np.asarray(pd.Series(edges.type).isin(wanted))


def reweight(graph: Graph, weight: ArrayLike | Mapping[str, float]) -> Parts:
    """Give the edges other weights."""
    nodes, edges, metadata = graph
    if isinstance(weight, Mapping):
        values = np.array(edges.weight)
        for kind, factor in weight.items():
            values[_of_types(edges, [kind])] *= factor
    else:
        values = np.asarray(weight)
        if values.shape != (len(edges),):
            raise RequestError(
                f"found weights of shape {values.shape}",
                key="weight",
                expected=f"({len(edges)},), one an edge, or factors by type of edge",
            )
        if values.dtype.kind not in "biuf":
            raise DataError(f"found {values.dtype} values", key="weight", expected="numbers")
    changed = Edges(edges.source, edges.target, edges.sign, values, edges.type)
    return Parts(nodes.features, changed, metadata)
