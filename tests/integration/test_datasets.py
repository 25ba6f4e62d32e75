"""The real datasets are what their documentation says, checked on the files themselves."""

from __future__ import annotations

import gzip
import os
import warnings
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

from mosaicvi import datasets

FILES = {
    "pbmc_mosaic": ("quickstart_pbmc_mosaic.h5mu",),
    "pbmc10k_cite": ("pbmc10k_harmo_rna.csv.gz", "pbmc10k_harmo_pro.csv.gz"),
    "pbmc5k_rna": ("pbmc5k_harmo_rna.csv.gz",),
    "snareseq_cortex": tuple(
        f"snareseq_{name}"
        for name in (
            *("GxC1.npz", "RxC1.npz", "GxR.npz"),
            *("genes.txt", "regions.txt", "meta_c1.csv"),
        )
    ),
    "sln_unpaired": (
        "sln_d2_harmo_rna_seurat.csv.gz",
        "sln_d1_harmo_pro_seurat.csv.gz",
        "annotations_subclustered.csv",
        "hashtag_labels.csv",
        "TotalSeq_ADT111_barcodes_RNA_20190717.csv",
    ),
}

PBMC10K_GENES = {
    "CD127": "IL7R",
    "CD14": "CD14",
    "CD15": "FUT4",
    "CD16": "FCGR3A",
    "CD19": "CD19",
    "CD25": "IL2RA",
    "CD4": "CD4",
    "CD56": "NCAM1",
    "CD8a": "CD8A",
    "PD-1": "PDCD1",
    "TIGIT": "TIGIT",
}


@pytest.fixture(scope="module")
def loaded():
    return {}


@pytest.fixture
def load(loaded, require_file):
    """A dataset, read once a module; skipped, or failed where CI demands it, without its files.

    The loader may warn of nothing that a user could meet.
    """

    def _load(name):
        for file in FILES[name]:
            require_file(file)
        if name not in loaded:
            with warnings.catch_warnings():
                for category in (FutureWarning, UserWarning, RuntimeWarning):
                    warnings.simplefilter("error", category)
                loaded[name] = getattr(datasets, name)()
        return loaded[name]

    return _load


def total(part):
    return np.asarray(part.X.sum(axis=1)).ravel()


def log_normalised(part):
    return np.log1p(sp.diags(1e4 / total(part)) @ part.X).tocsr()


@pytest.mark.parametrize("name", FILES)
def test_every_dataset_holds_raw_counts_under_unique_names(load, name):
    mdata = load(name)
    assert mdata.obs_names.is_unique
    for part in mdata.mod.values():
        assert isinstance(part.X, sp.csr_matrix)
        assert part.X.dtype == np.float32
        assert part.X.has_canonical_format
        assert (part.X.data > 0).all()
        assert (part.X.data == np.round(part.X.data)).all()
        assert part.obs_names.is_unique
        assert part.var_names.is_unique
        assert not part.is_view


@pytest.mark.parametrize("name", FILES)
def test_columns_agree_between_mudata_and_modalities(load, name):
    mdata = load(name)
    assert not any(":" in column for column in mdata.obs.columns)
    assert list(mdata.var.columns) == []
    assert not mdata.obs.isna().to_numpy().any()
    for modality, part in mdata.mod.items():
        rows = np.asarray(mdata.obsmap[modality]).astype(np.int64).ravel() - 1
        here = rows >= 0
        assert (part.obs_names[rows[here]] == mdata.obs_names[here]).all()
        assert list(part.obs.columns) == list(mdata.obs.columns)
        for column in mdata.obs.columns:
            own = part.obs[column].to_numpy()[rows[here]]
            assert (own == mdata.obs[column].to_numpy()[here]).all()


@pytest.mark.parametrize("name", ["pbmc_mosaic", "snareseq_cortex", "sln_unpaired"])
def test_written_and_read_back_it_is_the_same(load, name, tmp_path):
    load(name)
    # Read anew: mudata 0.3 adds columns to an object that it writes.
    mdata = getattr(datasets, name)()
    mdata.write(tmp_path / "data.h5mu")
    read = mudata.read_h5mu(tmp_path / "data.h5mu")
    for modality, part in mdata.mod.items():
        again = read.mod[modality]
        assert (abs(part.X - again.X)).nnz == 0
        assert (part.obs_names == again.obs_names).all()
        assert (part.var_names == again.var_names).all()
        for column in part.obs.columns:
            assert (part.obs[column].to_numpy() == again.obs[column].to_numpy()).all()
        for column in part.var.columns:
            assert (part.var[column].to_numpy() == again.var[column].to_numpy()).all()
    assert (mdata.obs_names == read.obs_names).all()
    assert (mdata.obs["batch"].to_numpy() == read.obs["batch"].to_numpy()).all()
    for key, table in mdata.uns.items():
        assert (table.to_numpy() == read.uns[key].to_numpy()).all()


