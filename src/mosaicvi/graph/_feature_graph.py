"""The feature graph: which features of which modalities belong together, how, and how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mosaicvi._errors import RequestError
from mosaicvi.graph import _combine, _convert
from mosaicvi.graph._edges import Duplicates, Edges, canonical
from mosaicvi.graph._nodes import Nodes
from mosaicvi.graph._parts import Parts, aligned_metadata
from mosaicvi.graph._report import GraphReport, report

if TYPE_CHECKING:
    import networkx as nx
    from mudata import MuData
    from numpy.typing import ArrayLike

Features = Mapping[str, Iterable[str]]
"""Feature names by modality, in order."""


class FeatureGraph:
    r"""Signed, weighted, typed edges between features of any number of modalities. Immutable.

    Nodes are features, written ``modality:feature``; inside they are the pair, so that both may
    contain colons. Edges are undirected, at most one a pair: sign 1 where the two features rise
    together and -1 where they go against each other, a weight in (0, 1], a type that says what the
    edge rests on. An edge of weight zero is no edge and is left out. As in GLUE :cite:p:`cao2022`,
    except that a feature is not linked to itself; an encoder that wants that adds it.

    Memory is O(edges + features).

    Parameters
    ----------
    features
        Feature names by modality. Their order is the order of nodes.
    edges
        Edges between node numbers, see :class:`~mosaicvi.graph.Edges`; None: no edges.
    metadata
        Columns about each feature, in the order of nodes, shape ``(n_features, n_columns)``. The
        columns ``reason`` and ``detail`` say why a feature has no edge, and ``check`` repeats them.
    duplicates
        What to do with a pair that occurs twice: ``error`` (default), or keep the ``strongest``.

    Raises
    ------
    DataError
        A feature name occurs twice; a feature is linked to itself; a pair occurs twice, or with
        both signs; a sign is neither 1 nor -1; a weight is outside [0, 1].

    Examples
    --------
    >>> edges = Edges.of([0, 1], [2, 2], type="coding")
    >>> graph = FeatureGraph({"rna": ["CD3D", "CD3E"], "protein": ["CD3"]}, edges)
    >>> graph.n_edges
    2
    """

    __slots__ = ("_edges", "_metadata", "_nodes")

    _nodes: Nodes
    _edges: Edges
    _metadata: pd.DataFrame

    def __init__(
        self,
        features: Features,
        edges: Edges | None = None,
        *,
        metadata: pd.DataFrame | None = None,
        duplicates: Duplicates = "error",
    ) -> None:
        nodes = Nodes(features)
        given = Edges.of([], []) if edges is None else edges
        checked = canonical(given, nodes.n, nodes.label, duplicates=duplicates)
        object.__setattr__(self, "_nodes", nodes)
        object.__setattr__(self, "_edges", checked)
        object.__setattr__(self, "_metadata", aligned_metadata(metadata, nodes))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a FeatureGraph is immutable: make another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a FeatureGraph is immutable: make another one")

    # What is in it

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities, in the order of nodes."""
        return self._nodes.modalities

    @property
    def n_features(self) -> int:
        """Number of features, linked or not."""
        return self._nodes.n

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return len(self._edges)

    @property
    def edges(self) -> Edges:
        """Edges as read-only arrays of shape ``(n_edges,)`` over node numbers."""
        return self._edges

    @property
    def nodes(self) -> np.ndarray:
        """``modality:feature`` of each node, shape ``(n_features,)``.

        Raises
        ------
        DataError
            Two features read the same, which takes a colon in the name of a modality.
        """
        return self._nodes.labels()

    def names(self, modality: str) -> pd.Index:
        """Features of a modality, in the order of nodes.

        Raises
        ------
        RequestError
            The graph has no such modality.
        """
        if modality not in self._nodes.features:
            raise RequestError(
                "the graph has no such modality",
                modality=modality,
                expected=f"one of {list(self.modalities)}",
            )
        return self._nodes.features[modality].copy()

    @property
    def degree(self) -> np.ndarray:
        """Number of edges of each feature, shape ``(n_features,)``, int64."""
        both = np.concatenate([self._edges.source, self._edges.target])
        return np.bincount(both, minlength=self.n_features).astype(np.int64)

    @property
    def features(self) -> pd.DataFrame:
        """A row a feature: ``modality``, ``feature``, ``n_edges``, then metadata (a copy)."""
        table = self._nodes.frame()
        table["n_edges"] = self.degree
        return pd.concat([table, self._metadata], axis=1)

    def __repr__(self) -> str:
        degree = self.degree
        lines = [f"FeatureGraph of {self.n_features} features and {self.n_edges} edges"]
        for code, modality in enumerate(self.modalities):
            here = degree[self._nodes.codes == code]
            lines.append(f"    {modality}: {len(here)} features, {int((here > 0).sum())} linked")
        counts = pd.Series(self._edges.type).value_counts()
        lines += [f"    type {kind!r}: {n} edges" for kind, n in counts.items()]
        return "\n".join(lines)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FeatureGraph):
            return NotImplemented
        return _convert.same(self._graph, other._graph)

    __hash__ = None  # type: ignore[assignment]

    # As arrays, over features in the order that a model has them

    def align(self, features: Features) -> FeatureGraph:
        """Return the graph over exactly these features, in this order.

        Edges to other features are left out. Features that the graph does not know have no edge.

        Parameters
        ----------
        features
            Feature names by modality, such as ``{m: mdata[m].var_names for m in mdata.mod}``.

        Raises
        ------
        DataError
            A feature name occurs twice.
        """
        return self._from(_combine.align(self._graph, features))

    def adjacency(self, features: Features | None = None) -> sp.csr_array:
        """Signed weighted adjacency, ``sign x weight`` where there is an edge.

        Parameters
        ----------
        features
            Order of rows and columns, as in :meth:`align`; None: the order of nodes.

        Returns
        -------
        Symmetric, zero diagonal, shape ``(n_features, n_features)``, float32; stored values are
        nonzero.

        Raises
        ------
        DataError
            A feature name occurs twice.
        """
        graph = self if features is None else self.align(features)
        edges = graph.edges
        values = (edges.sign * edges.weight).astype(np.float32)
        rows = np.concatenate([edges.source, edges.target])
        columns = np.concatenate([edges.target, edges.source])
        shape = (graph.n_features, graph.n_features)
        matrix = sp.coo_array((np.concatenate([values, values]), (rows, columns)), shape=shape)
        return sp.csr_array(matrix)

    # Other graphs from it

    def union(self, *others: FeatureGraph) -> FeatureGraph:
        """Return the graph with the features and edges of all.

        Where several have an edge between the same pair, the one of largest weight is kept, with
        its type; of equal ones the first. ``reason`` and ``detail`` of a feature that none links
        are those of the first graph that has it.

        Raises
        ------
        DataError
            Two graphs give a pair conflicting signs.
        RequestError
            One is no feature graph.
        """
        odd = [other for other in others if not isinstance(other, FeatureGraph)]
        if odd:
            raise RequestError(
                f"found {type(odd[0]).__name__}",
                key="others",
                expected="feature graphs, one by one: graph.union(second, third)",
            )
        graphs = [graph._graph for graph in (self, *others)]
        return self._from(_combine.union(graphs), "strongest")

    def subset(
        self,
        features: Features | None = None,
        *,
        modalities: str | Sequence[str] | None = None,
        types: str | Sequence[str] | None = None,
    ) -> FeatureGraph:
        """Return the graph with some of the features and edges, in the order they have.

        Parameters
        ----------
        features
            Features to keep, by modality; a modality that is not named keeps all. None: all.
        modalities
            Modality, or modalities, to keep; None: all.
        types
            Type, or types, of edges to keep; None: all.

        Raises
        ------
        RequestError
            A modality, feature or type is not in the graph.
        """
        return self._from(
            _combine.subset(self._graph, features, modalities=modalities, types=types)
        )

    def reweight(self, weight: ArrayLike | Mapping[str, float]) -> FeatureGraph:
        """Return the graph with other weights.

        Parameters
        ----------
        weight
            New weights in [0, 1], shape ``(n_edges,)``, in the order of :attr:`edges`; or factors
            by type of edge, ``{"window": 0.5}``, other types staying as they are. Edges that come
            to weight zero are left out.

        Raises
        ------
        DataError
            A weight is outside [0, 1].
        RequestError
            The number of weights differs from that of edges, or a type is not in the graph.
        """
        return self._from(_combine.reweight(self._graph, weight))

    # To and from other forms

    def to_pandas(self) -> pd.DataFrame:
        """Table of edges; the features with their metadata are :attr:`features`.

        Returns
        -------
        Columns ``source_modality``, ``source``, ``target_modality``, ``target``, ``sign``,
        ``weight``, ``type``, shape ``(n_edges, 7)``.
        """
        return _convert.to_pandas(self._graph)

    @classmethod
    def from_pandas(
        cls,
        edges: pd.DataFrame,
        features: pd.DataFrame | Features | None = None,
        *,
        modalities: Sequence[str] | None = None,
        duplicates: Duplicates = "error",
    ) -> FeatureGraph:
        """Make a graph from a table of edges.

        Parameters
        ----------
        edges
            Columns ``source`` and ``target``, with ``source_modality`` and ``target_modality``;
            without these two, ``source`` and ``target`` read ``modality:feature``. ``sign`` (1),
            ``weight`` (1) and ``type`` (``"edge"``) where they are not all alike.
        features
            All features, linked or not, in their order: names by modality, or a table like
            :attr:`features`. None: those that have an edge, in order of appearance.
        modalities
            Modalities to read ``modality:feature`` with, where their names contain colons.
        duplicates
            As in :class:`FeatureGraph`.

        Raises
        ------
        DataError
            A column is missing or has missing values, an edge names a feature that ``features``
            lacks, or as in :class:`FeatureGraph`.
        """
        return cls._from(_convert.from_pandas(edges, features, modalities), duplicates)

    def to_networkx(self) -> nx.Graph:
        """Return a ``networkx.Graph`` of nodes ``modality:feature``.

        Nodes carry ``modality``, ``feature`` and metadata, edges ``sign``, ``weight``, ``type``;
        where columns of metadata have nullable types, the graph carries their names.

        Raises
        ------
        DataError
            Two features read the same, which takes a colon in the name of a modality.
        """
        return _convert.to_networkx(self._graph)

    @classmethod
    def from_networkx(
        cls,
        graph: nx.Graph,
        *,
        modalities: Sequence[str] | None = None,
        duplicates: Duplicates = "error",
    ) -> FeatureGraph:
        """Make a graph from one of networkx.

        Parameters
        ----------
        graph
            Any kind; direction is ignored. Nodes carry ``modality`` and ``feature``, or read
            ``modality:feature``. Edges carry ``sign``, ``weight`` and ``type``, or none does (then
            1, 1 and ``"edge"``).
        modalities
            As in :meth:`from_pandas`.
        duplicates
            As in :class:`FeatureGraph`; ``"strongest"`` for a graph that has each edge in both
            directions, such as scglue's.

        Raises
        ------
        DataError
            Some edges carry an attribute and others lack it, or as in :class:`FeatureGraph`.
        """
        return cls._from(_convert.from_networkx(graph, modalities), duplicates)

    # Against data

    def check(self, mdata: MuData) -> GraphReport:
        """Say which features of a MuData the graph links, which it does not, and why.

        Parameters
        ----------
        mdata
            The MuData; it is only read.

        Returns
        -------
        A :class:`~mosaicvi.graph.GraphReport`.

        Raises
        ------
        DataError
            ``mdata`` is no MuData, or one of its modalities names a feature twice.
        """
        return report(self._graph, mdata)

    # Between its files

    @property
    def _graph(self) -> _combine.Graph:
        return self._nodes, self._edges, self._metadata

    @classmethod
    def _from(cls, parts: Parts, duplicates: Duplicates = "error") -> FeatureGraph:
        features, edges, metadata = parts
        return cls(features, edges, metadata=metadata, duplicates=duplicates)

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and worker processes need it: immutability rules the default out.
        return FeatureGraph._from, (Parts(dict(self._nodes.features), self._edges, self._metadata),)
