"""Genes and peaks by coordinates, against an overlap counted pair by pair."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.graph_helpers import genes_at, named
from tests.helpers import fingerprint

from mosaicvi import DataError, MosaicviWarning, RequestError
from mosaicvi.graph import GeneBody, Window, from_coordinates

CHROMOSOMES = ("chr1", "chr2", "chrUn_x1_random")
STYLES = ("{}:{}-{}", "{}_{}_{}", "{}-{}-{}")


def random_case(seed, n_genes=40, n_peaks=120, size=60_000):
    """Genes and peaks; many pairs touch, overlap by one base or miss by one."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, size, n_genes)
    rows = {
        f"g{i}": (
            str(rng.choice(CHROMOSOMES)),
            int(start[i]),
            int(start[i] + rng.integers(1, 9000)),
            str(rng.choice(["+", "-"])),
        )
        for i in range(n_genes)
    }
    genes = genes_at(rows)
    peaks = []
    edges = np.concatenate([genes["start"], genes["end"], genes["end"] + 2000])
    for _ in range(n_peaks):
        low = max(int(rng.choice(edges)) + int(rng.integers(-400, 400)), 0)
        low = low if rng.random() < 0.5 else max(int(rng.choice(edges)) - 300, 0)
        peaks.append((str(rng.choice(CHROMOSOMES)), low, low + 300))
    return genes, list(dict.fromkeys(peaks))


def named_peaks(peaks, style):
    return [style.format(*peak) for peak in peaks]


def links(graph):
    table = graph.to_pandas()
    return dict(
        zip(zip(table["source"], table["target"], strict=True), table["weight"], strict=True)
    )


def naive_body(genes, peaks, names, upstream):
    found = set()
    for gene in genes.itertuples():
        low = gene.start - upstream if gene.strand == "+" else gene.start
        high = gene.end if gene.strand == "+" else gene.end + upstream
        for name, (chrom, start, end) in zip(names, peaks, strict=True):
            if (
                chrom == gene.chrom
                and any(
                    max(low, 0) <= base < high for base in (start, end - 1, *range(start, end, 50))
                )
            ) or (chrom == gene.chrom and start < low < end):
                found.add((gene.gene, name))
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("upstream", [0, 2000])
def test_body_and_promoter_against_naive_overlap(seed, upstream):
    genes, peaks = random_case(seed)
    names = named_peaks(peaks, STYLES[seed % 3])
    mdata = named({"rna": list(genes["gene"]), "atac": names})
    before = fingerprint(mdata)
    graph = from_coordinates(mdata, annotation=genes, rule=GeneBody(upstream))
    assert set(links(graph)) == naive_body(genes, peaks, names, upstream)
    assert set(links(graph).values()) == {1.0}
    assert fingerprint(mdata) == before
    assert graph.n_features == len(genes) + len(peaks)


@pytest.mark.parametrize("anchor", ["start", "body"])
def test_window_against_naive_distance(anchor):
    genes, peaks = random_case(7)
    names = named_peaks(peaks, STYLES[0])
    mdata = named({"rna": list(genes["gene"]), "atac": names})
    rule = Window(3000, half_distance=500, anchor=anchor)
    found = links(from_coordinates(mdata, annotation=genes, rule=rule))
    expected = {}
    for gene in genes.itertuples():
        first, last = gene.start, gene.end - 1
        if anchor == "start":
            first = last = gene.start if gene.strand == "+" else gene.end - 1
        for name, (chrom, start, end) in zip(names, peaks, strict=True):
            distance = 0
            if start > last:
                distance = start - last
            elif end - 1 < first:
                distance = first - (end - 1)
            if chrom == gene.chrom and distance <= 3000:
                expected[gene.gene, name] = 0.5 ** (distance / 500)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[key] for key in expected], list(expected.values()))
    flat = from_coordinates(mdata, annotation=genes, rule=Window(3000, None, anchor))
    assert links(flat).keys() == expected.keys()
    assert set(links(flat).values()) == {1.0}


