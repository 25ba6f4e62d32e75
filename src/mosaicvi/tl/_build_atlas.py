"""One latent space from one AnnData an assay, in one call."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from mosaicvi import _keys
from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi._settings import logger
from mosaicvi.data._columns import labels
from mosaicvi.data._structure import check_modality, rows_of
from mosaicvi.datasets._assemble import assemble
from mosaicvi.graph import from_coordinates, from_names
from mosaicvi.graph._match import is_ensembl
from mosaicvi.model import MosaicVI
from mosaicvi.model._ties import ENOUGH_PAIRS
from mosaicvi.tl._alignment_confidence import alignment_confidence

if TYPE_CHECKING:
    from mudata import MuData

    from mosaicvi.graph import FeatureGraph

LIKELIHOODS = {"rna": "zinb", "protein": "nb_mixture", "atac": "poisson"}
"""Likelihood of a modality that goes by one of these names."""
SYMBOLS = ("gene_symbols", "gene_symbol", "gene_name", "gene_names", "feature_name", "symbol")
"""Columns in which readers and archives keep symbols, where features are named by identifiers."""
UNS_MODALITY = "modality"
BATCH = "atlas_batch"
"""A name that no assay has, so that it contradicts none of their columns."""


def build_atlas(
    assays: Mapping[str, AnnData] | Sequence[AnnData],
    *,
    modalities: Sequence[str] | None = None,
    likelihoods: Mapping[str, str] | None = None,
    batch_key: str | None = None,
    graph: FeatureGraph | None = None,
    annotation: Any = None,
    seed: int = 0,
    model_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
) -> tuple[MuData, MosaicVI]:
    """Bring assays into one latent space: MuData, graph, fit, neighbours, UMAP, confidence.

    Cells of the same name in two assays are the same cell. Where such pairs are fewer than half of
    the smaller assay, features help to tie assays, through a graph: the one that is given, else
    names of antibodies to genes for ``protein`` and coordinates for ``atac``, both to ``rna`` (of
    genes named by Ensembl identifiers, a column such as ``gene_symbols`` is read); what is chosen
    is logged. Barcodes of different captures coincide by chance: a warning says where few
    names are shared.

    Parameters
    ----------
    assays
        Modality to its AnnData, with raw counts in ``X`` or ``layers["counts"]``; or AnnData
        objects, named by ``modalities`` or by ``uns["modality"]``. They are not changed.
    modalities
        Names of the assays of a list, in its order.
    likelihoods
        Modality to likelihood; by default ``zinb`` for ``rna``, ``nb_mixture`` for ``protein``,
        ``poisson`` for ``atac``. Modalities of other names need one.
    batch_key
        Column of the assays' ``obs`` with the technical batch; None: each assay is one batch, a
        paired cell that of its first assay.
    graph
        Graph to tie assays with; None: built where it is needed.
    annotation
        Where genes lie, for ``atac``: as in :func:`mosaicvi.graph.from_coordinates`; None: columns
        of the RNA's ``var``. Chromosomes may be named with or without ``chr``.
    seed
        Seed of training and of the UMAP.
    model_kwargs, train_kwargs
        Passed to :class:`~mosaicvi.MosaicVI` and :meth:`~mosaicvi.MosaicVI.train`.

    Returns
    -------
    MuData, and the fitted model. ``obs``: columns of the assays (their first value a cell),
    ``atlas_batch``, ``mosaicvi_alignment_confidence``; ``obsm``: ``X_mosaicvi``, ``X_umap`` and the
    confidence by pair of modalities; ``obsp`` and ``uns["neighbors"]``: scanpy's neighbours in the
    latent space.

    Raises
    ------
    RequestError
        If there are fewer than two assays, names are missing or repeated, or a likelihood is.
    DataError
        If nothing ties two assays (no shared cell and no graph), or as setup and graph builders.

    Examples
    --------
    >>> mdata, model = mosaicvi.tl.build_atlas({"rna": rna, "protein": protein}, batch_key="donor")
    >>> mosaicvi.pl.alignment(mdata, "cell_type")
    """
    named = _named(assays, modalities)
    chosen = _likelihoods(named, likelihoods or {})
    mdata = _mudata(named, batch_key)
    MosaicVI.setup_mudata(mdata, chosen, batch_key=BATCH)
    if graph is None:
        graph = _needed_graph(mdata, annotation)
    model = MosaicVI(mdata, **{"seed": seed, "graph": graph, **(model_kwargs or {})})
    model.train(**(train_kwargs or {}))
    mdata.obsm[_keys.OBSM_LATENT] = model.get_latent_representation()
    _neighbours(mdata, seed)
    alignment_confidence(model, seed=seed)
    return mdata, model


def _named(
    assays: Mapping[str, AnnData] | Sequence[AnnData], names: Sequence[str] | None
) -> dict[str, AnnData]:
    """Assays by name, as objects of their own that share the values."""
    if isinstance(assays, Mapping):
        pairs = list(assays.items())
    elif not isinstance(assays, Sequence):
        raise RequestError(
            f"found {type(assays).__name__}",
            key="assays",
            expected="a dict from modality to AnnData, or a list of AnnData",
            remedy="for a MuData: build_atlas(dict(mdata.mod))",
        )
    else:
        given: Sequence[Any] = (
            [getattr(part, "uns", {}).get(UNS_MODALITY) for part in assays]
            if names is None
            else names
        )
        if len(given) != len(assays) or None in given:
            raise RequestError(
                f"{len(assays)} assays, names {list(given)}",
                key="modalities",
                expected="a name for each assay",
                remedy='build_atlas({"rna": rna, "protein": protein})',
            )
        pairs = list(zip(map(str, given), assays, strict=True))
    if len(pairs) < 2 or len({name for name, _ in pairs}) < len(pairs):
        raise RequestError(
            f"assays {[name for name, _ in pairs]}",
            key="assays",
            expected="two or more, each name once",
            remedy="put cells of one assay into one AnnData, such as by anndata.concat, with their "
            "data set in the column that batch_key names",
        )
    for name, part in pairs:
        check_modality(part, name)
    return {
        name: AnnData(part.X, obs=part.obs.copy(), var=part.var.copy(), layers=dict(part.layers))
        for name, part in pairs
    }


def _likelihoods(assays: Mapping[str, AnnData], given: Mapping[str, str]) -> dict[str, str]:
    chosen = {**LIKELIHOODS, **given}
    lacking = [name for name in assays if name not in chosen]
    if lacking:
        raise RequestError(
            "its likelihood is not known",
            modality=lacking[0],
            key="likelihoods",
            remedy=f'likelihoods={{"{lacking[0]}": "nb"}}, or the names rna, protein, atac',
        )
    return {name: chosen[name] for name in assays}


def _mudata(assays: dict[str, AnnData], batch_key: str | None) -> MuData:
    """Assays in one MuData, with their columns, and the batch, in the global ``obs``."""
    cells = pd.Index(dict.fromkeys(name for part in assays.values() for name in part.obs_names))
    obs = pd.DataFrame(index=cells)
    for part in assays.values():
        for key in part.obs.columns:
            own = part.obs[key].astype(object).reindex(cells)
            obs[key] = own if key not in obs else obs[key].where(obs[key].notna(), own)
    batch = pd.Series(index=cells, dtype=object)
    for name, part in assays.items():
        batch = batch.fillna(pd.Series(name, index=part.obs_names).reindex(cells))
    mdata = assemble(assays, obs.infer_objects())
    if batch_key is not None:
        rows = {name: rows_of(mdata, name) for name in assays}
        batch = pd.Series(labels(mdata, batch_key, rows, option="batch_key"), mdata.obs_names)
    mdata.obs[BATCH] = pd.Categorical(batch.loc[mdata.obs_names].astype(str))
    return mdata


def tied(mdata: MuData, least: float = 0.0) -> list[set[str]]:
    """Groups of modalities that shared cells tie, directly or through others.

    Parameters
    ----------
    mdata
        The MuData.
    least
        Share of the smaller modality's cells that must be shared for two modalities to be tied;
        zero: one cell is enough.
    """
    group = {name: {name} for name in mdata.mod}
    present = {name: np.asarray(mdata.obsmap[name]).ravel() > 0 for name in mdata.mod}
    for first, second in combinations(present, 2):
        shared = int((present[first] & present[second]).sum())
        if shared and shared >= least * min(present[first].sum(), present[second].sum()):
            joined = group[first] | group[second]
            group.update(dict.fromkeys(joined, joined))
    return list({id(each): each for each in group.values()}.values())


def _needed_graph(mdata: MuData, annotation: Any) -> FeatureGraph | None:
    """Graph where few shared cells tie assays; None elsewhere, or if cells are all there is."""
    if len(tied(mdata, ENOUGH_PAIRS)) == 1:
        logger.info("shared cells tie all assays; no graph is needed.")
        return None
    try:
        return _built_graph(mdata, annotation)
    except DataError as error:
        if len(tied(mdata)) > 1:
            raise
        warnings.warn(
            f"only few cells tie the assays, and no graph could be built to help them: {error} "
            "Alignment rests on these cells alone; graph= would add what features say.",
            MosaicviWarning,
            stacklevel=3,
        )
        return None


def _built_graph(mdata: MuData, annotation: Any) -> FeatureGraph:
    """Graph of all pairs of modalities that a builder knows."""
    found = []
    if {"rna", "protein"} <= set(mdata.mod):
        logger.info("graph: antibodies linked to genes by name (graph.from_names).")
        antigen = "antigen" if "antigen" in mdata.mod["protein"].var.columns else None
        found.append(
            from_names(
                mdata,
                "rna",
                "protein",
                antigen_key=antigen,
                gene_symbols=_symbols(mdata.mod["rna"]),
            )
        )
    if {"rna", "atac"} <= set(mdata.mod):
        logger.info("graph: genes linked to peaks by coordinates (graph.from_coordinates).")
        found.append(
            from_coordinates(mdata, "rna", "atac", annotation=annotation, chromosomes="auto")
        )
    linked = set().union(*(part.modalities for part in found))
    lacking = [name for name in mdata.mod if name not in linked]
    if lacking:
        raise DataError(
            "nothing ties it to the other assays: they share no cell, and no graph can be built",
            modality=lacking[0],
            remedy="give graph=, such as mosaicvi.graph.from_table(...); or, if they are that, "
            "call the assays 'rna', 'protein' and 'atac', for which graphs are built",
        )
    return found[0].union(*found[1:])


def _symbols(rna: AnnData) -> str | None:
    """Column with gene symbols, where genes are named by Ensembl identifiers and one is there."""
    if not is_ensembl(rna.var_names):
        return None
    return next((key for key in SYMBOLS if key in rna.var.columns), None)


def _neighbours(mdata: MuData, seed: int) -> None:
    """Write scanpy's neighbours and UMAP of the latent space."""
    import scanpy as sc

    table = AnnData(np.zeros((mdata.n_obs, 0), np.float32), obs=mdata.obs[[]])
    table.obsm[_keys.OBSM_LATENT] = mdata.obsm[_keys.OBSM_LATENT]
    sc.pp.neighbors(table, use_rep=_keys.OBSM_LATENT, n_neighbors=min(15, mdata.n_obs - 1))
    sc.tl.umap(table, random_state=seed)
    mdata.obsm[_keys.OBSM_UMAP] = table.obsm["X_umap"]
    for key in table.obsp:
        mdata.obsp[key] = table.obsp[key]
    mdata.uns["neighbors"] = table.uns["neighbors"]
