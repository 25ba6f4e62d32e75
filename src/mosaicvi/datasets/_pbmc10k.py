"""Two CITE-seq samples of blood cells with the same genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from mosaicvi._fetch import fetch
from mosaicvi.datasets._assemble import assemble, modality, read_features_by_cells

if TYPE_CHECKING:
    import mudata

_ANTIBODY_SUFFIX = "_TotalSeqB"


def _one_batch(cells: pd.Index, batch: str) -> pd.DataFrame:
    return pd.DataFrame({"batch": pd.Categorical([batch] * len(cells))}, index=cells)


def pbmc10k_cite() -> mudata.MuData:
    """Load human blood cells, RNA and 14 proteins of the same cells.

    Returns
    -------
    MuData of 6,855 cells, all paired:

    - ``mod["rna"]``: ``(6855, 4000)`` UMI counts of highly variable genes (9 % nonzero, median 661
      a cell).
    - ``mod["protein"]``: ``(6855, 14)`` UMI counts of surface proteins (median 5,619 a cell),
      without the source's suffix ``_TotalSeqB``.
    - ``obs``, here and in each modality: ``batch``, which is ``pbmc10k`` throughout.

    CD4, CD14, CD19 and TIGIT name a gene in one modality and a protein in the other. They are
    unique within each modality but occur twice in ``mdata.var_names``: address features through
    their modality, ``mdata["protein"][:, "CD4"]``. Counts are raw, CSR, float32. Download 3.2 MB,
    memory 21 MB, reading takes some seconds.

    Raises
    ------
    DownloadError
        A file is neither in the cache nor reachable.

    Notes
    -----
    Origin: 10x Genomics, "10k PBMCs from a Healthy Donor, Gene Expression with a Panel of
    TotalSeq-B Antibodies" (``pbmc_10k_protein_v3``), data under CC BY 4.0; cells and genes as
    filtered by the authors of totalVI (Gayoso et al. 2021, Nature Methods), whose repository
    ``YosefLab/totalVI_reproducibility`` serves the files. There are no cell labels.
    """
    rna, cells, genes = read_features_by_cells(
        fetch("pbmc10k_harmo_rna.csv.gz", dataset="pbmc10k_cite")
    )
    protein, protein_cells, antibodies = read_features_by_cells(
        fetch("pbmc10k_harmo_pro.csv.gz", dataset="pbmc10k_cite")
    )
    proteins = pd.Index([name.removesuffix(_ANTIBODY_SUFFIX) for name in antibodies])
    obs = _one_batch(cells, "pbmc10k")
    parts = {
        "rna": modality(rna, obs=obs, var=genes),
        "protein": modality(protein, obs=obs.loc[protein_cells], var=proteins),
    }
    return assemble(parts, obs)


def pbmc5k_rna() -> mudata.MuData:
    """Load human blood cells of another donor, RNA only, with the genes of :func:`pbmc10k_cite`.

    Returns
    -------
    MuData of 3,994 cells with one modality, ``mod["rna"]``: ``(3994, 4000)`` UMI counts;
    ``obs["batch"]``, here and in the modality, is ``pbmc5k`` throughout. Counts are raw, CSR,
    float32. Download 2.5 MB, memory 14 MB.

    Raises
    ------
    DownloadError
        The file is neither in the cache nor reachable.

    Notes
    -----
    Origin: 10x Genomics, "5k PBMCs from a Healthy Donor with a Panel of TotalSeq-B Antibodies"
    (``5k_pbmc_protein_v3``), data under CC BY 4.0, filtered and served as in
    :func:`pbmc10k_cite`; its protein counts are not available there. No cell labels.

    Eleven barcodes also occur in :func:`pbmc10k_cite`, by chance: they are different cells. Make
    names unique before the two meet in one MuData, which pairs cells by name:
    ``mdata["rna"].obs_names = "pbmc5k:" + mdata["rna"].obs_names; mdata.update()``.
    """
    rna, cells, genes = read_features_by_cells(
        fetch("pbmc5k_harmo_rna.csv.gz", dataset="pbmc5k_rna")
    )
    obs = _one_batch(cells, "pbmc5k")
    return assemble({"rna": modality(rna, obs=obs, var=genes)}, obs)
