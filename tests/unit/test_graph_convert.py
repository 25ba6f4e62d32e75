"""Feature graphs to and from pandas and networkx, and names with colons."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from mosaicvi import DataError
from mosaicvi.graph import Edges, FeatureGraph
from mosaicvi.graph._nodes import parse_labels


def graph_of(features=None, metadata=None):
    names = features or {"rna": ["A", "B"], "atac": ["chr1:1-5", "chr2:1-5"]}
    edges = Edges.of([0, 1], [2, 2], [1, -1], [0.5, 1.0], ["x", "y"])
    return FeatureGraph(names, edges, metadata=metadata)


def test_pandas_round_trip_with_metadata():
    graph = graph_of(metadata=pd.DataFrame({"antigen": ["", "", "CD3", "CD4"]}))
    table = graph.to_pandas()
    assert table.iloc[0].tolist() == ["rna", "A", "atac", "chr1:1-5", 1, 0.5, "x"]
    assert FeatureGraph.from_pandas(table, graph.features) == graph
    shuffled = graph.features.sample(frac=1, random_state=1)
    again = FeatureGraph.from_pandas(table, shuffled)
    assert again.union(graph).n_edges == graph.n_edges
    assert dict(zip(again.nodes, again.features["antigen"], strict=True)) == dict(
        zip(graph.nodes, graph.features["antigen"], strict=True)
    )
    linked = FeatureGraph.from_pandas(table)
    assert set(linked.nodes) == {"rna:A", "rna:B", "atac:chr1:1-5"}


def test_pandas_defaults_and_labels():
    table = pd.DataFrame({"source": ["rna:A"], "target": ["atac:chr1:1-5"]})
    graph = FeatureGraph.from_pandas(table)
    assert graph.to_pandas().iloc[0].tolist() == ["rna", "A", "atac", "chr1:1-5", 1, 1.0, "edge"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (pd.DataFrame({"source": ["rna:A"], "to": ["x"]}), ["'target'", "'to'"]),
        (
            pd.DataFrame({"source": ["A"], "target": ["B"], "source_modality": ["rna"]}),
            ["target_modality"],
        ),
        (pd.DataFrame({"source": ["rna:A"], "target": [None]}), ["missing", "dropna"]),
        (pd.DataFrame({"source": ["A"], "target": ["rna:B"]}), ["'A'", "modality:feature"]),
        (
            pd.DataFrame({"source": ["rna:A"], "target": ["rna:B"], "weight": [np.nan]}),
            ["1 of 1 edges have no weight"],
        ),
        ([("rna:A", "rna:B")], ["list", "DataFrame"]),
    ],
)
def test_bad_tables_are_refused(table, words):
    with pytest.raises(DataError) as caught:
        FeatureGraph.from_pandas(table)
    for word in words:
        assert word in str(caught.value)


def test_names_may_be_read_once():
    table = pd.DataFrame({"source": ["rna:A"], "target": ["atac:p"]})
    names = {"rna": (name for name in ["A", "B"]), "atac": iter(["p"])}
    assert FeatureGraph.from_pandas(table, names).n_features == 3


def test_edges_of_unknown_features_are_refused():
    table = pd.DataFrame({"source": ["rna:A"], "target": ["rna:B"]})
    with pytest.raises(DataError, match="rna:B"):
        FeatureGraph.from_pandas(table, {"rna": ["A"]})
    with pytest.raises(DataError, match="'feature'"):
        FeatureGraph.from_pandas(table, pd.DataFrame({"modality": ["rna"]}))


def test_networkx_round_trip():
    graph = graph_of(metadata=pd.DataFrame({"clone": ["", "", "1", "2"]}))
    made = graph.to_networkx()
    assert isinstance(made, nx.Graph)
    assert made.nodes["atac:chr2:1-5"] == {
        "modality": "atac",
        "feature": "chr2:1-5",
        "clone": "2",
    }
    assert made.edges["rna:B", "atac:chr1:1-5"] == {"sign": -1, "weight": 1.0, "type": "y"}
    assert FeatureGraph.from_networkx(made) == graph


@pytest.mark.parametrize("missing", [True, False])
def test_networkx_round_trip_of_nullable_types(missing, tmp_path):
    start = pd.array([1, None if missing else 2, 3, 4], dtype="Int64")
    known = pd.array([True, False, None, True], dtype="boolean")
    graph = graph_of(metadata=pd.DataFrame({"start": start, "known": known, "n": 1}))
    made = graph.to_networkx()
    read = FeatureGraph.from_networkx(made)
    assert read == graph
    assert read.features["start"].dtype == "Int64"
    # A file of graphs holds strings and numbers alone.
    plain = graph_of(metadata=pd.DataFrame({"n": pd.array([1, 2, 3, 4], dtype="Int64")}))
    nx.write_graphml(plain.to_networkx(), tmp_path / "graph.xml")
    assert FeatureGraph.from_networkx(nx.read_graphml(tmp_path / "graph.xml")) == plain
    holes = graph_of(metadata=pd.DataFrame({"start": start, "chrom": ["1", None, "2", np.nan]}))
    nx.write_graphml(holes.to_networkx(), tmp_path / "holes.xml")
    assert FeatureGraph.from_networkx(nx.read_graphml(tmp_path / "holes.xml")) == holes
    assert FeatureGraph.from_networkx(holes.to_networkx()) == holes
    # Values that others wrote decide.
    made.nodes["rna:A"]["start"] = "early"
    assert FeatureGraph.from_networkx(made).features["start"][0] == "early"


def test_networkx_of_other_origin():
    other = nx.MultiDiGraph()
    for ends in (("rna:A", "atac:chr1:1-5"), ("atac:chr1:1-5", "rna:A")):
        other.add_edge(*ends, weight=0.5, sign=-1)
    with pytest.raises(DataError, match="duplicates='strongest'"):
        FeatureGraph.from_networkx(other)
    graph = FeatureGraph.from_networkx(other, duplicates="strongest")
    assert graph.to_pandas().iloc[0].tolist() == ["rna", "A", "atac", "chr1:1-5", -1, 0.5, "edge"]
    other.add_edge("rna:A", "rna:A", weight=1.0, sign=1)
    with pytest.raises(DataError, match="selfloop_edges"):
        FeatureGraph.from_networkx(other, duplicates="strongest")
    partly = nx.Graph([("rna:A", "rna:B", {"sign": 1}), ("rna:B", "rna:C")])
    with pytest.raises(DataError, match="1 of 2 edges have no sign"):
        FeatureGraph.from_networkx(partly)
    nodes = nx.Graph()
    nodes.add_node("x", modality="rna", feature="x")
    nodes.add_node("rna:y")
    with pytest.raises(DataError, match="others do not"):
        FeatureGraph.from_networkx(nodes)


def test_colons_in_features_and_modalities():
    graph = graph_of({"rna:raw": ["a:b", "c"], "atac": ["chr1:1-5", "d"]})
    table = graph.to_pandas()
    assert FeatureGraph.from_pandas(table, graph.features) == graph
    assert FeatureGraph.from_networkx(graph.to_networkx()) == graph
    written = pd.DataFrame({"source": ["rna:raw:a:b"], "target": ["atac:chr1:1-5"]})
    read = FeatureGraph.from_pandas(written, modalities=["rna:raw", "atac"])
    assert read.modalities == ("rna:raw", "atac")
    assert list(read.names("rna:raw")) == ["a:b"]


def test_labels_that_could_mean_two_things_are_refused():
    with pytest.raises(DataError, match=r"'m:n:f' reads as a feature of 'm:n' and of 'm'"):
        parse_labels(["m:n:f"], ["m", "m:n"])
    clash = FeatureGraph({"m": ["n:f"], "m:n": ["f"]}, Edges.of([0], [1]))
    with pytest.raises(DataError, match="read the same"):
        clash.to_networkx()
    assert FeatureGraph.from_pandas(clash.to_pandas(), clash.features) == clash
    with pytest.raises(DataError, match="'adt'"):
        parse_labels(["rna:A"], ["adt"])
