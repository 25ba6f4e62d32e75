"""Feature graphs as tables and as graphs of networkx, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionDtype

from mosaicvi._errors import DataError
from mosaicvi.graph._edges import Edges
from mosaicvi.graph._modality import shown
from mosaicvi.graph._nodes import SEPARATOR, Nodes, parse_labels
from mosaicvi.graph._parts import RESERVED, Parts

if TYPE_CHECKING:
    import networkx as nx

    from mosaicvi.graph._combine import Graph

Features = Mapping[str, Iterable[str]]

COLUMNS = ("source_modality", "source", "target_modality", "target", "sign", "weight", "type")
"""Columns of the table of edges."""

_DEFAULTS: Mapping[str, Any] = {"sign": 1, "weight": 1.0, "type": "edge"}
NULLABLE = "nullable"
"""Attribute of a graph of networkx: nullable types by column of metadata, written as JSON, since
most file formats of graphs hold no dicts."""

_REMEDY = "name them source_modality, source, target_modality, target, sign, weight, type"


def to_pandas(graph: Graph) -> pd.DataFrame:
    """One row an edge, columns :data:`COLUMNS`."""
    nodes, edges, _ = graph
    frame = nodes.frame()
    source, target = frame.take(edges.source), frame.take(edges.target)
    return pd.DataFrame(
        {
            "source_modality": source["modality"].to_numpy(dtype=object),
            "source": source["feature"].to_numpy(),
            "target_modality": target["modality"].to_numpy(dtype=object),
            "target": target["feature"].to_numpy(),
            "sign": edges.sign.astype(np.int64),
            "weight": np.array(edges.weight),
            "type": edges.type.copy(),
        }
    )


def from_pandas(
    table: pd.DataFrame,
    features: pd.DataFrame | Features | None,
    modalities: Sequence[str] | None,
) -> Parts:
    """Read a table of edges."""
    ends = _ends(table, modalities)
    given, metadata = _features(features, ends)
    nodes = Nodes(given)
    numbers = [
        _numbers(nodes, modality, names, known=features is not None) for modality, names in ends
    ]
    values = {key: _column(table, key, default) for key, default in _DEFAULTS.items()}
    edges = Edges.of(numbers[0], numbers[1], values["sign"], values["weight"], values["type"])
    return Parts(nodes.features, edges, metadata)


def _ends(
    table: pd.DataFrame, modalities: Sequence[str] | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Modalities and features of both ends."""
    if not isinstance(table, pd.DataFrame):
        raise DataError(f"found {type(table).__name__}", key="edges", expected="a DataFrame")
    missing = [name for name in ("source", "target") if name not in table.columns]
    apart = [name for name in ("source_modality", "target_modality") if name in table.columns]
    if missing or len(apart) == 1:
        lacking = missing or list({"source_modality", "target_modality"} - set(apart))
        raise DataError(
            f"the table has no column {shown(lacking)}, but {shown(table.columns, 9)}",
            key="edges",
            expected="columns source and target, with or without a modality column for each",
            remedy=_REMEDY,
        )
    for name in ("source", "target", *apart):
        if table[name].isna().any():
            raise DataError(
                f"{int(table[name].isna().sum())} values are missing",
                key=name,
                expected="a name in every row",
                remedy=f"table.dropna(subset=[{name!r}])",
            )
    if not apart:
        written = [*table["source"], *table["target"]]
        found, names = parse_labels(written, modalities)
        n = len(table)
        return [(found[:n], names[:n]), (found[n:], names[n:])]
    return [
        (
            table[f"{end}_modality"].astype(str).to_numpy(dtype=object),
            table[end].astype(str).to_numpy(dtype=object),
        )
        for end in ("source", "target")
    ]


