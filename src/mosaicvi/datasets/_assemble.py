"""What every dataset loader does: read features x cells, and put modalities together."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FEATURES_AT_ONCE = 256


def read_features_by_cells(path: Path) -> tuple[sp.csr_matrix, pd.Index, pd.Index]:
    """Read a dense CSV of features x cells, whose first column names the features.

    Features are read a few at a time, so that memory stays near that of the sparse result.

    Parameters
    ----------
    path
        The file, plain or compressed.

    Returns
    -------
    Counts of shape ``(n_cells, n_features)``, float32; names of the cells; names of the features.
    """
    blocks: list[sp.csr_matrix] = []
    features: list[str] = []
    with pd.read_csv(path, index_col=0, chunksize=_FEATURES_AT_ONCE) as reader:
        for block in reader:
            blocks.append(sp.csr_matrix(block.to_numpy(dtype=np.float32)))
            features.extend(block.index.astype(str))
            cells = block.columns
    return sp.csr_matrix(sp.vstack(blocks).T), pd.Index(cells.astype(str)), pd.Index(features)


def modality(
    counts: sp.csr_matrix | np.ndarray,
    *,
    obs: pd.DataFrame | pd.Index,
    var: pd.DataFrame | pd.Index,
) -> ad.AnnData:
    """AnnData of one modality, with float32 values and columns of its own.

    Parameters
    ----------
    counts
        Shape ``(n_cells, n_features)``.
    obs, var
        Columns by cell and by feature, or only the names.
    """
    if sp.issparse(counts):
        counts = sp.csr_matrix(counts, dtype=np.float32)
        counts.sort_indices()
    return ad.AnnData(
        counts,
        obs=pd.DataFrame(index=obs) if isinstance(obs, pd.Index) else obs.copy(),
        var=pd.DataFrame(index=var) if isinstance(var, pd.Index) else var.copy(),
    )


def assemble(modalities: Mapping[str, ad.AnnData], obs: pd.DataFrame) -> mudata.MuData:
    """Put modalities into a MuData that is the same under every version of mudata.

    mudata 0.3 joins the modalities' columns into the global tables under prefixed names and warns
    that this will end; 0.4 does not join. Here the global ``obs`` is exactly what is passed, and
    modalities keep their columns. Feature names that two modalities share stay as they are:
    mudata supports that (``varmap`` says which row is whose), so its warning is not passed on.

    Parameters
    ----------
    modalities
        Modality name to its AnnData; cells are matched by name.
    obs
        Columns of every cell, indexed by its name; in any order.

    Returns
    -------
    A MuData that holds the given AnnData objects.
    """
    columns = {name: (part.obs, part.var) for name, part in modalities.items()}
    for part in modalities.values():
        part.obs, part.var = part.obs[[]], part.var[[]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata = mudata.MuData(dict(modalities))
    for name, (of_cells, of_features) in columns.items():
        mdata.mod[name].obs, mdata.mod[name].var = of_cells, of_features
    mdata.obs = obs.loc[mdata.obs_names]
    return mdata


def restrict(obs: pd.DataFrame, cells: pd.Index) -> pd.DataFrame:
    """Rows of some cells, without the categories that none of them has."""
    part = obs.loc[cells].copy()
    for name in part.columns:
        if isinstance(part[name].dtype, pd.CategoricalDtype):
            part[name] = part[name].cat.remove_unused_categories()
    return part
