"""Feature graphs of real data: links of SNARE-seq, real panels of antibodies, real gene sets."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.graph_helpers import named
from tests.helpers import fingerprint

from mosaicvi import DataError, MosaicviWarning, datasets
from mosaicvi.graph import Window, from_coordinates, from_gene_sets, from_names, from_table
from mosaicvi.graph._antigens import antigens, read_antibody

ANNOTATION_DIR = "MOSAICVI_ANNOTATION_DIR"

FILES = {
    "snareseq_cortex": tuple(
        f"snareseq_{name}"
        for name in (
            *("GxC1.npz", "RxC1.npz", "GxR.npz"),
            *("genes.txt", "regions.txt", "meta_c1.csv"),
        )
    ),
    "pbmc10k_cite": ("pbmc10k_harmo_rna.csv.gz", "pbmc10k_harmo_pro.csv.gz"),
    "pbmc_mosaic": ("quickstart_pbmc_mosaic.h5mu",),
    "sln_unpaired": (
        "sln_d2_harmo_rna_seurat.csv.gz",
        "sln_d1_harmo_pro_seurat.csv.gz",
        "annotations_subclustered.csv",
        "hashtag_labels.csv",
        "TotalSeq_ADT111_barcodes_RNA_20190717.csv",
    ),
}

# Where the reference table and ours differ for a reason: it takes these for controls or for another
# gene of a similar name (HLA_A2 for ATP6V0A2), names whole loci of T cell receptors, or uses older
# names of their segments.
REVIEWED = {
    *("IgG1", "IgG2a", "IgG2b", "IgA", "GARP", "LOX", "HLA_A2", "HLA_ABC"),
    *("Ig light chain l", "Ig light chain lambda", "Ig_light_chain_k", "Ig_light_chain_l"),
    *("TCRgd", "TCRab", "TCR a/b", "TCR g/d", "TCR alpha/beta", "TCR gamma/delta", "TCRb", "TCRg"),
    *("TCR alpha/beta (TRAC/TRBC)", "TCR Vb13", "TCR Vb13.1", "TCR Vbeta13.1"),
}


@pytest.fixture(scope="module")
def annotation():
    """Read a table of the annotation folder; skip where there is none."""

    def _read(name, **kwargs):
        folder = os.environ.get(ANNOTATION_DIR)
        path = None if folder is None else Path(folder) / name
        if path is None or not path.is_file():
            pytest.skip(f"needs {name} in {ANNOTATION_DIR}")
        return pd.read_csv(path, sep="\t", **kwargs)

    return _read


@pytest.fixture(scope="module")
def loaded():
    return {}


@pytest.fixture
def load(loaded, require_file):
    def _load(name):
        for file in FILES[name]:
            require_file(file)
        if name not in loaded:
            loaded[name] = getattr(datasets, name)()
        return loaded[name]

    return _load


def pairs(graph):
    table = graph.to_pandas()
    return set(zip(table["source"], table["target"], strict=True))


def true_links(mdata):
    links = mdata.uns["links"]
    return set(zip(links["source"], links["target"], strict=True))


def test_snareseq_links_are_reproduced(load, annotation):
    mdata, genes = load("snareseq_cortex"), annotation("genes_mm10.tsv.gz")
    before = fingerprint(mdata)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MosaicviWarning)
        graph = from_coordinates(mdata, annotation=genes, assembly="mm10", on_mismatch="error")
    assert fingerprint(mdata) == before
    found, true = pairs(graph), true_links(mdata)
    assert len(true) == 25_734
    assert len(found & true) == 25_724
    assert len(found) < 1.01 * len(true)
    report = graph.check(mdata)
    assert report.modalities["n_linked"].to_dict() == {"rna": 1672, "atac": 25_724}
    rna = report.features[report.features["modality"] == "rna"]
    assert list(rna["feature"][rna["reason"] == "absent"]) == ["Rmst"]
    assert report.untied == []
    matrix = graph.adjacency({"rna": mdata["rna"].var_names, "atac": mdata["atac"].var_names})
    assert matrix.shape == (27_411, 27_411)
    assert matrix.nnz == 2 * graph.n_edges


def moved(genes):
    """Genes as another assembly has them: each chromosome off by its own 10 to 150 kb."""
    offset = {name: 10_000 + 7_000 * i for i, name in enumerate(sorted(set(genes["chrom"])))}
    by = genes["chrom"].map(offset)
    return genes.assign(start=genes["start"] + by, end=genes["end"] + by)


def test_snareseq_on_another_assembly_is_said_aloud(load, annotation):
    mdata, genes = load("snareseq_cortex"), moved(annotation("genes_mm10.tsv.gz"))
    with pytest.warns(MosaicviWarning, match="different assemblies"):
        graph = from_coordinates(mdata, annotation=genes)
    share = len(pairs(graph) & true_links(mdata)) / 25_734
    assert 0.4 < share < 0.75
    with pytest.raises(DataError, match="by chance"):
        from_coordinates(mdata, annotation=genes, on_mismatch="error")
    with pytest.raises(DataError, match=r"beyond the end of their chromosome in hg38.*mm10"):
        from_coordinates(mdata, annotation=annotation("genes_mm10.tsv.gz"), assembly="hg38")


def test_snareseq_with_human_genes_is_refused(load, annotation):
    mdata, genes = load("snareseq_cortex"), annotation("genes_hg38.tsv.gz")
    with pytest.raises(DataError, match="mixed species"):
        from_coordinates(mdata, annotation=genes)
    # Renamed by force, orthologues lie elsewhere.
    with pytest.warns(MosaicviWarning, match="different assemblies"):
        from_coordinates(mdata, annotation=genes.assign(gene=genes["gene"].str.capitalize()))


def test_snareseq_window_finds_peaks_near_starts(load, annotation):
    mdata, genes = load("snareseq_cortex"), annotation("genes_mm10.tsv.gz")
    graph = from_coordinates(mdata, annotation=genes, rule=Window(50_000, 10_000))
    edges = graph.edges
    assert edges.weight.min() >= 2.0**-5
    assert edges.weight.max() == 1.0
    # The source's own rule stops 2 kb upstream, so a window agrees on the nearer part of its links.
    body = from_coordinates(mdata, annotation=genes)
    near = graph.subset({}).reweight(np.where(edges.weight > 2.0**-0.2, edges.weight, 0.0))
    assert len(pairs(near) & pairs(body)) > 0.75 * near.n_edges
    joined = body.union(graph)
    assert joined.n_edges == len(pairs(body) | pairs(graph))


def test_snareseq_links_as_a_table(load):
    mdata = load("snareseq_cortex")
    links = mdata.uns["links"]
    graph = from_table(mdata, links, "rna", "atac", weight="weight", sign="sign")
    assert pairs(graph) == true_links(mdata)


def test_pbmc10k_panel(load):
    mdata = load("pbmc10k_cite")
    graph = from_names(mdata)
    table = graph.to_pandas()
    found = {name: set(group) for name, group in table.groupby("target")["source"]}
    assert found == {
        "CD127": {"IL7R"},
        "CD14": {"CD14"},
        "CD15": {"FUT4"},
        "CD16": {"FCGR3A"},
        "CD19": {"CD19"},
        "CD25": {"IL2RA"},
        "CD3": {"CD3D", "CD3E", "CD3G"} & set(mdata["rna"].var_names),
        "CD4": {"CD4"},
        "CD56": {"NCAM1"},
        "CD8a": {"CD8A"},
        "PD-1": {"PDCD1"},
        "TIGIT": {"TIGIT"},
    }
    rows = graph.features.set_index(["modality", "feature"])
    for name in ("CD45RA", "CD45RO"):
        assert "PTPRC" not in mdata["rna"].var_names
        assert rows.loc[("protein", name), "detail"] == "its genes are PTPRC"


def test_pbmc_mosaic_panel(load):
    """Every antibody but one is known, and by whole genomes' worth of genes nearly all link."""
    mdata = load("pbmc_mosaic")
    report = from_names(mdata).check(mdata)
    protein = report.features[report.features["modality"] == "protein"]
    reasons = protein["reason"].value_counts().to_dict()
    assert reasons == {"gene not measured": 153, "": 70, "unknown antigen": 1}
    assert list(protein["feature"][protein["reason"] == "unknown antigen"]) == ["cadherin"]
    genes = sorted(
        {name for antigen in antigens("human").values() for gene in antigen.genes for name in gene}
    )
    graph = from_names(named({"rna": genes, "protein": mdata["protein"].var_names}))
    found = graph.to_pandas().groupby("target")["source"].agg(set).to_dict()
    expected = {
        "cd3.1": {"CD3D", "CD3E", "CD3G"},
        "cd3.2": {"CD3D", "CD3E", "CD3G"},
        "cd31": {"PECAM1"},
        "cd4.1": {"CD4"},
        "cd41": {"ITGA2B"},
        "cd279": {"PDCD1"},
        "hla.dr": {"HLA-DRA", "HLA-DRB1", "HLA-DRB5"},
        "cd66a.c.e": {"CEACAM1", "CEACAM5", "CEACAM6"},
        "cd8": {"CD8A"},
        "cd8a": {"CD8A"},
        "cd45.1": {"PTPRC"},
        "cd11a.cd18": {"ITGAL", "ITGB2"},
        "cd307c.fcrl3": {"FCRL3"},
        "b7.h4": {"VTCN1"},
    }
    assert {name: found[name] for name in expected} == expected
    assert len(found) == 223