def test_pbmc_mosaic(load):
    mdata = load("pbmc_mosaic")
    assert mdata.n_obs == 1600
    assert {name: part.shape for name, part in mdata.mod.items()} == {
        "rna": (1200, 500),
        "protein": (1200, 224),
    }
    presence = pd.DataFrame(
        {name: np.asarray(mdata.obsmap[name]).ravel() > 0 for name in mdata.mod},
        index=mdata.obs_names,
    )
    by_batch = presence.groupby(mdata.obs["batch"], observed=True).sum()
    assert by_batch["rna"].to_dict() == {"p1_0": 400, "p2_0": 0, "p3_0": 400, "p4_0": 400}
    assert by_batch["protein"].to_dict() == {"p1_0": 0, "p2_0": 400, "p3_0": 400, "p4_0": 400}
    assert list(mdata["rna"].obs["batch"].cat.categories) == ["p1_0", "p3_0", "p4_0"]
    assert mdata.obs["cell_type"].nunique() == 8
    assert {"hla.dr", "cd66a.c.e", "cd3.1", "cd3.2", "cd279", "cd8", "cd8a"} <= set(
        mdata["protein"].var_names
    )
    assert np.median(total(mdata["rna"])) == 506
    # Rows are matched by name: labels and counts fit together in each modality.
    for part, feature, label in (
        (mdata["rna"], "S100A9", "Mono"),
        (mdata["protein"], "cd14", "Mono"),
        (mdata["protein"], "cd19", "B"),
    ):
        values = part[:, feature].X.toarray().ravel() / total(part)
        assert roc_auc_score(part.obs["cell_type"] == label, values) > 0.95


def test_pbmc10k_cite(load):
    mdata = load("pbmc10k_cite")
    assert mdata["rna"].shape == (6855, 4000)
    assert mdata["protein"].shape == (6855, 14)
    assert (mdata["rna"].obs_names == mdata["protein"].obs_names).all()
    shared = set(mdata["rna"].var_names) & set(mdata["protein"].var_names)
    assert shared == {"CD4", "CD14", "CD19", "TIGIT"}
    assert not any("TotalSeq" in name for name in mdata["protein"].var_names)
    assert np.median(total(mdata["rna"])) == 661
    assert set(mdata.obs["batch"]) == {"pbmc10k"}


def test_pbmc10k_rna_and_protein_belong_to_the_same_cells(load):
    mdata = load("pbmc10k_cite")
    rna, protein = log_normalised(mdata["rna"]), np.log1p(mdata["protein"].X.toarray())
    order = np.random.default_rng(0).permutation(mdata.n_obs)
    paired, permuted = [], []
    for name, gene in PBMC10K_GENES.items():
        left = rna[:, mdata["rna"].var_names.get_loc(gene)].toarray().ravel()
        right = protein[:, mdata["protein"].var_names.get_loc(name)]
        paired.append(np.corrcoef(left, right)[0, 1])
        permuted.append(np.corrcoef(left[order], right)[0, 1])
    assert np.mean(paired) == pytest.approx(0.49, abs=0.01)
    assert np.mean(permuted) == pytest.approx(0.0, abs=0.01)


def test_pbmc10k_counts_equal_the_file(load, require_file):
    mdata = load("pbmc10k_cite")
    with gzip.open(require_file("pbmc10k_harmo_rna.csv.gz"), "rt") as lines:
        cells = next(lines).strip().split(",")[1:]
        for number, line in enumerate(lines):
            if number % 800 == 17:
                gene, *values = line.strip().split(",")
                own = mdata["rna"][cells, gene].X.toarray().ravel()
                assert (own == np.array(values, dtype=np.float32)).all()


def test_shared_names_survive_choosing_cells(load):
    mdata = load("pbmc10k_cite")
    rows = np.arange(0, mdata.n_obs, 7)
    some = mdata[rows].copy()
    assert abs(some["protein"].X - mdata["protein"].X[rows]).nnz == 0
    assert abs(some["rna"].X - mdata["rna"].X[rows]).nnz == 0
    assert list(some["protein"].var_names) == list(mdata["protein"].var_names)


