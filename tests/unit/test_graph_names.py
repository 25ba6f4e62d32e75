"""Antibodies by name: how names are read, and what becomes of those that say nothing."""

from __future__ import annotations

import pandas as pd
import pytest
from tests.graph_helpers import named
from tests.helpers import fingerprint

from mosaicvi import DataError, MosaicviWarning, RequestError
from mosaicvi.graph import from_names
from mosaicvi.graph._antigens import _rows, antigens, is_isotype, key_of, read_antibody

HUMAN = (
    *("CD3D", "CD3E", "CD3G", "CD4", "CD8A", "PDCD1", "PTPRC", "HLA-DRA", "HLA-DRB1", "FUT4"),
    *("CEACAM1", "CEACAM6", "PECAM1", "ITGA2B", "NECTIN2", "XCR1", "MYC"),
)
MOUSE = (
    "Cd3e",
    "Cd4",
    "Cd8a",
    "Icam2",
    "Csf1r",
    "Ptprc",
    "Cd24a",
    "Emr1",
    "Klrb1c",
    "Gad1",
    "Thy1",
)


def genes_of(name, species="human"):
    reading = read_antibody(name, species)
    return None if reading.antigen is None else [genes[0] for genes in reading.antigen.genes]


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        ("CD3", ["CD3D", "CD3E", "CD3G"]),
        ("cd3.1", ["CD3D", "CD3E", "CD3G"]),
        ("CD3-2", ["CD3D", "CD3E", "CD3G"]),
        ("cd31", ["PECAM1"]),
        ("cd4.1", ["CD4"]),
        ("CD41", ["ITGA2B"]),
        ("cd11a.cd18", ["ITGAL", "ITGB2"]),
        ("CD45RA", ["PTPRC"]),
        ("PD-1", ["PDCD1"]),
        ("cd279", ["PDCD1"]),
        ("CD279_PD1", ["PDCD1"]),
        ("TNFRSF9 (CD137)", ["TNFRSF9"]),
        ("CD274 (B7-H1, PD-L1)", ["CD274"]),
        ("hla.dr", ["HLA-DRA", "HLA-DRB1", "HLA-DRB5"]),
        ("cd66a.c.e", ["CEACAM1", "CEACAM5", "CEACAM6"]),
        ("CD66a/c/e", ["CEACAM1", "CEACAM5", "CEACAM6"]),
        ("cd307c.fcrl3", ["FCRL3"]),
        ("siglec.8", ["SIGLEC8"]),
        ("tcr.v.7.2", ["TRAV1-2"]),
        ("TCRγ/δ", ["TRDC", "TRGC1", "TRGC2"]),
        ("TCR alpha/beta", ["TRAC", "TRBC1", "TRBC2"]),
        ("CD8a_TotalSeqB", ["CD8A"]),
        ("CD19-TotalA", ["CD19"]),
        ("prot_CD56", ["NCAM1"]),
        ("Hu.CD101", ["CD101"]),
        ("anti-human CD20", ["MS4A1"]),
        ("IgG Fc", ["IGHG1", "IGHG2", "IGHG3", "IGHG4"]),
        ("CD123/IL-3R", ["IL3RA"]),
        ("CD3_UCHT1", ["CD3D", "CD3E", "CD3G"]),
        ("Hu.CD4_RPA.T4", ["CD4"]),
        ("CD56-5.1H11", ["NCAM1"]),
        ("HLA-DR L243", ["HLA-DRA", "HLA-DRB1", "HLA-DRB5"]),
        ("CD4_XYZ1", None),
        ("CD279_PD-1", ["PDCD1"]),
        ("CD15_SSEA-1", ["FUT4"]),
        ("C0034_CD3", ["CD3D", "CD3E", "CD3G"]),
        ("CD3-B0034", ["CD3D", "CD3E", "CD3G"]),
        ("TotalSeq-C0072 anti-human CD4", ["CD4"]),
        ("TotalSeqC-CD4", ["CD4"]),
        ("CD99999", None),
        ("", None),
        ("cadherin", None),
        ("CD19 CD20", None),
    ],
)
def test_human_names(name, genes):
    assert genes_of(name) == genes


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        ("ADT_CD102_A0104", ["Icam2"]),
        ("ADT_CD115(CSF-1R)_A0105", ["Csf1r"]),
        ("ADT_CD16-32_A0109", ["Fcgr3", "Fcgr2b"]),
        ("ADT_CD45R-B220_A0103", ["Ptprc"]),
        ("ADT_CD45.1_A0178", ["Ptprc"]),
        ("ADT_F4-80_A0114", ["Adgre1"]),
        ("ADT_NK-1.1_A0118", ["Klrb1c"]),
        ("ADT_I-A-I-E_A0117", ["H2-Aa", "H2-Ab1", "H2-Ea-ps", "H2-Eb1"]),
        ("ADT_H-2KbboundtoSIINFEKL_A0231", []),
        ("CD66b", None),
        ("CD1a", None),
    ],
)
def test_mouse_names(name, genes):
    assert genes_of(name, "mouse") == genes


