"""MuData for tests of feature graphs: names and ``var`` matter there, values do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from tests.helpers import make_mudata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import mudata


def named(features: Mapping[str, Sequence[str] | pd.DataFrame]) -> mudata.MuData:
    """A MuData of two cells with these features, or these ``var``, by modality."""
    modalities = {}
    for name, given in features.items():
        var = given if isinstance(given, pd.DataFrame) else pd.DataFrame(index=list(given))
        counts = sp.csr_matrix((2, len(var)), dtype=np.float32)
        adata = anndata.AnnData(counts, var=var.copy())
        adata.obs_names = ["c0", "c1"]
        modalities[name] = adata
    return make_mudata(modalities)


def genes_at(rows: Mapping[str, tuple[str, int, int, str]]) -> pd.DataFrame:
    """Annotation of genes: chromosome, start, end, strand by name."""
    table = pd.DataFrame(list(rows.values()), columns=["chrom", "start", "end", "strand"])
    return table.assign(gene=list(rows))
