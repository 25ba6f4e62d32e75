"""Protein of a data set that only has RNA, from a reference that has both, in one call."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from mosaicvi import _keys
from mosaicvi._errors import DataError, MosaicviWarning, RequestError, check_whole
from mosaicvi._settings import logger
from mosaicvi.model import MosaicVI
from mosaicvi.model._summaries import check_quantiles, check_scale
from mosaicvi.tl._reference import PROTEIN, RNA, Joint, counts_of, join

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mudata import MuData

LIKELIHOODS = {RNA: "zinb", PROTEIN: "nb_mixture"}

FEW_GENES = 0.1
"""Share of the genes of query or reference, whichever has fewer, below which names hardly agree."""


def impute_protein(
    rna: AnnData,
    reference: MuData,
    *,
    rna_modality: str = RNA,
    protein_modality: str = PROTEIN,
    batch_key: str | None = None,
    train_on_query: bool = False,
    n_top_genes: int | None = 4000,
    n_samples: int = 100,
    quantiles: Sequence[float] | float = (0.05, 0.95),
    scale: Literal["counts", "log1p", "clr", "foreground"] = "counts",
    transform_batch: str | Sequence[str] | None = None,
    seed: int = 0,
    model_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    return_model: bool = False,
) -> AnnData | tuple[AnnData, MosaicVI]:
    """Impute the proteins of cells that only have RNA.

    Trains :class:`~mosaicvi.MosaicVI` on the genes that both data sets have, and imputes. Neither
    object is changed. The query is a batch of its own, which never measured protein: intervals hold
    for a new batch of unknown offset, and are wider than within the reference. How much wider is
    learned from how the reference's batches differ, so give ``batch_key`` where there are several.

    Parameters
    ----------
    rna
        Cells to impute for, with raw RNA counts in ``X`` or ``layers["counts"]``.
    reference
        Cells with RNA and protein, raw counts; some may lack either. Counts of either object may
        lie on disk (backed, or :func:`mosaicvi.read_lazy`); they are read into memory.
    rna_modality, protein_modality
        The reference's modalities.
    batch_key
        Column of the technical batch: of the reference, in ``reference.obs`` or its modalities',
        and of ``rna.obs`` if it has the column. None: each data set is one batch.
    train_on_query
        Whether the query's cells help to train the model. Useful where the query resembles the
        reference; False (default) keeps the reference's model what it is without the query.
    n_top_genes
        Of more shared genes than this, the most variable ones in the reference are used (Pearson
        residuals; Lause, Berens and Kobak 2021). None: all.
    n_samples, quantiles, scale, transform_batch
        As in :meth:`mosaicvi.MosaicVI.impute`.
    seed
        Seed of training and of draws.
    model_kwargs, train_kwargs
        Passed to :class:`~mosaicvi.MosaicVI` and :meth:`~mosaicvi.MosaicVI.train`.
    return_model
        Also return the fitted model.

    Returns
    -------
    AnnData ``(n_query_cells, n_proteins)``, cells in the order of ``rna``: ``X``, layers and
    ``var`` as from :meth:`mosaicvi.MosaicVI.impute`; ``obs`` holds the columns of ``rna.obs`` too
    (but for ``measured`` and ``evidence``, which are those of ``impute``), and
    ``obsm["X_mosaicvi"]`` the latent representation. ``uns["mosaicvi"]["n_shared_genes"]`` and
    ``["n_genes"]`` say how many genes are shared, and used. With ``return_model`` also the model.

    Raises
    ------
    DataError
        If counts, genes or cells are not what the model needs, or no gene is shared.
    RequestError
        If an option is unknown.
    KeyboardInterrupt
        If training is interrupted: an answer would not say that it is of half a fit.

    Examples
    --------
    >>> protein = mosaicvi.tl.impute_protein(rna, mosaicvi.datasets.pbmc10k_cite())
    >>> protein.to_df(layer="log1p_mean")
    """
    _check(rna, reference, (rna_modality, protein_modality))
    levels = check_quantiles(quantiles)
    if n_top_genes is not None:
        check_whole(n_top_genes, "n_top_genes", 1)
    modalities = {RNA: rna_modality, PROTEIN: protein_modality}
    joint = join(
        counts_of(rna, LIKELIHOODS[RNA], RNA),
        {
            name: counts_of(reference.mod[source], LIKELIHOODS[name], source)
            for name, source in modalities.items()
        },
        batches=_batches(rna, reference, modalities, batch_key),
        n_top_genes=n_top_genes,
        with_query=train_on_query,
    )
    logger.info(
        "%d genes are shared by the query (%d) and the reference (%d); %d are used.",
        joint.n_shared_genes,
        rna.n_vars,
        reference.mod[rna_modality].n_vars,
        joint.n_genes,
    )
    _warn_few_genes(joint.n_shared_genes, rna.n_vars, reference.mod[rna_modality].n_vars)
    MosaicVI.setup_mudata(joint.training, LIKELIHOODS, batch_key=Joint.BATCH)
    model = MosaicVI(joint.training, **{"seed": seed, **(model_kwargs or {})})
    # What is asked for is looked at before a fit is spent on it.
    model._request(PROTEIN, [RNA], n_samples, transform_batch, None)
    check_scale(scale, model.module.decoders[PROTEIN].likelihood, PROTEIN)
    if model.train(**(train_kwargs or {})).status == "interrupted":
        # An answer would not say that it is of half a fit, or of none.
        raise KeyboardInterrupt
    query = None if train_on_query else joint.query
    with warnings.catch_warnings():
        # that the query is a batch of its own is what was asked for
        warnings.filterwarnings("ignore", "batches .* were not there", MosaicviWarning)
        answer = model.impute(
            PROTEIN,
            [RNA],
            adata=query,
            indices=joint.query_rows,
            n_samples=n_samples,
            quantiles=levels,
            scale=scale,
            transform_batch=transform_batch,
        )
        answer.obsm[_keys.OBSM_LATENT] = model.get_latent_representation(query, joint.query_rows)
    answer = _as_query(answer, rna, joint)
    if return_model:
        return answer, model
    for known in (joint.training, joint.query):
        if known is not None:
            # scvi-tools would keep it for good, and nobody else knows of it.
            model.deregister_manager(known)
    return answer


def _as_query(answer: AnnData, rna: AnnData, joint: Joint) -> AnnData:
    """Give the answer the names and columns of the query's cells."""
    own = answer.obs.copy()
    answer.obs_names = rna.obs_names.astype(str)
    answer.obs = rna.obs.drop(columns=[key for key in own if key in rna.obs]).assign(
        **{key: own[key].to_numpy() for key in own}
    )
    answer.uns[_keys.UNS] = {
        **answer.uns[_keys.UNS],
        "n_shared_genes": joint.n_shared_genes,
        "n_genes": joint.n_genes,
        "train_on_query": joint.query is None,
    }
    return answer