def test_edge_types_and_metadata():
    genes = genes_at({"A": ("chr1", 5000, 6000, "+"), "B": ("chr1", 20000, 21000, "-")})
    peaks = ["chr1:4000-4500", "chr1:4900-5100", "chr1:5500-5600", "chr1:22000-22500", "chr1:1-9"]
    mdata = named({"rna": ["A", "B", "C"], "atac": peaks})
    graph = from_coordinates(mdata, annotation=genes)
    table = graph.to_pandas().set_index("target")
    assert table["type"].to_dict() == {
        peaks[0]: "promoter",
        peaks[1]: "promoter",
        peaks[2]: "body",
        peaks[3]: "promoter",
    }
    rows = graph.features.set_index("feature")
    assert rows.loc["B", ["chrom", "start", "end", "strand"]].tolist() == [
        "chr1",
        20000,
        21000,
        "-",
    ]
    assert rows.loc["C", "reason"] == "absent"
    assert rows.loc["chr1:1-9", "reason"] == "far"
    assert (rows.loc[["A", *peaks[:4]], "reason"] == "").all()
    assert (graph.edges.sign == 1).all()


def test_coordinates_in_var():
    genes = genes_at({"A": ("chr1", 5000, 6000, "-"), "B": ("chr1", 100, 200, "+")})
    var = genes.set_index("gene").astype({"chrom": "category"})
    peaks = pd.DataFrame(
        {"chromosome": ["chr1", "chr1"], "start": [7000, 150], "end": [7100, 160]},
        index=["peak1", "peak2"],
    )
    mdata = named({"rna": var, "atac": peaks})
    expected = {("A", "peak1"), ("B", "peak2")}
    assert set(links(from_coordinates(mdata))) == expected
    numbered = named({"rna": var.assign(strand=[-1, 1]), "atac": peaks})
    assert set(links(from_coordinates(numbered))) == expected
    interval = pd.DataFrame({"interval": ["chr1:7000-7100", "chr1:150-160"]}, index=peaks.index)
    assert set(links(from_coordinates(named({"rna": var, "atac": interval})))) == expected
    var.loc["A", "chrom"] = np.nan
    graph = from_coordinates(named({"rna": var, "atac": peaks}))
    assert graph.features.set_index("feature").loc["A", "detail"] == "no coordinates in var"
    unstranded = named({"rna": var.drop(columns="strand"), "atac": peaks})
    with pytest.raises(DataError, match=r"GeneBody\(upstream=0\)"):
        from_coordinates(unstranded)
    assert set(links(from_coordinates(unstranded, rule=GeneBody(0)))) == {("B", "peak2")}


def test_identifiers_versions_and_several_loci():
    genes = genes_at({"A": ("chr1", 100, 200, "+"), "B": ("chr1", 900, 950, "+")})
    genes["gene_id"] = ["ENSG00000000001", "ENSG00000000002"]
    mdata = named({"rna": ["ENSG00000000001.5", "ENSG00000000002"], "atac": ["chr1:150-160"]})
    graph = from_coordinates(mdata, annotation=genes, rule=GeneBody(0))
    assert set(links(graph)) == {("ENSG00000000001.5", "chr1:150-160")}
    symbols = pd.DataFrame({"symbol": ["A", "B"]}, index=["x", "y"])
    mdata = named({"rna": symbols, "atac": ["chr1:150-160"]})
    graph = from_coordinates(mdata, annotation=genes, gene_symbols="symbol", rule=GeneBody(0))
    assert set(links(graph)) == {("x", "chr1:150-160")}
    twice = pd.concat([genes, genes.assign(start=500, end=600)], ignore_index=True)
    twice["biotype"] = ["protein_coding", "TEC", "lncRNA", "TEC"]
    mdata = named({"rna": ["A", "B"], "atac": ["chr1:150-160", "chr1:510-520", "chr1:910-920"]})
    graph = from_coordinates(mdata, annotation=twice, rule=GeneBody(0))
    assert set(links(graph)) == {
        ("A", "chr1:150-160"),
        ("B", "chr1:510-520"),
        ("B", "chr1:910-920"),
    }


def test_chromosome_names():
    genes = genes_at({"A": ("1", 100, 200, "+"), "B": ("MT", 100, 200, "+")})
    peaks = ["chr1:150-160", "chrM:150-160"]
    mdata = named({"rna": ["A", "B"], "atac": peaks})
    with pytest.raises(DataError) as caught:
        from_coordinates(mdata, annotation=genes)
    for part in ("'chr1'", "'1'", "chromosomes='auto'", "'chrM': 'MT'", "modality 'atac'"):
        assert part in str(caught.value)
    expected = {("A", peaks[0]), ("B", peaks[1])}
    assert set(links(from_coordinates(mdata, annotation=genes, chromosomes="auto"))) == expected
    mapping = {"chr1": "1", "chrM": "MT"}
    assert set(links(from_coordinates(mdata, annotation=genes, chromosomes=mapping))) == expected
    with pytest.warns(MosaicviWarning, match="1 of 2 peaks"):
        graph = from_coordinates(mdata, annotation=genes, chromosomes={"chr1": "1"})
    rows = graph.features.set_index("feature")
    assert rows.loc[peaks[1], "reason"] == "chromosome"
    with pytest.raises(RequestError, match="'exact', 'auto'"):
        from_coordinates(mdata, annotation=genes, chromosomes="ucsc")


