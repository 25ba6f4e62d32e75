"""Gene annotations: GTF and GFF3 as read, files that break off, and what is fetched."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import re

import pytest
import requests
from tests.graph_helpers import named

from mosaicvi import DataError, DownloadError, RequestError
from mosaicvi._settings import settings
from mosaicvi.graph import _annotation, fetch_annotation, from_coordinates, read_annotation

GTF = """#!genome-build GRCm38.p6
#!genome-version GRCm38
1\thavana\tgene\t101\t200\t.\t+\t.\tgene_id "ENSMUSG01"; gene_version "5"; gene_name "Gad1"; \
gene_source "havana"; gene_biotype "protein_coding";
1\thavana\ttranscript\t101\t200\t.\t+\t.\tgene_id "ENSMUSG01"; transcript_id "T1";
MT\thavana\tgene\t1\t7\t.\t-\t.\tgene_id "ENSMUSG02"; gene_biotype "Mt_tRNA";
MT\thavana\texon\t1\t7\t.\t-\t.\tgene_id "ENSMUSG02"; transcript_id "T2";
"""

GFF3 = """##gff-version 3
#description: evidence-based annotation of the human genome (GRCh38), version 41 (Ensembl 107)
chr1\tHAVANA\tgene\t101\t200\t.\t+\t.\tID=ENSG01.5;gene_id=ENSG01.5;gene_type=lncRNA;gene_name=A
chr1\tHAVANA\ttranscript\t101\t200\t.\t+\t.\tID=T1;Parent=ENSG01.5;gene_id=ENSG01.5;gene_name=A
###
chrY\tENSEMBL\tgene\t11\t20\t.\t-\t.\tID=ENSG02.1_2_PAR_Y;gene_id=ENSG02.1_2_PAR_Y;gene_name=B
chrY\tENSEMBL\ttranscript\t11\t20\t.\t-\t.\tID=T2;Parent=ENSG02.1_2_PAR_Y
"""

COLUMNS = ["chrom", "start", "end", "gene", "strand", "gene_id", "biotype"]


def write(folder, text, name="genes.gtf"):
    path = folder / name
    content = text.encode()
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    return path


@pytest.mark.parametrize("name", ["genes.gtf", "genes.gtf.gz"])
def test_gtf_is_read(tmp_path, name, monkeypatch):
    monkeypatch.setattr(_annotation, "_CHUNK", 2)
    table = read_annotation(write(tmp_path, GTF, name))
    assert list(table.columns) == COLUMNS
    assert table.to_numpy().tolist() == [
        ["1", 100, 200, "Gad1", "+", "ENSMUSG01", "protein_coding"],
        ["MT", 0, 7, "ENSMUSG02", "-", "ENSMUSG02", "Mt_tRNA"],
    ]
    assert table.attrs["assembly"] == "mm10"


def test_gff3_is_read(tmp_path):
    table = read_annotation(str(write(tmp_path, GFF3, "genes.gff3")))
    assert table.to_numpy().tolist() == [
        ["chr1", 100, 200, "A", "+", "ENSG01", "lncRNA"],
        ["chrY", 10, 20, "B", "-", "ENSG02_PAR_Y", ""],
    ]
    assert table.attrs["assembly"] == "hg38"


def test_gtf_goes_into_the_builder(tmp_path):
    mdata = named({"rna": ["Gad1", "Xkr4"], "atac": ["1:150-160", "1:900-950"]})
    graph = from_coordinates(mdata, annotation=write(tmp_path, GTF))
    assert graph.to_pandas()[["source", "target"]].to_numpy().tolist() == [["Gad1", "1:150-160"]]
    with pytest.raises(DataError, match="the annotation is of mm10"):
        from_coordinates(mdata, annotation=write(tmp_path, GTF), assembly="mm39")


def test_truncated_gzip_is_refused(tmp_path):
    path = write(tmp_path, GTF * 500, "genes.gtf.gz")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"truncated: the compressed stream breaks off.*again"):
        read_annotation(path)


@pytest.mark.parametrize("kept", [4, 25, 40, 60])
def test_truncated_text_is_refused(tmp_path, kept):
    last = GTF.splitlines()[-1]
    text = GTF[: GTF.index(last)] + last[:kept]
    with pytest.raises(DataError, match="truncated"):
        read_annotation(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["rows of kind none"]),
        ("chr1\t5\t9\tx\n", ["cannot be read as GTF", "ninth column", "pass a DataFrame"]),
        (GTF.replace("\tgene\t", "\tCDS\t"), ["'CDS'", "none of 'gene'"]),
        (GTF.replace("gene_id", "id"), ["no gene_id"]),
        (GTF.replace("\t101\t", "\tx\t"), ["malformed", "ENSMUSG01"]),
        (GTF.replace("\t101\t", "\t900\t"), ["malformed", "ENSMUSG01"]),
        (GTF.replace("\t+\t", "\tplus\t"), ["malformed", "ENSMUSG01"]),
    ],
)
def test_other_files_are_refused(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        read_annotation(write(tmp_path, text))
    for word in (*words, "genes.gtf"):
        assert word in str(caught.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"there is no file.*fetch_annotation"):
        read_annotation(tmp_path / "nothing.gtf")
    with pytest.raises(DataError, match=r"fetch_annotation\('mm10'\)"):
        read_annotation("mm10")
    with pytest.raises(DataError, match="cannot be read as GTF"):
        read_annotation(tmp_path)


def test_addresses_are_pinned():
    assert set(_annotation.ANNOTATIONS) == {"hg38", "hg19", "mm10", "mm39"}
    for source in _annotation.ANNOTATIONS.values():
        assert re.fullmatch(r"[0-9a-f]{64}", source.sha256)
        assert source.address.startswith("https://ftp.ebi.ac.uk/pub/databases/gencode/Gencode_")
        assert re.search(r"/release_M?\d+/", source.address)
        assert source.address.endswith("/" + source.name)
        assert "latest" not in source.address


def test_fetched_annotation_is_checked_and_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "_data_dir", tmp_path)
    asked = []

    def refuse(url, *args, **kwargs):
        asked.append(url)
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr(requests.Session, "request", lambda self, method, url, **k: refuse(url))
    source = _annotation.ANNOTATIONS["mm10"]
    with pytest.raises(DownloadError, match="the annotation of mm10"):
        fetch_annotation("mm10")
    assert asked == [source.address]
    content = gzip.compress(GFF3.encode())
    pinned = dataclasses.replace(source, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(_annotation.ANNOTATIONS, "mm10", pinned)
    (tmp_path / source.name).write_bytes(content)
    assert read_annotation(fetch_annotation("mm10"))["gene"].tolist() == ["A", "B"]
    with pytest.raises(RequestError, match=r"'hg17'.*'hg38'"):
        fetch_annotation("hg17")


def test_unknown_strands_of_gff3_do_not_spoil_the_file(tmp_path):
    path = write(tmp_path, GFF3.replace("20\t.\t-", "20\t.\t?"), "genes.gff3")
    assert read_annotation(path)["strand"].tolist() == ["+", "?"]
    mdata = named({"rna": ["A", "B"], "atac": ["chr1:150-160"]})
    with pytest.raises(DataError, match=r"no strand, the first 'B' with '\?'"):
        from_coordinates(mdata, annotation=path)
    mdata = named({"rna": ["A"], "atac": ["chr1:150-160"]})
    assert from_coordinates(mdata, annotation=path).n_edges == 1
