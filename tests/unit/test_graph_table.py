"""Graphs from tables: weights, signs, repeated rows, and rows that name nothing."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from tests.graph_helpers import named
from tests.helpers import fingerprint

from mosaicvi import DataError, RequestError
from mosaicvi.graph import from_table

MDATA = named({"rna": ["A", "B", "C"], "atac": ["p", "q"]})


def edges(graph):
    table = graph.to_pandas()
    return {
        (row.source, row.target): (row.sign, round(row.weight, 6)) for row in table.itertuples()
    }


def test_two_columns_are_enough(caplog):
    before = fingerprint(MDATA)
    table = pd.DataFrame({"gene": ["A", "B", "Z"], "peak": ["p", "q", "p"], "other": [1, 2, 3]})
    with caplog.at_level(logging.INFO, "mosaicvi"):
        graph = from_table(MDATA, table, "rna", "atac", type="contact")
    assert edges(graph) == {("A", "p"): (1, 1.0), ("B", "q"): (1, 1.0)}
    assert "1 of 3 rows" in caplog.text
    assert set(graph.to_pandas()["type"]) == {"contact"}
    assert graph.features.set_index("feature").loc["C", "reason"] == "absent"
    assert (graph.features.set_index("feature").loc[["A", "B", "p", "q"], "reason"] == "").all()
    assert fingerprint(MDATA) == before


def test_weights_and_signs():
    table = pd.DataFrame({"t": ["p", "q", "p"], "s": ["A", "A", "B"], "w": [0.2, 1, 0], "d": 1})
    table.loc[1, "d"] = -1
    graph = from_table(MDATA, table, "rna", "atac", source="s", target="t", weight="w", sign="d")
    assert edges(graph) == {("A", "p"): (1, 0.2), ("A", "q"): (-1, 1.0)}
    for kind in (object, "category"):
        table["d"] = pd.Series(["+", "-", "+"], dtype=kind)
        assert (
            from_table(MDATA, table, "rna", "atac", source="s", target="t", weight="w", sign="d")
            == graph
        )


def test_scores_are_rescaled_only_when_asked():
    table = pd.DataFrame({"s": ["A", "B", "C"], "t": ["p", "p", "q"], "score": [2.0, 8.0, 8.0]})
    with pytest.raises(DataError, match=r"3 of 3 weights are above 1.*8.*rescale='max'"):
        from_table(MDATA, table, "rna", "atac", weight="score")
    by_max = from_table(MDATA, table, "rna", "atac", weight="score", rescale="max")
    assert edges(by_max) == {("A", "p"): (1, 0.25), ("B", "p"): (1, 1.0), ("C", "q"): (1, 1.0)}
    by_rank = from_table(MDATA, table, "rna", "atac", weight="score", rescale="rank")
    endless = table.assign(score=[2.0, np.inf, np.inf])
    for rescale in ("max", None):
        with pytest.raises(DataError, match=r"'score': 2 of 3 weights are infinite.*'rank'"):
            from_table(MDATA, endless, "rna", "atac", weight="score", rescale=rescale)
    assert from_table(MDATA, endless, "rna", "atac", weight="score", rescale="rank") == by_rank
    third, mean = round(1 / 3, 6), round(2.5 / 3, 6)
    assert edges(by_rank) == {("A", "p"): (1, third), ("B", "p"): (1, mean), ("C", "q"): (1, mean)}


def test_unknown_signs_are_said_or_dropped():
    table = pd.DataFrame({"s": ["A", "B", "C"], "t": ["p", "p", "q"], "mor": [0, -1, np.nan]})
    with pytest.raises(DataError, match=r"2 of 3 signs are unknown.*unknown_sign='drop'"):
        from_table(MDATA, table, "rna", "atac", sign="mor")
    dropped = from_table(MDATA, table, "rna", "atac", sign="mor", unknown_sign="drop")
    assert edges(dropped) == {("B", "p"): (-1, 1.0)}
    assert dropped.features.set_index("feature").loc["A", "reason"] == "partner"
    kept = from_table(MDATA, table, "rna", "atac", sign="mor", unknown_sign="positive")
    assert edges(kept)["A", "p"] == (1, 1.0)


def test_within_one_modality():
    table = pd.DataFrame({"tf": ["A", "B"], "target": ["B", "C"]})
    graph = from_table(MDATA, table, "rna", "rna")
    assert graph.modalities == ("rna",)
    assert edges(graph) == {("A", "B"): (1, 1.0), ("B", "C"): (1, 1.0)}
    loop = pd.DataFrame({"tf": ["A"], "target": ["A"]})
    with pytest.raises(DataError, match="itself"):
        from_table(MDATA, loop, "rna", "rna")
    both = pd.DataFrame({"tf": ["A", "B"], "target": ["B", "A"]})
    with pytest.raises(DataError, match="duplicated"):
        from_table(MDATA, both, "rna", "rna")
    assert from_table(MDATA, both, "rna", "rna", duplicates="strongest").n_edges == 1


def test_symbols_in_a_column():
    var = pd.DataFrame({"symbol": ["A", "B"]}, index=["x", "y"])
    mdata = named({"rna": var, "atac": ["p"]})
    table = pd.DataFrame({"s": ["B"], "t": ["p"]})
    assert edges(from_table(mdata, table, "rna", "atac", gene_symbols="symbol")) == {
        ("y", "p"): (1, 1.0)
    }
    var = pd.DataFrame({"symbol": ["A", "A"]}, index=["x", "y"])
    mdata = named({"rna": var, "atac": ["p"]})
    with pytest.raises(DataError, match="several features: 'A'"):
        from_table(mdata, table, "rna", "atac", gene_symbols="symbol")


ROWS = {"s": ["A", "B"], "t": ["p", "q"]}


@pytest.mark.parametrize(
    ("table", "arguments", "error", "words"),
    [
        ({**ROWS, "w": [-1, 0.5]}, {"weight": "w"}, DataError, ["1 of 2", "negative", "sign"]),
        ({**ROWS, "w": ["x", 1]}, {"weight": "w"}, DataError, ["no numbers", "'w'"]),
        ({**ROWS, "w": [2, -3]}, {"sign": "w"}, DataError, ["neither 1 nor -1", "numpy.sign"]),
        ({**ROWS, "w": ["+", "up"]}, {"sign": "w"}, DataError, ["1 of 2", "'up'", "map"]),
        (ROWS, {"weight": "w"}, RequestError, ["'w'", "'s', 't'"]),
        (ROWS, {"rescale": "log"}, RequestError, ["'log'", "'rank'"]),
        (ROWS, {"unknown_sign": "guess"}, RequestError, ["'guess'"]),
        ({"s": ["A", None], "t": ["p", "q"]}, {}, DataError, ["1 of 2 names", "dropna"]),
        ({"s": ["A"]}, {}, DataError, ["two columns"]),
        ({"s": ["X"], "t": ["Y"]}, {}, DataError, ["no feature is linked", "'absent'", "'rna'"]),
        ({"s": ["A"], "t": ["Y"]}, {}, DataError, ["no feature is linked", "modality 'atac'"]),
        ({"s": ["A"], "t": ["P"]}, {}, DataError, ["'atac'", "case"]),
        (
            {"s": ["A", "A"], "t": ["p", "p"], "d": [1, -1]},
            {"sign": "d"},
            DataError,
            ["both signs"],
        ),
    ],
)
def test_bad_input_is_refused(table, arguments, error, words):
    before = fingerprint(MDATA)
    with pytest.raises(error) as caught:
        from_table(MDATA, pd.DataFrame(table), "rna", "atac", **arguments)
    for word in words:
        assert word in str(caught.value)
    assert fingerprint(MDATA) == before


def test_unknown_modality_and_no_table():
    with pytest.raises(RequestError, match=r"'adt'.*'rna', 'atac'"):
        from_table(MDATA, pd.DataFrame(ROWS), "rna", "adt")
    with pytest.raises(DataError, match="dict"):
        from_table(MDATA, ROWS, "rna", "atac")


def test_other_species_is_refused():
    mdata = named({"rna": [f"Gene{i}" for i in "abcdefghijkl"], "atac": ["p"]})
    table = pd.DataFrame({"s": [f"GENE{i}" for i in "ABCDEFGHIJKL"], "t": "p"})
    with pytest.raises(DataError, match=r"mixed species.*orthologues"):
        from_table(mdata, table, "rna", "atac")


def test_columns_may_be_numbered():
    table = pd.DataFrame([[0.5, "p", "A"], [0.25, "q", "B"]])
    graph = from_table(MDATA, table, "rna", "atac", source=2, target=1, weight=0)
    assert edges(graph) == {("A", "p"): (1, 0.5), ("B", "q"): (1, 0.25)}
    swapped = from_table(
        MDATA, table[[1, 2]].set_axis([0, 1], axis=1), "rna", "atac", source=1, target=0
    )
    assert set(edges(swapped)) == {("A", "p"), ("B", "q")}


@pytest.mark.parametrize("rescale", [None, "max"])
def test_weights_of_zero_link_nothing(rescale):
    table = pd.DataFrame({"s": ["A", "B"], "t": ["p", "q"], "w": [0.0, 0.0]})
    with pytest.raises(DataError, match=r"no feature is linked.*without sign or weight"):
        from_table(MDATA, table, "rna", "atac", weight="w", rescale=rescale)
    table["w"] = [0.5, 0.0]
    graph = from_table(MDATA, table, "rna", "atac", weight="w", rescale=rescale)
    assert graph.features.set_index("feature").loc[["B", "q"], "reason"].tolist() == ["partner"] * 2


def test_features_without_a_symbol_are_left_alone():
    var = pd.DataFrame({"symbol": ["A", np.nan, np.nan, ""]}, index=["x", "y", "z", "w"])
    mdata = named({"rna": var, "atac": ["p", "q"]})
    table = pd.DataFrame({"s": ["A", "nan", ""], "t": ["p", "q", "q"]})
    graph = from_table(mdata, table, "rna", "atac", gene_symbols="symbol")
    assert edges(graph) == {("x", "p"): (1, 1.0)}
    with pytest.raises(RequestError, match=r"'smybol'.*'rna', 'atac'.*'symbol'"):
        from_table(mdata, table, "rna", "atac", gene_symbols="smybol")