def test_sln_panel_against_the_source(load):
    mdata = load("sln_unpaired")
    graph = from_names(mdata)
    rows = graph.features[graph.features["modality"] == "protein"].set_index("feature")
    assert (rows["clone"] == mdata["protein"].var["clone"]).all()
    assert not rows["reason"].isin(["unknown antigen", "ambiguous antigen"]).any()
    found = graph.to_pandas().groupby("target")["source"].agg(set)
    theirs = mdata["protein"].var["gene"]
    comparable = [name for name in found.index if theirs[name] in set(mdata["rna"].var_names)]
    assert len(comparable) > 90
    different = {name: found[name] for name in comparable if theirs[name] not in found[name]}
    # NK-1.1 is the product of Klrb1c (the source: Klrb1), V beta 5 that of Trbv12 (Trbv5).
    assert different == {
        "ADT_NK-1.1_A0118": {"Klrb1c"},
        "ADT_TCRVb5.1_5.2_A0354": {"Trbv12-1"},
    }


def test_table_of_antigens_against_52_studies(annotation):
    table = annotation("adt_gene_human.tsv.gz", dtype=str, keep_default_na=False)
    table = table.drop_duplicates(["Antigen", "HGNC_SYMBOL", "Isotype_Control"])
    known = checked = 0
    for row in table.itertuples():
        reading = read_antibody(row.Antigen, "human")
        if row.Isotype_Control == "True":
            assert reading.reason == "isotype control", row.Antigen
            continue
        theirs = {name.strip() for name in row.HGNC_SYMBOL.split(",") if name.strip()}
        if not theirs:
            continue
        checked += 1
        ours = (
            set()
            if reading.antigen is None
            else {name for gene in reading.antigen.genes for name in gene}
        )
        assert ours & theirs or row.Antigen in REVIEWED, (row.Antigen, theirs, ours)
        known += bool(ours & theirs)
    assert checked > 600
    assert known > 0.95 * checked