def test_clone_numbers_and_ambiguity_are_kept():
    assert read_antibody("cd3.1", "human").clone == "1"
    assert read_antibody("Hu.CD4_RPA.T4", "human").clone == "RPA.T4"
    assert read_antibody("CD45.1", "mouse").clone == ""
    assert read_antibody("CD45.1", "human").clone == "1"
    assert read_antibody("CD45.1", "human").antigen.kind == "protein"
    ambiguous = read_antibody("CD19 CD20", "human")
    assert ambiguous.reason == "ambiguous antigen"
    assert "CD19, CD20" in ambiguous.detail


@pytest.mark.parametrize(
    "name",
    [
        *("Mouse IgG1, k Isotype Ctrl", "IgG2b_Rat_k", "Arm.ham.IgG.iso", "IsoIgG2A", "Mouse_IgG1"),
        *("control_mIgM", "isotype_control_IgG1", "Rat.IgG2a.iso", "IgG_Hamster", "ADT_mouse IgM"),
        *(
            "Isotype_MOPC.21",
            "Armenian Hamster IgG",
            "Isotype control, rIgG2b, k",
            "IgG1_TotalSeqB",
        ),
        *("IgG-1", "IgG-2a", "ADT_IgG-1_A0090", "IgG1k", "IgG2aκ"),
        "Rag-IgG2c",  # so written in the atlas of Hao et al. 2021
    ],
)
def test_isotype_controls(name):
    assert is_isotype(name)
    assert read_antibody(name, "human").reason == "isotype control"


@pytest.mark.parametrize(
    "name", ["IgG", "IgG Fc", "IgD", "IgM", "anti-mouse IgM", "CD79a", "Ig light chain k", "TIGIT"]
)
def test_antibodies_that_look_like_controls(name):
    assert not is_isotype(name)


def test_table_is_consistent():
    for species in ("human", "mouse"):
        for antigen in antigens(species).values():
            assert antigen.kind in ("protein", "complex", "isoform", "enzyme", "none")
            assert (antigen.kind == "none") == (not antigen.genes)
            names = [name for gene in antigen.genes for name in gene]
            assert len(set(names)) == len(names)
            assert all(name == name.strip() and name for name in names)
    seen = {}
    for names, human, mouse, kind in _rows():
        assert kind in ("gene", "isoform", "enzyme", "none")
        assert bool(human or mouse) == (kind != "none")
        for key in {key_of(name) for name in names.split("|")}:
            assert key
            assert seen.setdefault(key, names) == names


