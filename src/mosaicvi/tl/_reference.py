"""A query and a reference on the genes that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from mosaicvi._errors import DataError
from mosaicvi.data import ModalitySpec
from mosaicvi.data._rows import RowSource
from mosaicvi.data._structure import check_modality
from mosaicvi.data._value_checks import check_values
from mosaicvi.data._values import choose_layer, read_layer
from mosaicvi.datasets._assemble import assemble

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData

RNA, PROTEIN = "rna", "protein"
GENES_AT_ONCE = 256
OVERDISPERSION = 100.0
QUERY_PREFIX = "query:"
"""Before the names of the query's cells, some of which the reference may have as well."""


@dataclass(frozen=True)
class Joint:
    """What the model trains on, and what it answers for.

    Attributes
    ----------
    training
        MuData to train on.
    query
        MuData of the query's cells; None if they are part of ``training``.
    query_rows
        Rows of the query's cells there, in the query's order, int64 ``(n_query_cells,)``.
    n_shared_genes, n_genes
        How many genes are shared, and used.
    """

    BATCH: ClassVar[str] = "batch"

    training: MuData
    query: MuData | None
    query_rows: np.ndarray
    n_shared_genes: int
    n_genes: int


def counts_of(adata: AnnData, likelihood: str, modality: str) -> AnnData:
    """Counts of one modality, with names of cells and features and nothing else, in memory.

    Raises
    ------
    DataError
        If there are no counts, they are not valid, or names are not unique.
    """
    if adata.is_view:
        # of a view of a file, a copy would have to be a file
        adata = adata.to_memory() if adata.isbacked else adata.copy()
    check_modality(adata, modality)
    spec = ModalitySpec(likelihood)
    layer, summary = choose_layer(adata, spec, modality)
    check_values(adata, layer, summary, spec, modality)
    values = read_layer(adata, layer, modality)
    if isinstance(values, RowSource):
        values = values[:]
    counts = sp.csr_matrix(values, dtype=np.float32)
    obs = pd.DataFrame(index=adata.obs_names.astype(str))
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=adata.var_names.astype(str)))


def join(
    query: AnnData,
    reference: Mapping[str, AnnData],
    *,
    batches: tuple[pd.Series, pd.Series],
    n_top_genes: int | None,
    with_query: bool,
) -> Joint:
    """Put query and reference on the genes that they share.

    Parameters
    ----------
    query
        RNA counts of the query's cells.
    reference
        RNA and protein counts of the reference.
    batches
        Batch of each cell of the query, and of the reference.
    n_top_genes
        At most this many genes; None: all that are shared.
    with_query
        Whether the query's cells are part of the training data.

    Raises
    ------
    DataError
        If no gene is shared.
    """
    genes = reference[RNA].var_names.intersection(query.var_names, sort=False)
    if len(genes) == 0:
        raise DataError(
            f"no gene is shared: the query has {list(query.var_names[:3])}..., the reference "
            f"{list(reference[RNA].var_names[:3])}...",
            modality=RNA,
            key="var_names",
            expected="genes of the same species under the same names",
            remedy="bring both to gene symbols, or both to Ensembl identifiers",
        )
    chosen = genes[_variable_genes(reference[RNA][:, genes].X, n_top_genes)]
    parts = {RNA: reference[RNA][:, chosen].copy(), PROTEIN: reference[PROTEIN]}
    asked = query[:, chosen].copy()
    asked.obs_names = QUERY_PREFIX + asked.obs_names
    of_query, of_reference = batches
    of_query = of_query.set_axis(asked.obs_names)
    if with_query:
        values = sp.vstack([parts[RNA].X, asked.X], format="csr")
        cells = pd.DataFrame(index=parts[RNA].obs_names.append(asked.obs_names))
        parts[RNA] = AnnData(values, obs=cells, var=parts[RNA].var)
        training = _mudata(parts, pd.concat([of_reference, of_query]))
        rows = training.obs_names.get_indexer(asked.obs_names)
        return Joint(training, None, rows, len(genes), len(chosen))
    separate = _mudata({RNA: asked}, of_query)
    rows = separate.obs_names.get_indexer(asked.obs_names)
    return Joint(_mudata(parts, of_reference), separate, rows, len(genes), len(chosen))


def _mudata(parts: Mapping[str, AnnData], batch: pd.Series) -> MuData:
    return assemble(parts, pd.DataFrame({Joint.BATCH: batch.astype(str)}))


def _variable_genes(counts: sp.csr_matrix, n_top_genes: int | None) -> np.ndarray:
    """Columns with the largest variance of Pearson residuals, in their order; None: all."""
    if n_top_genes is None or counts.shape[1] <= n_top_genes:
        return np.arange(counts.shape[1])
    variance = residual_variance(sp.csc_matrix(counts))
    return np.sort(np.argsort(-variance, kind="stable")[:n_top_genes])


def residual_variance(counts: sp.csc_matrix) -> np.ndarray:
    """Variance of each gene's Pearson residuals, as ``scanpy.experimental.pp`` computes it.

    ``(x - mu) / sqrt(mu + mu^2 / 100)``, with ``mu`` the outer product of cell and gene totals over
    the total, clipped at the square root of the number of cells (Lause, Berens and Kobak 2021).
    Written out here because scanpy's function compiles for longer than this takes.

    Parameters
    ----------
    counts
        Shape ``(n_cells, n_genes)``.

    Returns
    -------
    Shape ``(n_genes,)``; zero for a gene without counts.
    """
    per_cell = np.asarray(counts.sum(axis=1), dtype=np.float64)
    per_gene = np.asarray(counts.sum(axis=0), dtype=np.float64)
    limit = np.sqrt(counts.shape[0])
    variance = np.zeros(counts.shape[1])
    for start in range(0, counts.shape[1], GENES_AT_ONCE):
        columns = slice(start, start + GENES_AT_ONCE)
        mean = per_cell @ per_gene[:, columns] / max(per_gene.sum(), 1.0)
        deviation = counts[:, columns].toarray() - mean
        spread = np.sqrt(mean + mean**2 / OVERDISPERSION)
        residual = np.divide(deviation, spread, out=np.zeros_like(mean), where=spread > 0)
        variance[columns] = np.clip(residual, -limit, limit).var(axis=0)
    return variance
