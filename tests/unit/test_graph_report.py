"""What ``check`` says about a graph and a MuData."""

from __future__ import annotations

import pandas as pd
import pytest
from tests.graph_helpers import named
from tests.helpers import fingerprint

from mosaicvi import DataError
from mosaicvi.graph import Edges, FeatureGraph


def reasons(report, modality):
    table = report.features[report.features["modality"] == modality]
    return dict(zip(table["feature"], table["reason"], strict=True))


def test_every_reason_is_told_apart():
    graph = FeatureGraph(
        {
            "rna": ["Actb", "ENSMUSG00000000001", "Gad1", "Cd4", "Far", "Bare"],
            "atac": ["chr1:1-5", "chr2:1-5"],
        },
        Edges.of([0, 1, 2, 3], [6, 6, 6, 7]),
        metadata=pd.DataFrame(
            {"reason": [""] * 4 + ["far", None] + [""] * 2, "detail": [""] * 4 + ["why"] + [""] * 3}
        ),
    )
    mdata = named(
        {
            "rna": ["Gad1", "ACTB", "ENSMUSG00000000001.7", "Cd4", "Far", "Bare", "Xkr4"],
            "atac": ["chr1:1-5", "1-1-5", "chr9:1-5", "peak"],
            "adt": ["chr1:1-5", "x"],
            "other": ["x"],
        }
    )
    before = fingerprint(mdata)
    report = graph.check(mdata)
    assert fingerprint(mdata) == before
    assert reasons(report, "rna") == {
        "Gad1": "",
        "ACTB": "case",
        "ENSMUSG00000000001.7": "naming",
        "Cd4": "partner",
        "Far": "far",
        "Bare": "no edge",
        "Xkr4": "absent",
    }
    assert reasons(report, "atac") == {
        "chr1:1-5": "",
        "1-1-5": "naming",
        "chr9:1-5": "assembly",
        "peak": "absent",
    }
    assert set(reasons(report, "other").values()) == {"modality"}
    details = report.features.set_index(["modality", "feature"])["detail"]
    assert "'Actb'" in details["rna", "ACTB"]
    assert "'chr1:1-5'" in details["atac", "1-1-5"]
    assert details["rna", "Far"] == "why"
    assert "'atac'" in details["adt", "x"]
    assert report.modalities.loc["rna"].tolist() == [7, 1, 6, "case"]
    assert (report.n_edges, report.n_edges_used) == (4, 1)
    assert report.ties.loc["rna", "atac"] == report.ties.loc["atac", "rna"] == 1
    assert ("rna", "atac") not in report.untied
    assert ("rna", "adt") in report.untied
    for line in ("rna: 1 of 7 features linked", "1 of 4 edges", "nothing ties 'rna' and 'adt'"):
        assert line in str(report)


def test_ties_are_counted_within_and_between_and_along_paths():
    graph = FeatureGraph({"a": ["1", "2"], "b": ["1"], "c": ["1"]}, Edges.of([0, 0, 2], [1, 2, 3]))
    report = graph.check(named({"a": ["1", "2"], "b": ["1"], "c": ["1"]}))
    assert report.ties.to_numpy().tolist() == [[1, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert report.untied == []
    assert report.features["linked"].all()
    assert report.modalities["main_reason"].tolist() == ["", "", ""]


def test_whole_modality_of_identifiers_is_naming():
    graph = FeatureGraph({"rna": [f"GENE{i}" for i in range(5)]}, Edges.of([0], [1]))
    mdata = named({"rna": [f"ENSG0000000000{i}" for i in range(5)]})
    assert set(reasons(graph.check(mdata), "rna").values()) == {"naming"}


def test_only_a_mudata_can_be_checked():
    graph = FeatureGraph({"rna": ["A"]})
    with pytest.raises(DataError, match="a MuData"):
        graph.check("mdata")
