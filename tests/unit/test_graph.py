"""The feature graph itself: nodes, edges, adjacency, and graphs made from graphs."""

from __future__ import annotations

import copy
import pickle

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from mosaicvi import DataError, RequestError
from mosaicvi.graph import Edges, FeatureGraph

FEATURES = {"rna": ["A", "B", "C"], "atac": ["chr1:1-5", "chr1:7-9"], "protein": ["a"]}


def small(**kwargs):
    """Edges A-p1 (+1, .5), B-p1 (-1, 1), A-a (+1, .25); C and the second peak have none."""
    edges = Edges.of([3, 1, 5], [0, 3, 0], [1, -1, 1], [0.5, 1.0, 0.25], ["x", "y", "z"])
    return FeatureGraph(FEATURES, edges, **kwargs)


def test_counts_names_and_degree():
    graph = small()
    assert graph.modalities == ("rna", "atac", "protein")
    assert (graph.n_features, graph.n_edges) == (6, 3)
    assert list(graph.nodes) == [f"{m}:{f}" for m, names in FEATURES.items() for f in names]
    assert list(graph.names("atac")) == FEATURES["atac"]
    assert graph.degree.tolist() == [2, 1, 0, 2, 0, 1]
    assert graph.features["n_edges"].tolist() == [2, 1, 0, 2, 0, 1]
    assert "rna: 3 features, 2 linked" in repr(graph)
    with pytest.raises(RequestError, match="'adt'"):
        graph.names("adt")


def test_edges_are_canonical_and_read_only():
    edges = small().edges
    assert edges.source.tolist() == [0, 0, 1]
    assert edges.target.tolist() == [3, 5, 3]
    assert edges.sign.tolist() == [1, 1, -1]
    assert edges.weight.tolist() == [0.5, 0.25, 1.0]
    assert list(edges.type) == ["x", "z", "y"]
    for array in (edges.source, edges.target, edges.sign, edges.weight, edges.type):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_graph_cannot_be_changed():
    graph = small(metadata=pd.DataFrame({"clone": list("abcdef")}))
    with pytest.raises(AttributeError, match="immutable"):
        graph._edges = None
    with pytest.raises(AttributeError, match="immutable"):
        del graph._nodes
    with pytest.raises(AttributeError):
        graph.note = 1
    table = graph.features
    table.loc[0, "clone"] = "changed"
    graph.names("rna").name = "changed"
    assert graph == small(metadata=pd.DataFrame({"clone": list("abcdef")}))
    with pytest.raises(TypeError):
        hash(graph)


def test_copies_are_equal():
    graph = small()
    assert copy.deepcopy(graph) == graph
    assert pickle.loads(pickle.dumps(graph)) == graph
    assert graph != small().reweight({"x": 0.9})
    assert graph != "graph"


def test_adjacency_against_networkx():
    graph = small()
    oracle = nx.Graph()
    oracle.add_nodes_from(range(6))
    oracle.add_weighted_edges_from([(0, 3, 0.5), (1, 3, -1.0), (0, 5, 0.25)])
    expected = nx.to_scipy_sparse_array(oracle, nodelist=range(6), format="csr")
    found = graph.adjacency()
    assert isinstance(found, sp.csr_array)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), expected.toarray())


def test_adjacency_over_a_stated_order():
    graph = small()
    order = {"protein": ["a", "new"], "rna": ["C", "A"], "atac": ["chr1:1-5"]}
    found = graph.adjacency(order).toarray()
    names = [("protein", "a"), ("protein", "new"), ("rna", "C"), ("rna", "A"), ("atac", "chr1:1-5")]
    expected = np.zeros((5, 5))
    weight = {frozenset([("rna", "A"), ("atac", "chr1:1-5")]): 0.5}
    weight[frozenset([("rna", "A"), ("protein", "a")])] = 0.25
    for i, left in enumerate(names):
        for j, right in enumerate(names):
            expected[i, j] = weight.get(frozenset([left, right]), 0.0)
    np.testing.assert_array_equal(found, expected)
    assert graph.align(order).edges.sign.tolist() == [1, 1]