def test_genes_of_the_table_exist(annotation):
    for species, file, tolerated in (
        ("human", "genes_hg38.tsv.gz", "KIR"),
        ("mouse", "genes_mm10.tsv.gz", "Cd99 Tcrg-V1"),
    ):
        known = set(annotation(file)["gene"])
        lost = {
            gene[0]
            for antigen in antigens(species).values()
            for gene in antigen.genes
            if not set(gene) & known
        }
        # Some killer receptors stand on alternative haplotypes only.
        assert all(name.startswith("KIR") or name in tolerated.split() for name in lost), lost


def test_transcription_factors_with_unknown_signs(annotation):
    table = annotation("trrust_human.tsv.gz")
    genes = sorted(set(table["tf"]) | set(table["target"]))
    mdata = named({"rna": genes})
    signed = table[table["tf"] != table["target"]]
    with pytest.raises(DataError, match="signs are unknown"):
        from_table(mdata, signed, "rna", "rna", sign="mor")
    with pytest.raises(DataError, match="itself"):
        from_table(mdata, table, "rna", "rna", sign="mor", unknown_sign="drop")
    # Some factors regulate each other, and not all of them both ways alike.
    with pytest.raises(DataError, match="both signs"):
        from_table(
            mdata, signed, "rna", "rna", sign="mor", unknown_sign="drop", duplicates="strongest"
        )


def test_hallmark_sets(annotation, load):
    mdata = load("pbmc_mosaic")
    annotation("genes_hg38.tsv.gz", nrows=1)
    path = Path(os.environ[ANNOTATION_DIR]) / "hallmark_v6.2.gmt.gz"
    graph = from_gene_sets(mdata, path, "rna", min_genes=3)
    lines = pd.read_csv(path, header=None)[0].str.split("\t")
    genes = set(mdata["rna"].var_names)
    expected = {
        (gene, fields[0])
        for fields in lines
        for gene in set(fields[2:]) & genes
        if len(set(fields[2:]) & genes) >= 3
    }
    assert pairs(graph) == expected
    mouse = named({"rna": [name.capitalize() for name in genes]})
    with pytest.raises(DataError, match="mixed species"):
        from_gene_sets(mouse, path)
