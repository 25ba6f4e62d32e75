"""First registration: validate a MuData and write down how it is read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi.data import _columns
from mosaicvi.data._background import log_background
from mosaicvi.data._coverage import check_pair, coverage_layers
from mosaicvi.data._formats import forget
from mosaicvi.data._names import is_interval, looks_mouse, species_of
from mosaicvi.data._odd_features import warn_odd_features
from mosaicvi.data._panel import check_panel, read_panel
from mosaicvi.data._schema import ModalitySpec, Request, likelihood_of
from mosaicvi.data._separable import warn_inseparable
from mosaicvi.data._state import NO_BATCH, MosaicState, RegisteredModality
from mosaicvi.data._structure import (
    check_known,
    check_modality,
    check_object,
    rows_of,
)
from mosaicvi.data._value_checks import check_values, warn_unknown_features
from mosaicvi.data._values import choose_layer, read_layer, row_totals

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

FARTHEST = 2.0
"""How many times all size factors may differ from all counts."""

MANY_GENES = 10_000

FEW_CELLS = 2
"""Cells a batch, on average, below which a column is hardly one of batches."""


def register(mdata: MuData, request: Request) -> MosaicState:
    """Validate everything that a setup asks for; change nothing.

    Parameters
    ----------
    mdata
        The MuData.
    request
        What is asked for.

    Returns
    -------
    What a later reading needs.

    Raises
    ------
    RequestError
        If something is asked for that the data or a likelihood cannot have.
    DataError
        If the data are not what is expected.
    """
    check_object(mdata)
    names = list(request.specs)
    check_known(mdata, names)
    for name in names:
        check_modality(mdata.mod[name], name)
        forget(mdata.mod[name])
    rows = {name: rows_of(mdata, name) for name in names}
    warn_unmeasured_cells(rows)
    batches = _batch_labels(mdata, request, rows)
    modalities = {
        name: _register_modality(mdata, name, spec, rows[name], *batches[name])
        for name, spec in request.specs.items()
    }
    shared = request.batch_key if isinstance(request.batch_key, str) else None
    return MosaicState(
        modalities=modalities,
        n_cells=mdata.n_obs,
        shared_batch_key=shared,
        categorical={key: _categories(mdata, key, rows) for key in request.categorical_keys},
        continuous={key: _moments(mdata, key, rows) for key in request.continuous_keys},
    )


def warn_unmeasured_cells(rows: Mapping[str, np.ndarray]) -> None:
    """Tell of cells that none of the modalities measured."""
    present = np.logical_or.reduce([its_rows >= 0 for its_rows in rows.values()])
    absent = int((~present).sum())
    if absent:
        warnings.warn(
            f"{absent} cells have none of the modalities {list(rows)}; the model learns nothing "
            "from them and their latent is the prior. Register their modality too, or remove "
            "them.",
            MosaicviWarning,
            stacklevel=2,
        )


def _batch_labels(
    mdata: MuData, request: Request, rows: Mapping[str, np.ndarray]
) -> dict[str, tuple[str | None, np.ndarray, tuple[str, ...]]]:
    """Batch column, label of each cell (None where unknown) and categories, by modality."""
    keys = request.batch_key
    if isinstance(keys, str):
        shared = _columns.labels(mdata, keys, rows, option="batch_key")
        categories = _sorted(shared)
        _warn_many_batches(keys, shared, categories)
        warn_inseparable(keys, shared, rows)
        return dict.fromkeys(rows, (keys, shared, categories))
    keys = keys or {}
    if not isinstance(keys, Mapping) or set(keys) - set(rows):
        raise RequestError(
            f"found {keys!r}",
            key="batch_key",
            expected=f"a column, or a dict from some of the modalities {list(rows)} to columns",
        )
    result: dict[str, tuple[str | None, np.ndarray, tuple[str, ...]]] = {}
    for name, its_rows in rows.items():
        key = keys.get(name)
        found = np.full(mdata.n_obs, NO_BATCH, dtype=object)
        if key is not None:
            found = _columns.labels(mdata, key, {name: its_rows}, option="batch_key")
            found[its_rows < 0] = None
            _warn_many_batches(key, found, _sorted(found))
        result[name] = (key, found, _sorted(found))
    return result


def _warn_many_batches(key: str, labels: np.ndarray, categories: tuple[str, ...]) -> None:
    n_cells = int(pd.notna(labels).sum())
    if n_cells >= 10 and len(categories) * FEW_CELLS > n_cells:
        warnings.warn(
            f"batch_key {key!r} has {len(categories)} batches for {n_cells} cells. A batch is a "
            "technical group of many cells; pass a number of a cell as a continuous covariate "
            "instead.",
            MosaicviWarning,
            stacklevel=2,
        )


def _sorted(labels: np.ndarray) -> tuple[str, ...]:
    return tuple(sorted({label for label in labels if label is not None}))


def _register_modality(
    mdata: MuData,
    name: str,
    spec: ModalitySpec,
    rows: np.ndarray,
    batch_key: str | None,
    batch_labels: np.ndarray,
    categories: tuple[str, ...],
) -> RegisteredModality:
    adata = mdata.mod[name]
    var_names = tuple(str(feature) for feature in adata.var_names)
    species = _species(var_names, spec, name)
    layer = checked_layer(adata, spec, name)
    whole = coverage_layers(adata, spec, name)[1] if likelihood_of(spec).reads_coverage else layer
    warn_unknown_features(adata, spec, whole, name)
    matrix = read_layer(adata, layer, name)
    codes = codes_of(batch_labels, categories)[cells_of(rows, adata.n_obs)]
    unmeasured = None
    if spec.panel_key is not None:
        present = [categories[code] for code in np.unique(codes)]
        unmeasured = read_panel(adata, spec.panel_key, categories, present, name)
        check_panel(var_names, matrix, layer, codes, categories, unmeasured, name)
    if spec.size_factor_key is not None:
        factors = _columns.size_factors(mdata, name, spec.size_factor_key, rows)
        _check_scale(factors, row_totals(matrix), spec.size_factor_key, name)
    warn_many_genes(var_names, spec, name)
    warn_odd_features(adata, name, likelihood_of(spec))
    return RegisteredModality(
        spec=spec,
        var_names=var_names,
        batch_key=batch_key,
        batch_categories=categories,
        unmeasured=unmeasured,
        log_background=log_background(
            adata, matrix, spec, name, _n_measured(len(var_names), codes, categories, unmeasured)
        ),
        n_representation=check_representation(adata, name, spec),
        species=species,
    )


def _check_scale(factors: np.ndarray, totals: np.ndarray, key: str, name: str) -> None:
    """Refuse size factors that are no library sizes, such as those with a mean of one."""
    scale = float(totals.sum() / factors.sum())
    if scale > 0 and not 1 / FARTHEST <= scale <= FARTHEST:
        raise DataError(
            f"size factors are {factors.mean():.3g} on average, and cells hold "
            f"{totals.mean():.3g} counts",
            modality=name,
            key=key,
            expected="size factors on the scale of counts: they are the sums of the means",
            remedy=f"multiply the column by {scale:.6g}, here and for new cells",
        )


def _n_measured(
    n_features: int,
    codes: np.ndarray,
    categories: tuple[str, ...],
    unmeasured: Mapping[str, tuple[int, ...]] | None,
) -> np.ndarray:
    """Cells whose panel holds each feature, int64 ``(n_features,)``."""
    found = np.full(n_features, len(codes), dtype=np.int64)
    for batch, places in (unmeasured or {}).items():
        found[list(places)] -= int((codes == categories.index(batch)).sum())
    return found


def checked_layer(adata: AnnData, spec: ModalitySpec, name: str) -> str | None:
    """Layer of a modality's values (None: ``X``), once these are what its likelihood expects."""
    if likelihood_of(spec).reads_coverage:
        check_pair(adata, spec, name)
        return coverage_layers(adata, spec, name)[0]
    layer, summary = choose_layer(adata, spec, name)
    check_values(adata, layer, summary, spec, name)
    return layer


