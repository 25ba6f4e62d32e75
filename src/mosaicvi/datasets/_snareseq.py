"""SNARE-seq of mouse cortex: RNA and accessibility of the same cells, with true pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mosaicvi._fetch import fetch
from mosaicvi.datasets._assemble import assemble, modality

if TYPE_CHECKING:
    from pathlib import Path

    import mudata

_COLUMNS = {"Ident": "cell_type", "cluster (remapped)": "cell_class", "Batch": "batch"}


def snareseq_cortex() -> mudata.MuData:
    """Load adult mouse cortex, RNA and chromatin accessibility of the same cells, very sparse.

    Returns
    -------
    MuData of 10,309 cells, all paired:

    - ``mod["rna"]``: ``(10309, 1677)`` UMI counts (6 % nonzero).
    - ``mod["atac"]``: ``(10309, 25734)`` fragment counts of peaks (.4 % nonzero, a median of 83 a
      cell). ``var`` holds ``chrom``, ``start`` and ``end`` on mm10, 0-based and half-open, as the
      peaks' names (``chr1_4914570_4914685``) say.
    - ``obs``, here and in each modality: ``cell_type`` (23), ``cell_class`` (15 coarser classes),
      ``batch`` (12).
    - ``uns["links"]``: the source's own table of which gene each peak belongs to, 25,734 rows with
      columns ``source`` (gene), ``target`` (peak), ``sign`` (1) and ``weight`` (1): gene body plus
      2 kb upstream. Meant as a reference for graph builders.

    Counts are raw, CSR, float32. Download 5.9 MB, memory 30 MB.

    Raises
    ------
    DownloadError
        A file is neither in the cache nor reachable.

    Notes
    -----
    Origin: Chen, Lake and Zhang 2019, "High-throughput sequencing of the transcriptome and
    chromatin accessibility in the same cell", Nature Biotechnology (GEO GSE126074); genes and peaks
    selected by the authors of scMoMaT, whose repository ``PeterZZQ/scMoMaT`` is under the MIT
    licence and serves the files. Labels come from the original authors' clustering of the RNA, so
    accuracy from RNA flatters. 1,119 cells carry the label of miscellaneous ones.
    """
    meta = pd.read_csv(_fetch("meta_c1.csv"), index_col=0, dtype=str)
    obs = pd.DataFrame({new: meta[old].astype("category") for old, new in _COLUMNS.items()})
    obs.index.name = None
    genes, regions = _lines(_fetch("genes.txt")), _lines(_fetch("regions.txt"))
    parts = {
        "rna": modality(_counts("GxC1.npz"), obs=obs, var=genes),
        "atac": modality(_counts("RxC1.npz"), obs=obs, var=_coordinates(regions)),
    }
    mdata = assemble(parts, obs)
    mdata.uns["links"] = _links(genes, regions)
    return mdata


def _fetch(name: str) -> Path:
    return fetch(f"snareseq_{name}", dataset="snareseq_cortex")


def _lines(path: Path) -> pd.Index:
    return pd.Index(path.read_text(encoding="utf-8").split())


def _counts(name: str) -> sp.csr_matrix:
    """Read counts of shape ``(n_cells, n_features)``; the files are features x cells."""
    return sp.csr_matrix(sp.load_npz(_fetch(name)).T)


def _coordinates(regions: pd.Index) -> pd.DataFrame:
    """Columns ``chrom``, ``start``, ``end`` of names such as ``chr1_4914570_4914685``."""
    parts = [name.rsplit("_", 2) for name in regions]
    return pd.DataFrame(
        {
            "chrom": pd.Categorical([chrom for chrom, _, _ in parts]),
            "start": np.array([int(start) for _, start, _ in parts], dtype=np.int64),
            "end": np.array([int(end) for _, _, end in parts], dtype=np.int64),
        },
        index=regions,
    )


def _links(genes: pd.Index, regions: pd.Index) -> pd.DataFrame:
    table = sp.coo_matrix(sp.load_npz(_fetch("GxR.npz")))
    order = np.lexsort((table.row, table.col))
    return pd.DataFrame(
        {
            "source": genes.to_numpy()[table.row[order]],
            "target": regions.to_numpy()[table.col[order]],
            "sign": np.ones(table.nnz, dtype=np.int64),
            "weight": np.ones(table.nnz, dtype=np.float64),
        }
    )
