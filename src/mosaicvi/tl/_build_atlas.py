"""One latent space from one AnnData an assay, in one call."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from mosaicvi import _keys
from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi._scvi import layer_names
from mosaicvi.data._columns import as_label, labels
from mosaicvi.data._structure import check_modality, rows_of
from mosaicvi.datasets._assemble import assemble
from mosaicvi.model import MosaicVI
from mosaicvi.tl._alignment_confidence import alignment_confidence
from mosaicvi.tl._atlas_graph import AtlasGraph
from mosaicvi.tl._obs import joined, storable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mudata import MuData

    from mosaicvi.graph import FeatureGraph
    from mosaicvi.graph._loci import Annotation
    from mosaicvi.graph._rules import Rule

LIKELIHOODS = {"rna": "zinb", "protein": "nb_mixture", "atac": "poisson"}
"""Likelihood of a modality that goes by one of these names."""
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
    annotation: Annotation | None = None,
    rule: Rule | None = None,
    gene_symbols: str | None = None,
    seed: int = 0,
    model_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
) -> tuple[MuData, MosaicVI]:
    """Bring assays into one latent space: MuData, graph, fit, neighbours, UMAP, confidence.

    Cells of the same name in two assays are the same cell. Where such pairs are fewer than half of
    the smaller assay, features help to tie assays, through a graph: the one that is given, else
    names of antibodies to genes for ``protein`` and coordinates for ``atac``, both to ``rna``; what
    is chosen is logged. Barcodes of different captures coincide by chance: a warning says where few
    names are shared, and where cells of two assays are only numbered.

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
    rule
        Which peaks belong to a gene, for ``atac``: :class:`~mosaicvi.graph.GeneBody` (default) or
        :class:`~mosaicvi.graph.Window`.
    gene_symbols
        Column of the RNA's ``var`` by which genes are looked up among antibodies and in the
        annotation; None: their names, and for antibodies to genes that are named by Ensembl
        identifiers a column such as ``gene_symbols``, if there is one.
    seed
        Seed of training and of the UMAP.
    model_kwargs, train_kwargs
        Passed to :class:`~mosaicvi.MosaicVI` and :meth:`~mosaicvi.MosaicVI.train`.

    Returns
    -------
    MuData, and the fitted model. Modalities are the assays with all their tables but ``raw``, which
    is left out (keep counts in a layer). ``obs``: columns of the assays (their first value a cell;
    columns of mixed types as categories, so that a file can hold them), ``atlas_batch``,
    ``mosaicvi_alignment_confidence``; ``obsm``: ``X_mosaicvi``, ``X_umap`` and the
    confidence by pair of modalities; ``obsp`` and ``uns["neighbors"]``: scanpy's neighbours in the
    latent space.

    Raises
    ------
    RequestError
        If there are fewer than two assays; names are missing or repeated, or a likelihood is; or
        both a graph and how to build one are given.
    DataError
        If nothing ties two assays (no shared cell and no graph), or as setup and graph builders.
    KeyboardInterrupt
        If training is interrupted in its first epoch; later, ``model.fit_result`` says so.

    Examples
    --------
    >>> mdata, model = mosaicvi.tl.build_atlas({"rna": rna, "protein": protein}, batch_key="donor")
    >>> mosaicvi.pl.alignment(mdata, "cell_type")
    """
    building = AtlasGraph(annotation, rule, gene_symbols)
    if graph is not None:
        building.check_unused()
    named = _named(assays, modalities)
    chosen = _likelihoods(named, likelihoods or {})
    mdata = _mudata(named, batch_key)
    with _said_of(batch_key):
        MosaicVI.setup_mudata(mdata, chosen, batch_key=BATCH)
    if graph is None:
        graph = building.needed(mdata)
    model = MosaicVI(mdata, **{"seed": seed, "graph": graph, **(model_kwargs or {})})
    result = model.train(**(train_kwargs or {}))
    if result.status == "interrupted" and not result.n_epochs:
        # There is no fit whose latent space could be written; one of some epochs can be used.
        raise KeyboardInterrupt
    mdata.obsm[_keys.OBSM_LATENT] = model.get_latent_representation()
    _neighbours(mdata, seed)
    alignment_confidence(model, seed=seed)
    return mdata, model


@contextmanager
def _said_of(batch_key: str | None) -> Iterator[None]:
    """Warnings inside name the caller's column of batches, not the one that is made of it."""
    name = f"batch_key {batch_key!r}" if batch_key else "batch (no batch_key: each assay is one)"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for each in caught:
        said = str(each.message).replace(f"batch_key {BATCH!r}", name)
        warnings.warn(said, each.category, stacklevel=4)


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
    # A view is the user's choice of cells, and theirs stays one.
    pairs = [
        (name, part.copy() if getattr(part, "is_view", False) else part) for name, part in pairs
    ]
    for name, part in pairs:
        check_modality(part, name)
    _warn_of_numbers(pairs)
    return {name: _own(part) for name, part in pairs}


def _warn_of_numbers(assays: Sequence[tuple[str, AnnData]]) -> None:
    """Warn of cells that AnnData has numbered, which would be pairs for want of names."""
    numbered = [name for name, part in assays if _is_numbered(part.obs_names)]
    if len(numbered) < 2:
        return
    error = DataError(
        f"cells of {numbered[0]!r} and {numbered[1]!r} are named 0, 1, ..., as AnnData names those "
        "without names: cells of one number are taken for one cell",
        key="obs_names",
        expected="names of cells",
        remedy="if they are different cells, give those of one assay other names: "
        f"{numbered[1]}.obs_names = '{numbered[1]}-' + {numbered[1]}.obs_names",
    )
    warnings.warn(str(error), MosaicviWarning, stacklevel=4)


def _is_numbered(names: pd.Index) -> bool:
    return len(names) > 0 and list(names) == [str(number) for number in range(len(names))]


def _own(part: AnnData) -> AnnData:
    """An assay as an object of its own, which shares the values and not the tables of it."""
    return AnnData(
        part.X,
        obs=part.obs.copy(),
        var=part.var.copy(),
        layers={key: part.layers[key] for key in layer_names(part)},
        obsm=dict(part.obsm),
        varm=dict(part.varm),
        obsp=dict(part.obsp),
        varp=dict(part.varp),
        # dicts in dicts: what tools write to the atlas's must not reach the caller's
        uns=deepcopy(dict(part.uns)),
    )


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
    keys = dict.fromkeys(key for part in assays.values() for key in part.obs.columns)
    obs = {
        key: joined([part.obs[key] for part in assays.values() if key in part.obs], cells)
        for key in keys
    }
    batch = pd.Series(index=cells, dtype=object)
    for name, part in assays.items():
        batch = batch.fillna(pd.Series(name, index=part.obs_names).reindex(cells))
    mdata = assemble(assays, pd.DataFrame({key: _column(obs[key]) for key in obs}, index=cells))
    if batch_key is not None:
        rows = {name: rows_of(mdata, name) for name in assays}
        batch = pd.Series(labels(mdata, batch_key, rows, option="batch_key"), mdata.obs_names)
    mdata.obs[BATCH] = pd.Categorical(batch.loc[mdata.obs_names].astype(str))
    return mdata


def _column(values: pd.Series) -> pd.Series:
    """A column that assays were joined in, of the type that its values have, else as categories."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return storable(values)
    column = values.infer_objects()
    if column.dtype != object:
        return column
    if pd.api.types.infer_dtype(column, skipna=True) in {"mixed", "mixed-integer"}:
        # by the names that columns of batches and groups are read by
        column = column.where(column.isna(), column.map(as_label))
    return storable(column)


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
