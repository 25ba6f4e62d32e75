"""Gene sets as hubs of a feature graph."""

from __future__ import annotations

import gzip

import pandas as pd
import pytest
from tests.graph_helpers import named

from mosaicvi import DataError, RequestError
from mosaicvi.graph import from_gene_sets
from mosaicvi.graph._gene_sets import read_sets

GMT = "SET_A\thttp://a\tG1\tG2\tG2\nSET_B\t\tG2\tG9\n\nSET_C\tx\tG8\t\n"
MDATA = named({"rna": ["G1", "G2", "G3", "g9"], "protein": ["G2", "x"]})


def members(graph):
    table = graph.to_pandas()
    return set(zip(table["source_modality"], table["source"], table["target"], strict=True))


@pytest.mark.parametrize("name", ["sets.gmt", "sets.gmt.gz"])
def test_gmt(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(GMT.encode()) if name.endswith("gz") else GMT.encode())
    graph = from_gene_sets(MDATA, path)
    assert members(graph) == {
        ("rna", "G1", "SET_A"),
        ("rna", "G2", "SET_A"),
        ("rna", "G2", "SET_B"),
    }
    assert list(graph.names("gene_set")) == ["SET_A", "SET_B"]
    reasons = graph.features.set_index("feature")["reason"]
    assert reasons[["G1", "G3", "g9"]].tolist() == ["", "absent", "case"]
    assert set(graph.to_pandas()["type"]) == {"gene set"}


def test_several_modalities_are_tied_by_their_sets():
    sets = {"A": ["G1", "G2"], "B": ["G1"]}
    graph = from_gene_sets(MDATA, sets, ["rna", "protein"], set_modality="set", min_genes=2)
    assert members(graph) == {("rna", "G1", "A"), ("rna", "G2", "A"), ("protein", "G2", "A")}
    report = graph.check(MDATA)
    assert report.untied == []
    assert report.ties.loc["rna", "set"] == 2
    assert report.modalities["n_linked"].to_dict() == {"rna": 2, "protein": 1}
    assert from_gene_sets(MDATA, sets).check(MDATA).untied == [("rna", "protein")]
    order = {"rna": ["G1"], "set": graph.names("set")}
    assert graph.adjacency(order).toarray().tolist() == [[0.0, 1.0], [1.0, 0.0]]
    small = from_gene_sets(MDATA, {"A": ["G1", "G2"], "B": ["G3"]}, min_genes=2)
    assert small.features.set_index("feature").loc["G3", "reason"] == "small set"


def test_a_string_is_one_gene():
    assert read_sets({"A": "CD4", "B": ["CD8A"]}) == {"A": ["CD4"], "B": ["CD8A"]}
    assert members(from_gene_sets(MDATA, {"A": "G1"})) == {("rna", "G1", "A")}


def test_sets_have_names():
    with pytest.raises(DataError, match=r"'gene_sets'.*found list.*name the sets"):
        from_gene_sets(MDATA, [["G1", "G2"]])
    with pytest.raises(DataError, match="found NoneType"):
        read_sets(None)


def test_symbols_in_a_column():
    var = pd.DataFrame({"symbol": ["G1", "G1"]}, index=["x", "y"])
    graph = from_gene_sets(named({"rna": var}), {"A": ["G1"]}, gene_symbols="symbol")
    assert members(graph) == {("rna", "x", "A"), ("rna", "y", "A")}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["no gene set"]),
        (b"SET_A\tx\n", ["line 1", "no gene"]),
        (b"A\tx\tG1\nA\tx\tG2\n", ["line 2", "second time"]),
        (gzip.compress(GMT.encode() * 50)[:40], ["truncated"]),
        (b"\xff\xfe\x00", ["no text"]),
    ],
)
def test_bad_files_are_refused(tmp_path, content, words):
    path = tmp_path / "sets.gmt"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        from_gene_sets(MDATA, path)
    for word in words:
        assert word in str(caught.value)


def test_bad_requests_are_refused(tmp_path):
    with pytest.raises(DataError, match="no file"):
        from_gene_sets(MDATA, tmp_path / "none.gmt")
    with pytest.raises(DataError, match=r"no feature is linked.*'absent'"):
        from_gene_sets(MDATA, {"A": ["Z"]})
    with pytest.raises(DataError, match="no gene in any of 2 sets"):
        from_gene_sets(MDATA, {"A": [], "B": []})
    with pytest.raises(DataError, match="no set has 3 members"):
        from_gene_sets(MDATA, {"A": ["G1"]}, min_genes=3)
    with pytest.raises(RequestError, match="set_modality"):
        from_gene_sets(MDATA, {"A": ["G1"]}, set_modality="protein")
    with pytest.raises(RequestError, match="'gex'"):
        from_gene_sets(MDATA, {"A": ["G1"]}, "gex")
    with pytest.raises(RequestError, match="one or more modalities"):
        from_gene_sets(MDATA, {"A": ["G1"]}, [])
    mouse = named({"rna": [f"Gene{i}" for i in "abcdefghijkl"]})
    with pytest.raises(DataError, match="mixed species"):
        from_gene_sets(mouse, {"A": [f"GENE{i}" for i in "ABCDEFGHIJKL"]})


def test_missing_names_are_no_genes():
    var = pd.DataFrame({"symbol": ["G1", float("nan"), None]}, index=["x", "y", "z"])
    long = pd.DataFrame({"source": ["A", "A", "B"], "target": ["G1", None, "G1"]})
    for sets in ({"A": ["G1", float("nan"), "", None], "B": "G1"}, long):
        graph = from_gene_sets(named({"rna": var}), sets, gene_symbols="symbol")
        assert members(graph) == {("rna", "x", "A"), ("rna", "x", "B")}
    with pytest.raises(RequestError, match=r"'smybol'.*'rna'.*'symbol'"):
        from_gene_sets(named({"rna": var}), {"A": ["G1"]}, gene_symbols="smybol")


def test_wide_tables_of_any_numbers():
    index = ["G1", "G2", "G3"]
    for kind in ("boolean", "Int64", "float64"):
        table = pd.DataFrame({"A": pd.Series([1, None, 0], index=index, dtype=kind)})
        assert read_sets(table) == {"A": ["G1"]}
    with pytest.raises(DataError, match="'A' a second time"):
        read_sets(pd.DataFrame([[1, 0]], index=["G1"], columns=["A", "A"]))


def test_a_mark_of_the_encoding_is_no_name(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_bytes(b"\xef\xbb\xbfA\tx\tG1\r\n\r\nB\t\tG2\r\n")
    assert read_sets(path) == {"A": ["G1"], "B": ["G2"]}
    with pytest.raises(DataError, match="cannot be read as GMT"):
        read_sets(tmp_path)