def cells_of(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Invert a row map: the MuData's cell of each row of the modality, shape ``(n_rows,)``."""
    cells = np.empty(n_rows, dtype=np.int64)
    present = np.flatnonzero(rows >= 0)
    cells[rows[present]] = present
    return cells


def codes_of(labels: np.ndarray, categories: tuple[str, ...]) -> np.ndarray:
    """Place of each label among the categories, int64, -1 where it is unknown."""
    codes = pd.Index(list(categories), dtype=object).get_indexer(pd.Index(labels, dtype=object))
    return np.asarray(codes, dtype=np.int64)


def _species(var_names: tuple[str, ...], spec: ModalitySpec, name: str) -> str | None:
    """Species of a gene modality; of a panel of antibodies only if it is named as mouse genes."""
    if likelihood_of(spec).uses_library_size:
        return species_of(var_names, name)
    return "mouse" if looks_mouse(var_names) else None


def warn_many_genes(var_names: tuple[str, ...], spec: ModalitySpec, name: str) -> None:
    """Advise on a modality of more genes than a decoder needs."""
    genes = len(var_names) > MANY_GENES and not is_interval(var_names[0])
    if genes and likelihood_of(spec).uses_library_size:
        warnings.warn(
            f"modality {name!r} has {len(var_names)} features. It works, but time and memory grow "
            "with them; 2,000 to 5,000 highly variable genes usually serve as well: "
            f'sc.pp.highly_variable_genes(mdata.mod["{name}"], flavor="seurat_v3", '
            "n_top_genes=4000), then keep these genes and call mdata.update().",
            MosaicviWarning,
            stacklevel=2,
        )


def _dense_representation(adata: AnnData, name: str, key: str) -> np.ndarray:
    if key not in adata.obsm:
        raise DataError(
            "there is no such representation in obsm",
            modality=name,
            key=key,
            expected=f"one of {list(adata.obsm)}",
        )
    found = adata.obsm[key]
    if isinstance(found, pd.DataFrame):
        found = found.to_numpy()
    return np.asarray(found.toarray() if sp.issparse(found) else found)


def representation_of(adata: AnnData, name: str, key: str) -> np.ndarray:
    """Representation as float32, shape ``(n_modality_cells, n_inputs)``."""
    return np.ascontiguousarray(_dense_representation(adata, name, key), dtype=np.float32)


def check_representation(adata: AnnData, name: str, spec: ModalitySpec) -> int | None:
    """Refuse a representation that is missing or not finite; return its width.

    Raises
    ------
    DataError
        Says what is wrong.
    """
    if spec.representation is None:
        return None
    found = _dense_representation(adata, name, spec.representation)
    if found.ndim != 2 or found.dtype.kind not in "fiub" or not np.isfinite(found).all():
        raise DataError(
            f"the representation has shape {found.shape}, type {found.dtype}, or values that are "
            "not finite",
            modality=name,
            key=spec.representation,
            expected="finite numbers, cells x dimensions",
        )
    return int(found.shape[1])


def _categories(mdata: MuData, key: str, rows: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return _sorted(_columns.labels(mdata, key, rows, option="categorical_covariate_keys"))


def _moments(mdata: MuData, key: str, rows: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Mean and standard deviation over the cells that have a value; a constant gets deviation 1."""
    values = _columns.numbers(mdata, key, rows, option="continuous_covariate_keys")
    mean, deviation = float(np.nanmean(values)), float(np.nanstd(values))
    if not deviation > 1e-12 * max(1.0, abs(mean)):
        warnings.warn(
            f"the continuous covariate {key!r} is constant ({mean:g}), so it says nothing; leave "
            "it out of continuous_covariate_keys.",
            MosaicviWarning,
            stacklevel=2,
        )
        deviation = 1.0
    return mean, deviation