def test_graph_of_human_panel():
    proteins = [
        "CD3",
        "cd3.1",
        "PD-1",
        "CD45RA",
        "CD15",
        "hla.dr",
        "Mouse IgG1",
        "CD19",
        "x",
        "xcr1",
    ]
    mdata = named({"rna": HUMAN, "protein": proteins})
    before = fingerprint(mdata)
    graph = from_names(mdata)
    assert fingerprint(mdata) == before
    table = graph.to_pandas()
    found = {(row.source, row.target): row.type for row in table.itertuples()}
    assert found == {
        **{(gene, name): "complex" for gene in HUMAN[:3] for name in ("CD3", "cd3.1")},
        ("PDCD1", "PD-1"): "protein",
        ("PTPRC", "CD45RA"): "isoform",
        ("FUT4", "CD15"): "enzyme",
        ("HLA-DRA", "hla.dr"): "complex",
        ("HLA-DRB1", "hla.dr"): "complex",
        ("XCR1", "xcr1"): "protein",
    }
    assert set(table["sign"]) == {1}
    rows = graph.features.set_index("feature")
    assert rows.loc["cd3.1", ["antigen", "clone"]].tolist() == ["CD3", "1"]
    assert rows.loc["Mouse IgG1", "reason"] == "isotype control"
    assert rows.loc["CD19", ["reason", "detail"]].tolist() == [
        "gene not measured",
        "its genes are CD19",
    ]
    assert rows.loc["x", "reason"] == "unknown antigen"
    assert rows.loc["MYC", "reason"] == "no antibody"
    assert "isotype control" in str(graph.check(mdata))


def test_graph_of_mouse_panel_with_old_symbols_and_clones():
    var = pd.DataFrame(
        {"clone": ["3C4", "BM8"], "target": ["CD102", "F4/80"]}, index=["one", "two"]
    )
    mdata = named({"rna": MOUSE, "protein": var})
    graph = from_names(mdata, antigen_key="target")
    table = graph.to_pandas()
    assert set(zip(table["source"], table["target"], strict=True)) == {
        ("Icam2", "one"),
        ("Emr1", "two"),
    }
    rows = graph.features.set_index("feature")
    assert rows.loc["two", ["antigen", "clone"]].tolist() == ["F4/80", "BM8"]
    with pytest.raises(RequestError, match=r"'gene'.*'clone', 'target'"):
        from_names(mdata, antigen_key="gene")


def test_own_antigens_go_first():
    mdata = named({"rna": HUMAN, "protein": ["CD3", "TAG-7", "Mouse IgG1"]})
    own = {"CD3": "CD3E", "tag7": ["MYC", "CD4"], "mouse igg1": []}
    table = from_names(mdata, antigens=own).to_pandas()
    assert set(zip(table["source"], table["target"], strict=True)) == {
        ("CD3E", "CD3"),
        ("MYC", "TAG-7"),
        ("CD4", "TAG-7"),
    }


def test_own_antigens_that_no_antibody_has_are_named():
    mdata = named({"rna": HUMAN, "protein": ["CD3", "TAG-7"]})
    own = {"CDX": "CD4", "CD3": "CD3E"}
    with pytest.warns(MosaicviWarning, match=r"'antigens'.*read as 'CDX';.*'CD3', 'TAG-7'"):
        table = from_names(mdata, antigens=own).to_pandas()
    assert list(table["source"]) == ["CD3E"]


@pytest.mark.parametrize(
    ("rna", "proteins", "arguments", "error", "words"),
    [
        (
            HUMAN,
            ["x", "y"],
            {},
            DataError,
            ["no feature is linked", "unknown antigen", "'protein'"],
        ),
        (HUMAN, ["IgG1"], {}, DataError, ["isotype control"]),
        (HUMAN[:3], ["CD3"], {}, DataError, ["cannot be told", "species='human'"]),
        (HUMAN[:9] + MOUSE[:9], ["CD3"], {}, DataError, ["mixed species", "modality 'rna'"]),
        (MOUSE, ["CD3"], {"species": "human"}, DataError, ["look like mouse", "species='mouse'"]),
        (HUMAN, ["CD3"], {"species": "rat"}, RequestError, ["'rat'", "'mouse'"]),
        (HUMAN, ["CD3"], {"gene_symbols": "symbol"}, RequestError, ["'symbol'"]),
        (
            [f"ENSG{i:011d}" for i in range(20)],
            ["CD3"],
            {},
            DataError,
            ["identif", "gene_symbols="],
        ),
        (HUMAN, ["CD3"], {"proteins": "rna"}, RequestError, ["the same modality", "'rna'"]),
        (HUMAN, ["CD3"], {"genes": "gex"}, RequestError, ["'gex'"]),
        (HUMAN, ["CD3"], {"proteins": "adt"}, RequestError, ["'adt'"]),
    ],
)
def test_bad_input_is_refused(rna, proteins, arguments, error, words):
    mdata = named({"rna": rna, "protein": proteins})
    with pytest.raises(error) as caught:
        from_names(mdata, **arguments)
    for word in words:
        assert word in str(caught.value)