GENES = genes_at({"ACTB": ("chr1", 100, 200, "+")})
GOOD = {"rna": ["ACTB"], "atac": ["chr1:150-160"]}


@pytest.mark.parametrize(
    ("features", "arguments", "error", "words"),
    [
        (GOOD, {"genes": "gex"}, RequestError, ["'gex'", "'rna'", "key 'genes'"]),
        (GOOD, {"peaks": "peaks"}, RequestError, ["'peaks'", "'atac'"]),
        (GOOD, {"annotation": None}, DataError, ["'rna'", "fetch_annotation"]),
        (GOOD, {"annotation": GENES.drop(columns="strand")}, DataError, ["'strand'", "read_ann"]),
        (
            GOOD,
            {"annotation": GENES.assign(strand=".")},
            DataError,
            ["'ACTB'", "'.'", "upstream=0"],
        ),
        (GOOD, {"annotation": GENES.assign(end=50)}, DataError, ["'ACTB'", "end not after"]),
        (GOOD, {"annotation": GENES.assign(start="x")}, DataError, ["'ACTB'", "whole number"]),
        (GOOD, {"gene_symbols": "symbol"}, RequestError, ["'symbol'"]),
        ({**GOOD, "atac": ["chr1:150-160", "peak7"]}, {}, DataError, ["1 of 2", "'peak7'", "var"]),
        ({**GOOD, "atac": ["chr1:160-150"]}, {}, DataError, ["chr1:160-150", "start 160"]),
        ({**GOOD, "atac": ["chr1:5000-5001"]}, {}, DataError, ["no feature is linked", "'far'"]),
        ({**GOOD, "rna": ["MYC"]}, {}, DataError, ["no gene is in the annotation", "gene_symbols"]),
        (GOOD, {"rule": "body"}, RequestError, ["'body'", "GeneBody"]),
        (GOOD, {"peaks": "rna"}, RequestError, ["the same modality"]),
        (GOOD, {"annotation": GENES[:0]}, DataError, ["no gene is in the annotation", "no genes"]),
        (GOOD, {"assembly": "hg99"}, RequestError, ["'hg99'", "hg38"]),
        (GOOD, {"on_mismatch": "fix"}, RequestError, ["'fix'", "'warn'"]),
    ],
)
def test_bad_input_is_refused(features, arguments, error, words):
    mdata = named(features)
    before = fingerprint(mdata)
    with pytest.raises(error) as caught:
        from_coordinates(mdata, **{"annotation": GENES, **arguments})
    for word in words:
        assert word in str(caught.value)
    assert fingerprint(mdata) == before


def test_columns_must_be_complete():
    var = pd.DataFrame({"chrom": ["chr1"], "start": [5]}, index=["p"])
    with pytest.raises(DataError, match="no column for 'end'"):
        from_coordinates(named({"rna": ["ACTB"], "atac": var}), annotation=GENES)
    var = pd.DataFrame({"chrom": ["chr1"], "start": [5.5], "end": [8]}, index=["p"])
    with pytest.raises(DataError, match="whole number"):
        from_coordinates(named({"rna": ["ACTB"], "atac": var}), annotation=GENES)
    var = pd.DataFrame({"chrom": [None], "start": [5], "end": [8]}, index=["p"])
    with pytest.raises(DataError, match="no coordinates"):
        from_coordinates(named({"rna": ["ACTB"], "atac": var}), annotation=GENES)


def test_strands_of_other_genes_do_not_matter():
    genes = genes_at(
        {
            "ACTB": ("chr1", 100, 200, "+"),
            "MYC": ("chr1", 5000, 5100, "."),
            "CD4": ("chr1", 9000, 9100, "-"),
        }
    )
    mdata = named({"rna": ["ACTB", "CD4"], "atac": ["chr1:90-95", "chr1:9110-9120"]})
    assert links(from_coordinates(mdata, annotation=genes)) == links(
        from_coordinates(mdata, annotation=genes[genes["gene"] != "MYC"])
    )
    mdata = named({"rna": ["ACTB", "MYC"], "atac": ["chr1:90-95"]})
    with pytest.raises(DataError, match=r"1 features have no strand, the first 'MYC' with '\.'"):
        from_coordinates(mdata, annotation=genes)
    assert from_coordinates(mdata, annotation=genes, rule=Window(100, anchor="body")).n_edges == 1


