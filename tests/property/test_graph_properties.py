"""Properties of every feature graph, with networkx and plain Python as oracles."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.graph_helpers import genes_at, named

from mosaicvi.graph import FeatureGraph, GeneBody, from_coordinates

MODALITIES = ("rna", "atac", "a:b")
name = st.text("ab:1-", min_size=1, max_size=4)
features = st.fixed_dictionaries({m: st.lists(name, max_size=5, unique=True) for m in MODALITIES})


@st.composite
def graphs(draw, of=None):
    """A graph with any edges between any features."""
    named_features = draw(features) if of is None else of
    nodes = [(m, f) for m, names in named_features.items() for f in names]
    pairs = [(i, j) for i in range(len(nodes)) for j in range(i)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=8)) if pairs else []
    rows = [
        (
            *(nodes[i] + nodes[j] if draw(st.booleans()) else nodes[j] + nodes[i]),
            1 if (i + j) % 3 else -1,
            draw(st.floats(0, 1)),
            draw(st.sampled_from(["x", "y"])),
        )
        for i, j in chosen
    ]
    columns = ["source_modality", "source", "target_modality", "target", "sign", "weight", "type"]
    return FeatureGraph.from_pandas(pd.DataFrame(rows, columns=columns), named_features)


def as_dict(graph):
    """Edges by the pair of their ends."""
    return {
        frozenset([(row.source_modality, row.source), (row.target_modality, row.target)]): (
            row.sign,
            row.weight,
        )
        for row in graph.to_pandas().itertuples()
    }


@given(graphs())
@settings(deadline=None, max_examples=50)
def test_round_trips(graph):
    # A table of features cannot name a modality that has none.
    full = graph.subset(modalities=[m for m in graph.modalities if len(graph.names(m))])
    assert FeatureGraph.from_pandas(graph.to_pandas(), graph.features) == full
    assert as_dict(FeatureGraph.from_pandas(graph.to_pandas())) == as_dict(graph)
    if len(set(map(":".join, graph.features[["modality", "feature"]].to_numpy()))) == len(
        graph.features
    ):
        again = FeatureGraph.from_networkx(graph.to_networkx())
        assert as_dict(again) == as_dict(graph)
        assert again.n_features == graph.n_features


@given(graphs(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_adjacency_of_any_order_is_a_permutation(graph, random):
    order = list(range(graph.n_features))
    table = graph.features
    modalities = list(graph.modalities)
    random.shuffle(modalities)
    stated = {}
    for modality in modalities:
        names = list(table["feature"][table["modality"] == modality])
        random.shuffle(names)
        stated[modality] = names
    place = {
        (m, f): i for i, (m, f) in enumerate(table[["modality", "feature"]].to_numpy().tolist())
    }
    order = [place[m, f] for m, names in stated.items() for f in names]
    whole = graph.adjacency().toarray()
    np.testing.assert_array_equal(graph.adjacency(stated).toarray(), whole[np.ix_(order, order)])
    np.testing.assert_array_equal(whole, whole.T)
    assert not whole.diagonal().any()
    oracle = nx.Graph()
    oracle.add_nodes_from(range(graph.n_features))
    edges = graph.edges
    oracle.add_weighted_edges_from(
        zip(edges.source, edges.target, edges.sign * edges.weight, strict=True)
    )
    expected = nx.to_numpy_array(oracle, nodelist=range(graph.n_features), dtype=np.float32)
    np.testing.assert_array_equal(whole, expected)
    assert graph.degree.tolist() == [oracle.degree[i] for i in range(graph.n_features)]


@given(st.data())
@settings(deadline=None, max_examples=50)
def test_union_is_the_strongest_edge_whatever_the_order(data):
    of = data.draw(features)
    # Signs depend on the pair alone, so graphs over the same features never conflict.
    left, right = data.draw(graphs(of)), data.draw(graphs(of))
    joined, other = as_dict(left.union(right)), as_dict(right.union(left))
    expected = dict(as_dict(left))
    for pair, (sign, weight) in as_dict(right).items():
        expected[pair] = (sign, max(weight, expected.get(pair, (0, 0.0))[1]))
    assert joined == other == expected
    assert left.union(left) == left


@given(graphs(), st.data())
@settings(deadline=None, max_examples=50)
def test_subset_keeps_exactly_the_edges_inside(graph, data):
    nodes = [tuple(row) for row in graph.features[["modality", "feature"]].to_numpy().tolist()]
    kept = set(data.draw(st.lists(st.sampled_from(nodes), unique=True))) if nodes else set()
    wanted = {m: [f for n, f in nodes if n == m and (n, f) in kept] for m in graph.modalities}
    part = graph.subset(wanted)
    assert as_dict(part) == {
        pair: value for pair, value in as_dict(graph).items() if all(end in kept for end in pair)
    }
    assert as_dict(graph.align(wanted)) == as_dict(part)


@given(graphs(), st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_reweight_scales_one_type(graph, factor):
    if "x" not in set(graph.edges.type):
        return
    scaled = as_dict(graph.reweight({"x": factor}))
    kind = dict(zip(as_dict(graph), graph.to_pandas()["type"], strict=True))
    expected = {
        pair: (sign, weight * (factor if kind[pair] == "x" else 1.0))
        for pair, (sign, weight) in as_dict(graph).items()
    }
    assert scaled == {pair: value for pair, value in expected.items() if value[1] > 0}


intervals = st.tuples(st.sampled_from(["chr1", "chr2"]), st.integers(0, 60), st.integers(1, 30))


@given(
    st.lists(st.tuples(intervals, st.sampled_from("+-")), min_size=1, max_size=6),
    st.lists(intervals, min_size=1, max_size=8, unique=True),
    st.integers(0, 20),
)
@settings(deadline=None, max_examples=60)
def test_body_overlap_base_by_base(genes, peaks, upstream):
    table = genes_at(
        {
            f"G{i}": (chrom, start, start + length, strand)
            for i, ((chrom, start, length), strand) in enumerate(genes)
        }
    )
    names = [f"{chrom}_{start}_{start + length}" for chrom, start, length in peaks]
    expected = set()
    for i, ((chrom, start, length), strand) in enumerate(genes):
        first = start - upstream if strand == "+" else start
        last = start + length + (upstream if strand == "-" else 0)
        bases = {base for base in range(first, last) if base >= 0}
        for peak, (other, low, width) in zip(names, peaks, strict=True):
            if other == chrom and bases & set(range(low, low + width)):
                expected.add((f"G{i}", peak))
    # A far pair in common, so that there is always an edge and every chromosome is known.
    far = pd.DataFrame(
        {
            "chrom": ["chr1", "chr2"],
            "start": 9000,
            "end": 9100,
            "strand": "+",
            "gene": ["FAR1", "FAR2"],
        }
    )
    mdata = named({"rna": [*table["gene"], "FAR1", "FAR2"], "atac": [*names, "chr1_9000_9001"]})
    graph = from_coordinates(
        mdata, annotation=pd.concat([table, far], ignore_index=True), rule=GeneBody(upstream)
    )
    found = graph.to_pandas()
    pairs = set(zip(found["source"], found["target"], strict=True))
    assert pairs == expected | {("FAR1", "chr1_9000_9001")}