def _warn_few_genes(n_shared: int, n_query: int, n_reference: int) -> None:
    """Tell of so few shared genes that the names of the two hardly agree."""
    if n_shared < FEW_GENES * min(n_query, n_reference):
        warnings.warn(
            f"only {n_shared} genes are shared by the query ({n_query} genes) and the reference "
            f"({n_reference}), and the answer rests on these alone. Genes may be named in two "
            "ways: bring both to gene symbols, or both to Ensembl identifiers without versions.",
            MosaicviWarning,
            stacklevel=3,
        )


def _check(rna: object, reference: MuData, modalities: tuple[str, str]) -> None:
    if not isinstance(rna, AnnData):
        raise DataError(
            f"rna is a {type(rna).__name__}", expected="an AnnData", remedy='mdata.mod["rna"]'
        )
    for name in modalities:
        if name not in getattr(reference, "mod", {}):
            raise RequestError(
                f"the reference has no modality {name!r}",
                key="reference",
                expected="a MuData with RNA and protein"
                + (f"; it has {list(reference.mod)}" if hasattr(reference, "mod") else ""),
                remedy="name them with rna_modality= and protein_modality=",
            )


def _batches(
    rna: AnnData, reference: MuData, modalities: Mapping[str, str], batch_key: str | None
) -> tuple[pd.Series, pd.Series]:
    """Batch of each cell of the query and of the reference."""
    from mosaicvi.data._columns import labels
    from mosaicvi.data._structure import rows_of

    query = pd.Series("query", index=rna.obs_names)
    known = pd.Series("reference", index=reference.obs_names)
    if batch_key is None:
        return query, known
    rows = {source: rows_of(reference, source) for source in modalities.values()}
    known[:] = labels(reference, batch_key, rows, option="batch_key")
    if batch_key in rna.obs:
        if rna.obs[batch_key].isna().any():
            raise DataError(
                "the column of the query's cells has missing values",
                key=batch_key,
                expected="a batch for every cell",
                remedy="fill in rna.obs[batch_key], or leave the column out there: the query's "
                "cells are one batch then",
            )
        query[:] = "query:" + np.asarray(rna.obs[batch_key].astype(str), dtype=object)
    # The query is a batch of its own, whatever the reference's batches are called.
    while query.isin(known.astype(str)).any():
        query = "new " + query
    return query, known
