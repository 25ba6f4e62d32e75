"""CITE-seq of blood cells in four batches, of which one lacks protein and one lacks RNA."""

from __future__ import annotations

import warnings

import mudata

from mosaicvi._fetch import fetch
from mosaicvi.datasets._assemble import assemble, modality, restrict


def pbmc_mosaic() -> mudata.MuData:
    """Load human blood cells, some with RNA, some with 224 proteins, some with both.

    The smallest real case of everything: observations that do not overlap, batches, many proteins
    and labels. Batch ``p1_0`` has RNA only, ``p2_0`` protein only, ``p3_0`` and ``p4_0`` have both,
    400 cells each.

    Returns
    -------
    MuData of 1,600 cells:

    - ``mod["rna"]``: ``(1200, 500)`` UMI counts (8 % nonzero, median 506 a cell).
    - ``mod["protein"]``: ``(1200, 224)`` UMI counts (94 % nonzero, median 5,190 a cell). Names are
      lower-case and dotted, as the source has them: ``hla.dr``, ``cd66a.c.e``; ``cd3.1`` and
      ``cd3.2`` are two clones, ``cd279`` is PD-1, and both ``cd8`` and ``cd8a`` exist.
    - ``obs``, here and in each modality: ``batch`` (4) and ``cell_type`` (8: B, CD4 T, CD8 T, DC,
      Mono, NK, other, other T).

    Counts are raw, CSR, float32. Download 2.8 MB, memory 5 MB.

    Raises
    ------
    DownloadError
        The file is neither in the cache nor reachable.

    Notes
    -----
    Origin: Hao et al. 2021, "Integrated analysis of multimodal single-cell data", Cell
    (GEO GSE164378), cells of eight donors; subset and filtered for the quick start of MIDAS (He et
    al. 2024, Nature Biotechnology), whose repository ``labomics/midas`` is under the MIT licence
    and serves the file. Labels are the level-1 types that the authors of the atlas derived from
    RNA and protein together: they are not independent of either.
    """
    path = fetch("quickstart_pbmc_mosaic.h5mu", dataset="pbmc_mosaic")
    with warnings.catch_warnings():
        # mudata announces, on reading, that its column rules change; ``assemble`` sets its own.
        warnings.simplefilter("ignore")
        source = mudata.read_h5mu(path)
    obs = (
        source.obs[["batch", "celltype"]]
        .rename(columns={"celltype": "cell_type"})
        .astype(str)
        .astype("category")
    )
    parts = {
        name: modality(part.X, obs=restrict(obs, part.obs_names), var=part.var_names)
        for name, part in (("rna", source.mod["rna"]), ("protein", source.mod["adt"]))
    }
    return assemble(parts, obs)