def test_zero_weight_is_no_edge():
    edges = Edges.of([0, 1], [3, 3], [1, 1], [0.0, 1.0])
    graph = FeatureGraph(FEATURES, edges)
    assert graph.n_edges == 1
    assert graph.adjacency().nnz == 2
    assert small().reweight({"x": 0.0}) == small().subset(types=["y", "z"])
    # Beside an edge of the pair, too, whatever its sign and type.
    one = FeatureGraph(FEATURES, Edges.of([0], [3], 1, 0.5))
    for sign in (1, -1):
        twice = Edges.of([0, 3], [3, 0], [sign, 1], [0.0, 0.5])
        for duplicates in ("error", "strongest"):
            assert FeatureGraph(FEATURES, twice, duplicates=duplicates) == one


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        (Edges.of([0], [0]), ["'rna:A'", "itself", "selfloop_edges"]),
        (Edges.of([0], [9]), ["0 to 5"]),
        (Edges.of([0], [3], 2), ["signs", "2", "rna:A", "atac:chr1:1-5", "unknown_sign"]),
        (Edges.of([0], [3], 0), ["signs", "0 between"]),
        (Edges.of([0], [3], 1, -0.5), ["negative", "-0.5", "[0, 1]"]),
        (Edges.of([0], [3], 1, 7), ["7", "[0, 1]", "rescale"]),
        (Edges.of([0], [3], 1, np.nan), ["nan", "[0, 1]"]),
        (Edges.of([0, 3], [3, 0]), ["duplicated", "rna:A", "strongest"]),
        (Edges.of([0, 3], [3, 0], [1, -1]), ["both signs", "rna:A"]),
        (Edges.of([0], [3], 1, np.array(["much"])), ["numbers", "weight"]),
    ],
)
def test_bad_edges_are_refused(edges, words):
    with pytest.raises(DataError) as caught:
        FeatureGraph(FEATURES, edges)
    for word in words:
        assert word in str(caught.value)


def test_strongest_of_repeated_edges_is_kept():
    edges = Edges.of([0, 3, 0], [3, 0, 3], 1, [0.2, 0.9, 0.9], ["weak", "first", "second"])
    graph = FeatureGraph(FEATURES, edges, duplicates="strongest")
    assert graph.edges.weight.tolist() == [0.9]
    assert list(graph.edges.type) == ["first"]
    with pytest.raises(RequestError, match="duplicates"):
        FeatureGraph(FEATURES, edges, duplicates="last")
    conflict = Edges.of([0, 3], [3, 0], [1, -1], [0.1, 0.9])
    with pytest.raises(DataError, match="both signs"):
        FeatureGraph(FEATURES, conflict, duplicates="strongest")


def test_features_must_be_unique_and_metadata_complete():
    with pytest.raises(DataError, match=r"duplicated feature names: 'A'"):
        FeatureGraph({"rna": ["A", "A"]})
    with pytest.raises(DataError, match="the string 'ABC'"):
        FeatureGraph({"rna": "ABC"})
    with pytest.raises(DataError, match="6, one a feature"):
        small(metadata=pd.DataFrame({"clone": ["a"]}))
    with pytest.raises(DataError, match="another meaning"):
        small(metadata=pd.DataFrame({"feature": list("abcdef")}))