def test_genes_of_another_species_are_refused():
    names = [f"Gene{c}" for c in "abcdefghijkl"]
    genes = genes_at({name.upper(): ("chr1", 100, 200, "+") for name in names})
    mdata = named({"rna": names, "atac": ["chr1:150-160"]})
    with pytest.raises(DataError) as caught:
        from_coordinates(mdata, annotation=genes)
    for word in ("mixed species", "'Genea' here, 'GENEA' there", "12 of 12", "orthologues"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "make", [lambda: GeneBody(-1), lambda: GeneBody(1.5), lambda: Window(half_distance=0)]
)
def test_bad_rules_are_refused(make):
    with pytest.raises(RequestError, match="bases"):
        make()
    with pytest.raises(RequestError, match="anchor"):
        Window(anchor="end")


@pytest.mark.parametrize("missing", [np.nan, None, ""])
def test_genes_without_a_name_are_not_those_that_the_annotation_does_not_name(missing):
    genes = genes_at({"CD4": ("chr1", 100, 200, "+"), "MYC": ("chr1", 900, 950, "+")})
    genes = genes.assign(gene=["CD4", missing], biotype=["protein_coding", missing])
    var = pd.DataFrame({"symbol": ["CD4", missing, missing]}, index=["x", "y", "z"])
    mdata = named({"rna": var, "atac": ["chr1:150-160", "chr1:910-920"]})
    for annotation in (genes, genes.convert_dtypes()):
        graph = from_coordinates(mdata, annotation=annotation, gene_symbols="symbol")
        assert set(links(graph)) == {("x", "chr1:150-160")}
        rows = graph.features.set_index("feature")
        assert rows.loc[["y", "z"], "detail"].tolist() == ["not in the annotation"] * 2


def test_chromosomes_whose_genes_do_not_code_are_known():
    genes = genes_at({"CD4": ("chr1", 100, 200, "+"), "LNC": ("KI270728.1", 100, 200, "-")})
    genes["biotype"] = ["protein_coding", "lncRNA"]
    for peaks in (["chr1:150-160", "KI270728.1:210-220"], ["KI270728.1:210-220"]):
        graph = from_coordinates(named({"rna": ["CD4", "LNC"], "atac": peaks}), annotation=genes)
        assert ("LNC", "KI270728.1:210-220") in links(graph)
        assert graph.features.set_index("feature").loc["KI270728.1:210-220", "reason"] == ""


def test_places_that_are_transcription_starts_are_told_of():
    # As Cell Ranger ARC writes them: from the first start of a transcript to the last.
    var = pd.DataFrame({"interval": ["chr1:100-101", "chr1:900-950"]}, index=["CD4", "MYC"])
    mdata = named({"rna": var, "atac": ["chr1:90-110", "chr1:150-160"]})
    with pytest.warns(MosaicviWarning, match=r"'rna'.*1 of 2 genes are one base long.*annotation="):
        graph = from_coordinates(mdata, rule=GeneBody(0))
    assert set(links(graph)) == {("CD4", "chr1:90-110")}
    stranded = named({"rna": var.assign(strand="+"), "atac": ["chr1:90-110"]})
    assert from_coordinates(stranded, rule=Window(100)).n_edges == 1


def test_a_rule_is_made_before_it_is_passed():
    with pytest.raises(RequestError, match=r"'rule'.*Expected: GeneBody\(...\)"):
        from_coordinates(named({"rna": ["ACTB"], "atac": ["chr1:1-2"]}), rule=GeneBody)


def test_a_mapping_is_offered_for_the_chromosomes_that_lack_one():
    genes = genes_at({"A": ("1", 100, 200, "+"), "B": ("2", 100, 200, "+")})
    mdata = named({"rna": ["A", "B"], "atac": ["chr1:150-160", "chr2:150-160", "chr9:1-9"]})
    with pytest.warns(MosaicviWarning, match=r"1 of 3 peaks.*'chr9'") as caught:
        from_coordinates(mdata, annotation=genes, chromosomes="auto")
    assert "chromosomes='auto'" not in str(caught[0].message)
    with pytest.warns(MosaicviWarning, match=r"chromosomes='auto', that is \{'chr2': '2'\}"):
        from_coordinates(mdata, annotation=genes, chromosomes={"chr1": "1"})