def test_few_genes_with_stated_species():
    mdata = named({"rna": HUMAN[:3], "protein": ["CD3"]})
    assert from_names(mdata, species="human").n_edges == 3


@pytest.mark.parametrize("missing", [float("nan"), None, ""])
def test_missing_names_and_clones_mean_nothing(missing):
    genes = pd.DataFrame({"symbol": [*HUMAN, missing, "nan"]}, index=[*HUMAN, "y", "z"])
    antibodies = pd.DataFrame(
        {"target": ["CD4", missing], "clone": ["SK3", missing]}, index=["one", "two"]
    )
    mdata = named({"rna": genes, "protein": antibodies})
    graph = from_names(mdata, antigen_key="target", gene_symbols="symbol")
    table = graph.to_pandas()
    assert set(zip(table["source"], table["target"], strict=True)) == {("CD4", "one")}
    rows = graph.features.set_index("feature")
    assert rows.loc[["one", "two"], "clone"].tolist() == ["SK3", ""]
    assert rows.loc["two", "reason"] == "unknown antigen"


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        # As vendors' catalogues and BD Rhapsody's pipeline write them.
        ("TotalSeq™-C0034 anti-human CD3 Antibody", ["CD3D", "CD3E", "CD3G"]),
        ("TotalSeq™-B0214 anti-human/mouse integrin β7", ["ITGB7"]),
        ("CD4:SK3|CD4|AHS0032|pAbO", ["CD4"]),
        ("HLA-DR:G46-6|CD74|AHS0035|pAbO", ["HLA-DRA", "HLA-DRB1", "HLA-DRB5"]),
        ("anti-human FcεRI", ["FCER1A"]),
        ("anti-human Ganglioside GD2", ["B4GALNT1"]),
    ],
)
def test_names_of_catalogues(name, genes):
    assert genes_of(name) == genes


def test_clones_of_bd_rhapsody():
    reading = read_antibody("CD4:SK3|CD4|AHS0032|pAbO", "human")
    assert (reading.antigen.name, reading.clone) == ("CD4", "SK3")


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        ("anti-human/mouse integrin β7", ["Itgb7"]),
        ("anti-mouse CD209a", ["Cd209a"]),
        ("anti-mouse CD200R3", ["Cd200r3"]),
        ("anti-mouse Ly49C/F/I/H", ["Klra3", "Klra6", "Klra9", "Klra8"]),
        ("anti-mouse P2X7R", ["P2rx7"]),
        ("anti-mouse IL-33Rα", ["Il1rl1"]),
        ("anti-mouse IL-21 Receptor", ["Il21r"]),
        ("anti-mouse Jagged 2", ["Jag2"]),
        ("anti-mouse EphB4", ["Ephb4"]),
        ("anti-mouse H-2Kd", ["H2-K1"]),
        ("anti-mouse TCR Vγ1.1", ["Tcrg-V1"]),
    ],
)
def test_names_of_mouse_catalogues(name, genes):
    assert genes_of(name, "mouse") == genes


def test_older_symbols_of_genes_are_known():
    for species, name, older in (
        ("human", "JAML", "AMICA1"),
        ("mouse", "JAML", "Amica1"),
        ("mouse", "CD85k", "Lilrb4"),
        ("mouse", "FR4", "Folr4"),
    ):
        assert older in read_antibody(name, species).antigen.genes[0]