def _features(
    features: pd.DataFrame | Features | None, ends: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[Features, pd.DataFrame | None]:
    """Feature names by modality, and metadata in their order."""
    if isinstance(features, pd.DataFrame):
        missing = [name for name in ("modality", "feature") if name not in features.columns]
        if missing:
            raise DataError(
                f"the table has no column {shown(missing)}, but {shown(features.columns, 9)}",
                key="features",
                expected="columns modality and feature",
            )
        code, known = pd.factorize(features["modality"].astype(str))
        order = np.argsort(code, kind="stable")
        ordered = features.iloc[order]
        names = {
            str(modality): list(ordered["feature"][code[order] == number])
            for number, modality in enumerate(known)
        }
        metadata = ordered.drop(columns=[x for x in RESERVED if x in features.columns])
        return names, metadata
    if features is not None:
        return features, None
    modality = np.concatenate([found for found, _ in ends])
    feature = np.concatenate([names for _, names in ends])
    seen = pd.DataFrame({"modality": modality, "feature": feature}).drop_duplicates()
    grouped = seen.groupby("modality", sort=False)["feature"]
    return {str(name): list(group) for name, group in grouped}, None


def _numbers(nodes: Nodes, modality: np.ndarray, names: np.ndarray, *, known: bool) -> np.ndarray:
    numbers = np.full(len(names), -1, dtype=np.int64)
    for name in pd.unique(modality):
        here = modality == name
        numbers[here] = nodes.numbers(str(name), names[here])
    lost = np.flatnonzero(numbers < 0)
    if known and len(lost):
        written = [f"{modality[i]}{SEPARATOR}{names[i]}" for i in lost[:6]]
        raise DataError(
            f"{len(lost)} edges name features that are not among features=: {shown(written)}",
            key="features",
            expected="every feature that has an edge",
            remedy="leave features= out, or add these",
        )
    return numbers


def _column(table: pd.DataFrame, key: str, default: Any) -> Any:
    if key not in table.columns:
        return default
    if table[key].isna().any():
        raise DataError(
            f"{int(table[key].isna().sum())} of {len(table)} edges have no {key}",
            key=key,
            expected=f"a {key} for every edge, or for none (then {default!r})",
        )
    return table[key].to_numpy()


def to_networkx(graph: Graph) -> nx.Graph:
    """Nodes ``modality:feature`` with their metadata, edges with sign, weight and type."""
    import networkx as nx

    nodes, edges, metadata = graph
    labels = nodes.labels()
    table = pd.concat([nodes.frame(), metadata], axis=1).astype(object)
    # Files of graphs hold NaN, but neither None nor pandas' NA.
    attributes = table.where(table.notna(), np.nan).to_dict("records")
    made = nx.Graph()
    nullable = {name: str(kind) for name, kind in metadata.dtypes.items() if _is_nullable(kind)}
    if nullable:
        made.graph[NULLABLE] = json.dumps(nullable)
    made.add_nodes_from(zip(labels, attributes, strict=True))
    made.add_edges_from(
        (labels[i], labels[j], {"sign": int(sign), "weight": float(weight), "type": str(kind)})
        for i, j, sign, weight, kind in zip(
            edges.source, edges.target, edges.sign, edges.weight, edges.type, strict=True
        )
    )
    return made


def _is_nullable(kind: Any) -> bool:
    """Whether a type is one of pandas' numbers or booleans with missing values."""
    return isinstance(kind, ExtensionDtype) and kind.kind in "biuf"


def from_networkx(graph: nx.Graph, modalities: Sequence[str] | None) -> Parts:
    """Read a graph of networkx of any kind; direction is ignored."""
    table = _node_table(graph, modalities)
    for name, kind in json.loads(graph.graph.get(NULLABLE, "{}")).items():
        if name in table.columns:
            # Values that were changed since may be of another type.
            with suppress(TypeError, ValueError):
                table[name] = table[name].astype(kind)
    place = {node: number for number, node in enumerate(graph.nodes)}
    ends = list(graph.edges(data=True))
    edges = pd.DataFrame({key: [data.get(key) for _, _, data in ends] for key in _DEFAULTS})
    for key in _DEFAULTS:
        if edges[key].isna().all():
            edges = edges.drop(columns=key)
    for name, end in (("source", 0), ("target", 1)):
        rows = table.iloc[[place[edge[end]] for edge in ends]]
        edges[f"{name}_modality"] = rows["modality"].to_numpy()
        edges[name] = rows["feature"].to_numpy()
    return from_pandas(edges, table, None)


def _node_table(graph: nx.Graph, modalities: Sequence[str] | None) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [dict(data) for _, data in graph.nodes(data=True)]
    table = pd.DataFrame(rows, index=pd.RangeIndex(len(rows)))
    keys = [key for key in ("modality", "feature") if key in table.columns]
    if len(keys) == 2 and not table[keys].isna().any().any():
        return table
    if keys:
        raise DataError(
            f"some nodes carry {shown(keys)} and others do not",
            expected="modality and feature on every node, or on none",
        )
    table.insert(0, "modality", "")
    table.insert(1, "feature", "")
    table["modality"], table["feature"] = parse_labels([str(x) for x in graph.nodes], modalities)
    return table


def same(left: Graph, right: Graph) -> bool:
    """Whether two graphs have the same features, metadata and edges, in the same order."""
    (nodes, edges, metadata), (others, other_edges, other_metadata) = left, right
    return (
        nodes.modalities == others.modalities
        and all(nodes.features[name].equals(others.features[name]) for name in nodes.features)
        and all(
            np.array_equal(getattr(edges, key), getattr(other_edges, key))
            for key in ("source", "target", "sign", "weight", "type")
        )
        and metadata.equals(other_metadata)
    )