def test_pbmc5k_rna(load):
    mdata, other = load("pbmc5k_rna"), load("pbmc10k_cite")
    assert list(mdata.mod) == ["rna"]
    assert mdata["rna"].shape == (3994, 4000)
    assert list(mdata["rna"].var_names) == list(other["rna"].var_names)
    assert len(set(mdata.obs_names) & set(other.obs_names)) == 11
    assert set(mdata.obs["batch"]) == {"pbmc5k"}


def test_snareseq_cortex(load):
    mdata = load("snareseq_cortex")
    assert mdata["rna"].shape == (10309, 1677)
    assert mdata["atac"].shape == (10309, 25734)
    assert (mdata["rna"].obs_names == mdata["atac"].obs_names).all()
    assert np.median(total(mdata["atac"])) == 83
    assert {name: mdata.obs[name].nunique() for name in mdata.obs} == {
        "cell_type": 23,
        "cell_class": 15,
        "batch": 12,
    }
    # The barcode's first part is the batch, so the table's rows are the matrices' columns.
    assert (mdata.obs_names.str.split("_").str[0] == mdata.obs["batch"]).all()
    var = mdata["atac"].var
    named = var["chrom"].astype(str) + "_" + var["start"].astype(str) + "_" + var["end"].astype(str)
    assert (named == mdata["atac"].var_names).all()
    assert (var["end"] > var["start"]).all()


def test_snareseq_modalities_belong_to_the_same_cells(load):
    """Within batches, a gene goes with the sum of its linked peaks; permuted cells do not."""
    mdata = load("snareseq_cortex")
    rna, atac, links = mdata["rna"], mdata["atac"], mdata.uns["links"]
    shape = (atac.n_vars, rna.n_vars)
    peaks, genes = (
        atac.var_names.get_indexer(links["target"]),
        rna.var_names.get_indexer(links["source"]),
    )
    summed = atac.X @ sp.csr_matrix((np.ones(len(links), np.float32), (peaks, genes)), shape)
    rows = [np.flatnonzero(mdata.obs["batch"] == name) for name in mdata.obs["batch"].unique()]

    def centred(counts):
        depth = np.asarray(counts.sum(axis=1)).ravel()
        values = np.log1p((sp.diags(1e3 / depth) @ counts).toarray())
        for batch in rows:
            values[batch] -= values[batch].mean(axis=0)
        with np.errstate(invalid="ignore"):  # genes that were never seen
            return values / np.linalg.norm(values, axis=0)

    rng = np.random.default_rng(0)
    left, right = centred(rna.X), centred(summed)
    order = np.empty(mdata.n_obs, dtype=np.int64)
    for batch in rows:
        order[batch] = rng.permutation(batch)
    assert np.nanmean((left * right).sum(axis=0)) == pytest.approx(0.0189, abs=0.001)
    assert np.nanmean((left * right[order]).sum(axis=0)) == pytest.approx(0.0, abs=0.002)


def test_snareseq_links(load):
    mdata = load("snareseq_cortex")
    links = mdata.uns["links"]
    assert list(links.columns) == ["source", "target", "sign", "weight"]
    assert list(links["target"]) == list(mdata["atac"].var_names)
    assert set(links["source"]) <= set(mdata["rna"].var_names)
    assert (links["sign"] == 1).all()
    assert (links["weight"] == 1).all()


def test_snareseq_links_follow_from_mm10_coordinates(load):
    """Gene body plus 2 kb upstream, on 0-based half-open mm10, gives the source's links."""
    folder = os.environ.get("MOSAICVI_ANNOTATION_DIR")
    if folder is None:
        pytest.skip("MOSAICVI_ANNOTATION_DIR is not set")
    genes = pd.read_csv(Path(folder) / "genes_mm10.tsv.gz", sep="\t")
    mdata = load("snareseq_cortex")
    forward = genes["strand"] == "+"
    genes["low"] = genes["start"] - 2000 * forward
    genes["high"] = genes["end"] + 2000 * ~forward
    genes["chrom"] = "chr" + genes["chrom"].astype(str).str.removeprefix("chr")
    peaks = mdata["atac"].var.rename_axis("target").reset_index()
    peaks["chrom"] = peaks["chrom"].astype(str)
    links = mdata.uns["links"].merge(peaks, on="target")
    both = links.merge(
        genes[["gene", "chrom", "low", "high"]],
        left_on=["source", "chrom"],
        right_on=["gene", "chrom"],
    )
    overlaps = both.loc[(both["low"] < both["end"]) & (both["high"] > both["start"])]
    assert overlaps["target"].nunique() == 25724


