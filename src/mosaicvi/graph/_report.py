"""What a feature graph does for a MuData: which features it links, which not, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mosaicvi.graph._match import diagnose
from mosaicvi.graph._modality import modality_var, name_index
from mosaicvi.graph._parts import DETAIL, HUB, REASON

if TYPE_CHECKING:
    from mosaicvi.graph._combine import Graph
    from mosaicvi.graph._nodes import Nodes

NO_EDGE, PARTNER, MODALITY = "no edge", "partner", "modality"
_SHARED = 0.1
"""Share of a modality's features from where on a graph's modality may be the same under another
name."""


@dataclass(frozen=True, eq=False)
class GraphReport:
    """How a feature graph and a MuData fit.

    Attributes
    ----------
    modalities
        A row a modality of the MuData: ``n_features``, ``n_linked``, ``n_not_linked`` and
        ``main_reason``, the commonest of ``features["reason"]``.
    features
        A row a feature of the MuData: ``modality``, ``feature``, ``n_edges`` (to features that the
        MuData has), ``linked``, ``reason`` and ``detail``. Reasons: ``case``, ``naming`` and
        ``assembly`` (the graph has a feature that differs in case; in version, prefix or
        separators; other intervals), ``absent`` (nothing like it), ``modality`` (the graph lacks
        the modality), ``partner`` (edges lead only to features that the MuData lacks), ``no edge``,
        or the builder's own reason why it made none.
    ties
        Number of edges between modalities, shape ``(n_modalities, n_modalities)``; the diagonal
        counts those within one. Hubs such as gene sets, which have no data, are modalities too.
    n_edges, n_edges_used
        Edges of the graph, and those of them between features that the MuData has.
    """

    modalities: pd.DataFrame
    features: pd.DataFrame
    ties: pd.DataFrame
    n_edges: int
    n_edges_used: int

    def __str__(self) -> str:
        """Return one line a modality, then its commonest reasons, then what nothing ties."""
        lines = [f"{self.n_edges_used} of {self.n_edges} edges join features of the MuData"]
        for modality, row in self.modalities.iterrows():
            lines.append(f"{modality}: {row['n_linked']} of {row['n_features']} features linked")
            rest = self.features[(self.features["modality"] == modality) & ~self.features["linked"]]
            for reason, n in rest["reason"].value_counts().items():
                first = rest[rest["reason"] == reason].iloc[0]
                detail = f" ({first['detail']})" if first["detail"] else ""
                lines.append(f"    {n} not: {reason}, such as {first['feature']!r}{detail}")
        lines += [f"nothing ties {left!r} and {right!r}" for left, right in self.untied]
        return "\n".join(lines)

    @property
    def untied(self) -> list[tuple[str, str]]:
        """Pairs of the MuData's modalities that no path of edges joins; hubs are steps of it, too.

        :class:`~mosaicvi.MosaicVI` does not step over hubs: ``ties`` has the edges that it counts.
        """
        tied = self.ties.to_numpy() > 0
        np.fill_diagonal(tied, val=True)
        for _ in range(len(tied)):
            tied = (tied.astype(np.int64) @ tied.astype(np.int64)) > 0
        names = [str(name) for name in self.modalities.index]
        return [
            (names[i], names[j])
            for i in range(len(names))
            for j in range(i + 1, len(names))
            if not tied[i, j]
        ]


def report(graph: Graph, mdata: Any) -> GraphReport:
    """Compare a graph with a MuData; see :class:`GraphReport`."""
    nodes, edges, metadata = graph
    if getattr(mdata, "mod", None) is None:
        modality_var(mdata, "", key="mdata")
    names = {str(m): name_index(modality_var(mdata, m, key="mdata").index) for m in mdata.mod}
    here = np.zeros(nodes.n, dtype=bool)
    numbers = {m: nodes.numbers(m, index) for m, index in names.items()}
    for found in numbers.values():
        here[found[found >= 0]] = True
    # A hub has no data in any MuData: an edge to it is one to the others that it joins.
    hubs = np.zeros(nodes.n, dtype=bool)
    if HUB in metadata:
        hubs = metadata[HUB].eq(True).to_numpy(dtype=bool)
    here |= hubs
    used = edges.take(here[edges.source] & here[edges.target])
    # One zero more at the end: that is where -1, no node, points to.
    n_used = np.bincount(np.concatenate([used.source, used.target]), minlength=nodes.n + 1)
    n_all = np.bincount(np.concatenate([edges.source, edges.target]), minlength=nodes.n + 1)
    tables = [
        _modality_table(nodes, metadata, m, names[m], numbers[m], n_used, n_all) for m in names
    ]
    features = pd.concat(tables, ignore_index=True)
    joining = [
        m
        for m in nodes.modalities
        if m not in names and hubs[nodes.numbers(m, nodes.features[m])].any()
    ]
    ties = _ties(nodes, used.source, used.target, [*names, *joining])
    return GraphReport(_summary(features, list(names)), features, ties, len(edges), len(used))


def _modality_table(
    nodes: Nodes,
    metadata: pd.DataFrame,
    modality: str,
    names: pd.Index,
    numbers: np.ndarray,
    n_used: np.ndarray,
    n_all: np.ndarray,
) -> pd.DataFrame:
    known = numbers >= 0
    n_edges = n_used[numbers]
    reason = np.full(len(names), "", dtype=object)
    detail = np.full(len(names), "", dtype=object)
    partner = known & (n_edges == 0) & (n_all[numbers] > 0)
    reason[partner], detail[partner] = PARTNER, "linked only to features that the MuData lacks"
    bare = np.flatnonzero(known & (n_all[numbers] == 0))
    reason[bare] = NO_EDGE
    for column, target in ((REASON, reason), (DETAIL, detail)):
        if column in metadata:
            said = metadata[column].to_numpy(dtype=object)[numbers[bare]]
            told = np.array([isinstance(value, str) and value != "" for value in said], dtype=bool)
            target[bare[told]] = said[told]
    lost = np.flatnonzero(~known)
    if len(lost) and modality in nodes.features:
        why = diagnose(names[lost], nodes.features[modality])
        reason[lost], detail[lost] = why["reason"], why["detail"]
    elif len(lost):
        reason[lost], detail[lost] = MODALITY, _other_modality(nodes, names)
    return pd.DataFrame(
        {
            "modality": modality,
            "feature": names.to_numpy(),
            "n_edges": n_edges.astype(np.int64),
            "linked": n_edges > 0,
            "reason": reason,
            "detail": detail,
        }
    )


def _other_modality(nodes: Nodes, names: pd.Index) -> str:
    """Modality of the graph that has these features, where one has."""
    for modality, known in nodes.features.items():
        if names.isin(known).mean() >= _SHARED:
            return f"the graph has such features in its modality {modality!r}"
    return f"the graph has modalities {list(nodes.modalities)}"


def _ties(
    nodes: Nodes, source: np.ndarray, target: np.ndarray, modalities: list[str]
) -> pd.DataFrame:
    table = np.zeros((len(nodes.modalities),) * 2, dtype=np.int64)
    left, right = nodes.codes[source], nodes.codes[target]
    np.add.at(table, (left, right), 1)
    np.add.at(table, (right[left != right], left[left != right]), 1)
    ties = pd.DataFrame(table, index=list(nodes.modalities), columns=list(nodes.modalities))
    return ties.reindex(index=modalities, columns=modalities, fill_value=0)


def _summary(features: pd.DataFrame, modalities: list[str]) -> pd.DataFrame:
    rows = []
    for modality in modalities:
        here = features[features["modality"] == modality]
        rest = here["reason"][~here["linked"]]
        n_linked = int(here["linked"].sum())
        main = str(rest.value_counts().index[0]) if len(rest) else ""
        rows.append((len(here), n_linked, len(here) - n_linked, main))
    columns = ["n_features", "n_linked", "n_not_linked", "main_reason"]
    return pd.DataFrame(rows, index=pd.Index(modalities, name="modality"), columns=columns)
