"""Cells of a comparison: bare counts by modality, and batch and type by cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from mosaicvi._errors import RequestError
from mosaicvi.bm._input import BATCH, TYPE
from mosaicvi.bm._load import column
from mosaicvi.data import ModalitySpec
from mosaicvi.data._register import checked_layer
from mosaicvi.data._values import read_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData

LABEL_KEYS = ("celltype", "cell_type")
LIKELIHOODS = {"rna": "zinb", "protein": "nb_mixture"}
DEFAULT_LIKELIHOOD = "nb"


def likelihood_of(modality: str, chosen: Mapping[str, str]) -> str:
    """Likelihood of a modality: as chosen, else the default of its name."""
    return {**LIKELIHOODS, **chosen}.get(modality, DEFAULT_LIKELIHOOD)


def cell_table(mdata: MuData, data: str, batch_key: str, labels: str | None) -> pd.DataFrame:
    """Batch and type of every cell.

    Parameters
    ----------
    mdata
        The data.
    data
        Their name: the batch of data without batches, and named in errors.
    batch_key
        Column with the batch.
    labels
        Column with the type; None: ``celltype`` or ``cell_type`` where there is one.

    Returns
    -------
    Columns ``batch`` and ``type``, one row a cell; a cell without a type has NaN.

    Raises
    ------
    RequestError
        If there is no column ``labels``.
    """
    obs = pd.DataFrame(index=mdata.obs_names)
    batch = column(mdata, batch_key)
    obs[BATCH] = data if batch is None else batch
    keys = LABEL_KEYS if labels is None else (labels,)
    found = [values for key in keys if (values := column(mdata, key)) is not None]
    if labels is not None and not found:
        raise RequestError(
            f"no column {labels!r} in {data!r}",
            key="labels",
            expected="a column of mdata.obs, or of the modalities' obs",
        )
    obs[TYPE] = found[0] if found else np.nan
    obs[TYPE] = obs[TYPE].astype(object)
    return obs


def bare_tables(mdata: MuData, likelihoods: Mapping[str, str]) -> dict[str, AnnData]:
    """Values (CSR, float32) of some modalities, with names of cells and features and no more.

    Parameters
    ----------
    mdata
        The data.
    likelihoods
        Likelihood of each modality that is wanted. It says where the values are, ``X`` or
        ``layers["counts"]``, by the rule of the models.

    Raises
    ------
    DataError
        If a modality holds no values for its likelihood: baselines would be scored on others.
    """
    tables = {}
    for name, likelihood in likelihoods.items():
        table = mdata.mod[name]
        layer = checked_layer(table, ModalitySpec(likelihood), name)
        values = sp.csr_matrix(read_layer(table, layer, name), dtype=np.float32)
        tables[name] = AnnData(values, table.obs[[]].copy(), table.var[[]].copy())
    return tables