def test_sln_unpaired(load):
    mdata = load("sln_unpaired")
    rna, protein = mdata["rna"], mdata["protein"]
    assert rna.shape == (7564, 4005)
    assert protein.shape == (9264, 110)
    assert mdata.n_obs == 7564 + 9264
    assert mdata.obs["cell_type"].nunique() == 35
    assert mdata.obs.loc[mdata.obs["is_type"], "cell_type"].nunique() == 28
    assert (~protein.obs["is_type"]).sum() == 411
    assert (~rna.obs["is_type"]).sum() == 615
    assert set(rna.obs["batch"]) == {"day2"}
    assert set(protein.obs["batch"]) == {"day1"}
    assert not any("doublet" in name.lower() for name in types(mdata))
    assert not any("low quality" in name.lower() for name in types(mdata))


def types(mdata):
    return mdata.obs.loc[mdata.obs["is_type"], "cell_type"].unique()


def test_sln_labels_fit_proteins_at_this_offset_only(load):
    protein = load("sln_unpaired")["protein"]
    labels = protein.obs["cell_type"].to_numpy().astype(str)
    cd4 = np.char.startswith(labels, "CD4 ")
    cd8 = np.char.startswith(labels, "CD8 ")
    t_cells = cd4 | cd8

    def auc(gene, positive, keep):
        (name,) = protein.var_names[protein.var["gene"] == gene]
        values = protein[:, name].X.toarray().ravel() / total(protein)
        return roc_auc_score(positive[keep], values[keep])

    assert auc("Cd8a", cd8, t_cells) > 0.95
    assert auc("Cd4", cd4, t_cells) > 0.95
    off, keep = np.roll(cd8, 1), np.roll(t_cells, 1)
    assert auc("Cd8a", off, keep) == pytest.approx(0.5, abs=0.05)
    off = np.roll(cd4, 1)
    assert auc("Cd4", off, keep) == pytest.approx(0.5, abs=0.05)


def test_sln_labels_fit_rna_at_this_offset_only(load):
    rna = load("sln_unpaired")["rna"]
    b_cell = rna.obs["cell_type"].isin(["Mature B cells", "Transitional B cells"]).to_numpy()
    t_cell = rna.obs["cell_type"].isin(["CD4 T cells", "CD8 T cells"]).to_numpy()
    values = log_normalised(rna)[:, rna.var_names.get_loc("Cd79a")].toarray().ravel()
    keep = b_cell | t_cell
    assert roc_auc_score(b_cell[keep], values[keep]) > 0.95
    off, keep = np.roll(b_cell, 1), np.roll(keep, 1)
    assert roc_auc_score(off[keep], values[keep]) == pytest.approx(0.5, abs=0.05)


def test_sln_tissue_is_the_hashtag(load):
    mdata = load("sln_unpaired")
    counts = mdata.obs["tissue"].value_counts().to_dict()
    assert counts == {"Spleen": 9198, "Lymph_Node": 7601, "Ambiguous": 29}
    # Macrophages of the red pulp live in the spleen and nowhere else.
    macrophages = mdata.obs.loc[mdata.obs["cell_type"] == "Red-pulp macrophages", "tissue"]
    assert (macrophages == "Spleen").mean() > 0.9


def test_sln_antibodies(load):
    var = load("sln_unpaired")["protein"].var
    assert (var["gene"] != "").sum() == 109
    assert list(var.index[var["gene"] == ""]) == ["ADT_H-2KbboundtoSIINFEKL_A0231"]
    assert var["antigen"].is_unique
    assert var.loc["ADT_CD102_A0104"].to_dict() == {
        "antigen": "CD102",
        "gene": "Icam2",
        "clone": "3C4 (MIC2/4)",
    }
    # A spreadsheet had turned these into numbers and a date.
    assert var.loc["ADT_FceRIa_A0115", "clone"] == "MAR-1"
    assert var.loc["ADT_CD103_A0201", "clone"] == "2E7"
    assert not var["clone"].str.contains(r"E\+|\?").any()
    genes = set(load("sln_unpaired")["rna"].var_names)
    assert (var["gene"].isin(genes)).mean() > 0.7
