"""CITE-seq of mouse spleen and lymph node, with RNA and protein of different cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mosaicvi._fetch import fetch
from mosaicvi.datasets._assemble import assemble, modality, read_features_by_cells, restrict

if TYPE_CHECKING:
    from pathlib import Path

    import mudata

_NOT_A_TYPE = ("doublet", "low quality")

_AMBIGUOUS = "Ambiguous"

# A spreadsheet turned these clone names into numbers and dates, and lost one Greek letter.
_REPAIRED_CLONES = {
    "7.00E+09": "7E9",
    "3.00E+12": "3E12",
    "2.00E+07": "2E7",
    "1-Mar": "MAR-1",
    "HM?1-1": "HMb1-1",
}


def sln_unpaired() -> mudata.MuData:
    """Load mouse spleen and lymph node: RNA of one day, 110 proteins of another, no common cell.

    Modality, day and batch are one and the same here, so a difference between the modalities cannot
    be told from a difference between the days. Report that with any result on these data.

    Returns
    -------
    MuData of 16,828 cells, none paired:

    - ``mod["rna"]``: ``(7564, 4005)`` UMI counts, day 2 (barcodes end in ``-2``).
    - ``mod["protein"]``: ``(9264, 110)`` UMI counts, day 1 (``-1``). Names are the source's, such
      as ``ADT_CD102_A0104``; ``var`` holds ``antigen`` (``CD102``), ``gene`` (mouse symbol; empty
      for the one antibody without: H-2Kb bound to SIINFEKL) and ``clone``.
    - ``obs``, here and in each modality: ``cell_type`` (35 labels), ``is_type`` (False for labels
      that name doublets or cells of low quality, 411 cells of the protein and 615 of the RNA, which
      leaves 28 types), ``tissue`` (by hashtag: ``Spleen``, ``Lymph_Node``, or ``Ambiguous`` for the
      29 cells whose barcode is listed twice with different hashtags) and ``batch`` (``day1``,
      ``day2``).

    Counts are raw, CSR, float32. Download 5.0 MB, memory 41 MB, reading takes some seconds.

    Raises
    ------
    DownloadError
        A file is neither in the cache nor reachable.

    Notes
    -----
    Origin: Gayoso et al. 2021, "Joint probabilistic modeling of single-cell multi-omic data with
    totalVI", Nature Methods (GEO GSE150599, public); the repository
    ``YosefLab/totalVI_reproducibility`` serves the files and states no licence. Antibodies are
    TotalSeq-A.

    Labels are the authors', from totalVI on both modalities and all days. Their file has no
    barcodes: its rows are the 9,264 cells of day 1, then the 7,564 of day 2, then another panel.
    The tests check that offset: one row off, CD4 and CD8a protein no longer tell their labels
    apart.
    """
    rna, rna_cells, genes = read_features_by_cells(_fetch("sln_d2_harmo_rna_seurat.csv.gz"))
    protein, protein_cells, antibodies = read_features_by_cells(
        _fetch("sln_d1_harmo_pro_seurat.csv.gz")
    )
    obs = _cells(protein_cells, rna_cells)
    parts = {
        "rna": modality(rna, obs=restrict(obs, rna_cells), var=genes),
        "protein": modality(
            protein, obs=restrict(obs, protein_cells), var=_antibody_table(antibodies)
        ),
    }
    return assemble(parts, obs)


def _fetch(name: str) -> Path:
    return fetch(name, dataset="sln_unpaired")


def _cells(day1: pd.Index, day2: pd.Index) -> pd.DataFrame:
    """Columns of the cells of both days; annotation rows are day 1, then day 2, in file order."""
    cells = day1.append(day2)
    table = pd.read_csv(_fetch("annotations_subclustered.csv"), index_col=0)
    labels = table["labels"].astype(str).to_numpy()[: len(cells)]
    is_type = np.array([not any(word in x.lower() for word in _NOT_A_TYPE) for x in labels])
    return pd.DataFrame(
        {
            "cell_type": pd.Categorical(labels),
            "is_type": is_type,
            "tissue": _tissue(cells),
            "batch": pd.Categorical(["day1"] * len(day1) + ["day2"] * len(day2)),
        },
        index=cells,
    )


def _tissue(cells: pd.Index) -> pd.Categorical:
    """Hashtag of each cell; the table names both days' barcodes with the ending of day 1."""
    table = pd.read_csv(_fetch("hashtag_labels.csv"), dtype=str)
    stems = table["Cell_BC"].str.rsplit("-", n=1).str[0]
    by_stem = table["Hash_ID"].groupby(stems).agg(["first", "nunique"])
    hashtag = by_stem["first"].where(by_stem["nunique"] == 1, _AMBIGUOUS)
    return pd.Categorical(hashtag.loc[[name.rsplit("-", 1)[0] for name in cells]].to_numpy())


def _antibody_table(antibodies: pd.Index) -> pd.DataFrame:
    """Columns ``antigen``, ``gene``, ``clone`` of names such as ``ADT_CD102_A0104``."""
    table = pd.read_csv(
        _fetch("TotalSeq_ADT111_barcodes_RNA_20190717.csv"),
        dtype=str,
        keep_default_na=False,
    )
    table.index = pd.Index(table["Barcode"].astype(int))
    antigens, numbers = [], []
    for name in antibodies:
        antigen, _, barcode = name.removeprefix("ADT_").rpartition("_A")
        antigens.append(antigen)
        numbers.append(int(barcode))
    chosen = table.loc[numbers]
    return pd.DataFrame(
        {
            "antigen": antigens,
            "gene": chosen["RNA"].str.strip().to_numpy(),
            "clone": chosen["Clone"].replace(_REPAIRED_CLONES).str.strip().to_numpy(),
        },
        index=antibodies,
    )