def test_union_keeps_features_and_strongest_edges():
    left = small()
    right = FeatureGraph(
        {"atac": ["chr1:1-5"], "rna": ["D", "A", "E"]},
        Edges.of([0, 0], [1, 2], 1, [0.3, 0.8], "w"),
        metadata=pd.DataFrame({"reason": ["", "", "", "far"]}),
    )
    joined = left.union(right)
    assert list(joined.names("rna")) == ["A", "B", "C", "D", "E"]
    table = joined.to_pandas().set_index(["source", "target"])
    assert table.loc[("A", "chr1:1-5"), ["weight", "type"]].tolist() == [0.8, "w"]
    assert table.loc[("D", "chr1:1-5"), "weight"] == 0.3
    assert joined.n_edges == 4
    assert joined.features.set_index("feature").loc["E", "reason"] == "far"
    assert left.union() == left
    assert left.union(left) == left
    opposite = FeatureGraph({"rna": ["B"], "atac": ["chr1:1-5"]}, Edges.of([0], [1]))
    with pytest.raises(DataError, match="both signs"):
        left.union(opposite)


def test_what_is_no_graph_and_no_mapping_is_refused():
    with pytest.raises(RequestError, match=r"found list.*one by one"):
        small().union([small()])
    for make in (FeatureGraph, small().align, small().adjacency):
        with pytest.raises(DataError, match=r"found list.*names by modality"):
            make(["A", "B"])


def test_union_gives_no_reason_for_a_feature_that_it_links():
    names = {"rna": ["A", "B"], "protein": ["a"]}
    reasons = pd.DataFrame({"reason": ["", "no antibody", ""], "detail": ["", "none binds", ""]})
    left = FeatureGraph(names, Edges.of([0], [2]), metadata=reasons)
    right = FeatureGraph({"rna": ["B"], "atac": ["p"]}, Edges.of([0], [1]))
    for joined in (left.union(right), right.union(left)):
        rows = joined.features.set_index(["modality", "feature"])
        assert rows.loc[("rna", "B"), ["n_edges", "reason", "detail"]].tolist() == [1, "", ""]


def test_subset_by_feature_modality_and_type():
    graph = small(metadata=pd.DataFrame({"clone": list("abcdef")}))
    only = graph.subset({"rna": ["C", "B"]})
    assert list(only.nodes) == ["rna:B", "rna:C", "atac:chr1:1-5", "atac:chr1:7-9", "protein:a"]
    assert only.features["clone"].tolist() == ["b", "c", "d", "e", "f"]
    assert only.n_edges == 1
    assert graph.subset(modalities=["rna", "atac"]).n_edges == 2
    assert graph.subset(modalities=["rna", "atac"]).modalities == ("rna", "atac")
    assert list(graph.subset(types=["z"]).edges.type) == ["z"]
    assert graph.subset() == graph
    assert graph.subset(modalities="rna") == graph.subset(modalities=["rna"])
    assert graph.subset(types="z") == graph.subset(types=["z"])
    for arguments in ({"features": {"rna": ["Z"]}}, {"modalities": ["adt"]}, {"types": ["v"]}):
        with pytest.raises(RequestError, match=r"'Z'|'adt'|'v'"):
            graph.subset(**arguments)
    with pytest.raises(RequestError, match=r"'features': found list.*names by modality"):
        graph.subset(["rna:C"])


def test_reweight_by_array_and_by_type():
    graph = small()
    assert graph.reweight([0.1, 0.2, 0.3]).edges.weight.tolist() == [0.1, 0.2, 0.3]
    assert graph.reweight({"y": 0.5, "x": 0.5}).edges.weight.tolist() == [0.25, 0.25, 0.5]
    assert graph.edges.weight.tolist() == [0.5, 0.25, 1.0]
    with pytest.raises(RequestError, match=r"\(3,\)"):
        graph.reweight([0.1])
    with pytest.raises(RequestError, match="'unknown'"):
        graph.reweight({"unknown": 0.5})
    with pytest.raises(DataError, match="outside"):
        graph.reweight({"y": 3})


def test_empty_graphs_work():
    graph = FeatureGraph({"rna": ["A"], "atac": []})
    assert graph.adjacency().shape == (1, 1)
    assert graph.union(FeatureGraph({})) == graph
    assert graph.subset(modalities=["atac"]).n_features == 0
    assert FeatureGraph.from_pandas(graph.to_pandas(), graph.features).n_edges == 0
