"""Read another MuData the way the first one was read."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError, MosaicviWarning
from mosaicvi.data import _columns
from mosaicvi.data._formats import forget
from mosaicvi.data._panel import check_panel, column_names, read_panel
from mosaicvi.data._register import (
    cells_of,
    check_representation,
    checked_layer,
    codes_of,
    warn_unmeasured_cells,
)
from mosaicvi.data._schema import likelihood_of
from mosaicvi.data._state import NO_BATCH, MosaicState, RegisteredModality
from mosaicvi.data._stored import held
from mosaicvi.data._structure import (
    absent_rows,
    check_modality,
    check_object,
    rows_of,
    shown,
)
from mosaicvi.data._values import read_layer

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

FAR = 20.0
"""Standard deviations from its mean at setup from which a covariate is hardly in the same unit."""


def transfer(mdata: MuData, state: MosaicState, *, extend_batches: bool = False) -> MosaicState:
    """Validate a new MuData against an earlier registration; change nothing.

    Features may come in another order and cells too; modalities may be missing. Batches that were
    not there get the code -1 (the model answers for them from the distribution of batches), or new
    codes after the known ones with ``extend_batches=True``.

    Parameters
    ----------
    mdata
        The new MuData.
    state
        The earlier registration.
    extend_batches
        Whether to register new batches.

    Returns
    -------
    The registration of the new MuData.

    Raises
    ------
    DataError
        If features are missing, a covariate has an unknown category, or as in a first registration.
    """
    check_object(mdata)
    rows = present_rows(mdata, state)
    for name in rows:
        check_modality(mdata.mod[name], name)
        forget(mdata.mod[name])
        _check_features(mdata.mod[name], state.modalities[name], name)
    warn_unmeasured_cells(rows)
    found = {name: batch_labels(mdata, state, name, rows) for name in state.modalities}
    new = {name: _new_batches(found[name], part) for name, part in state.modalities.items()}
    if extend_batches:
        modalities = {
            name: replace(part, batch_categories=part.batch_categories + new[name])
            for name, part in state.modalities.items()
        }
    else:
        modalities = dict(state.modalities)
        _warn_new_batches(new)
    for name in rows:
        modalities[name] = _transfer_modality(
            mdata, name, modalities[name], rows[name], found[name]
        )
    _check_covariates(mdata, state, rows)
    return replace(state, modalities=modalities, n_cells=mdata.n_obs)


def present_rows(mdata: MuData, state: MosaicState) -> dict[str, np.ndarray]:
    """Row maps of the registered modalities that a MuData has.

    Raises
    ------
    DataError
        If it has none of them, no cell has one, or a map is stale.
    """
    held = [name for name in state.modalities if name in mdata.mod]
    names = [name for name in held if mdata.mod[name].n_obs]
    if held and not names:
        raise DataError(
            f"no cell has {shown(held)}" if mdata.n_obs else "the MuData has no cells",
            expected=f"cells with some of {list(state.modalities)}",
            remedy="look at the selection that it was made by",
        )
    if not names:
        raise DataError(
            f"the MuData has none of the registered modalities, only {list(mdata.mod)}",
            expected=f"some of {list(state.modalities)}",
            remedy="name the modalities as at setup: mdata.mod[...]",
        )
    return {name: rows_of(mdata, name) for name in names}


def full_rows(mdata: MuData, state: MosaicState) -> dict[str, np.ndarray]:
    """Row maps of all registered modalities, -1 throughout for those that a MuData lacks."""
    present = present_rows(mdata, state)
    return {name: present.get(name, absent_rows(mdata.n_obs)) for name in state.modalities}


def batch_labels(
    mdata: MuData, state: MosaicState, name: str, rows: dict[str, np.ndarray]
) -> np.ndarray:
    """Batch label of each cell for one modality, shape ``(n_cells,)``, None where unknown.

    A cell that lacks the modality has the one that ``mdata.obs`` states, if any.
    """
    part = state.modalities[name]
    if part.batch_key is None:
        return np.full(mdata.n_obs, NO_BATCH, dtype=object)
    if state.shared_batch_key is not None:
        return _columns.labels(mdata, part.batch_key, rows, option="batch_key")
    if name not in rows and part.batch_key not in mdata.obs.columns:
        return np.full(mdata.n_obs, None, dtype=object)
    held = {name: rows[name]} if name in rows else {}
    return _columns.labels(mdata, part.batch_key, held, option="batch_key")


def _check_features(adata: AnnData, part: RegisteredModality, name: str) -> None:
    registered = set(part.var_names)
    found = {str(feature) for feature in adata.var_names}
    missing = [feature for feature in part.var_names if feature not in found]
    if missing:
        by_case = {feature.lower() for feature in found}
        same = sum(feature.lower() in by_case for feature in missing)
        raise DataError(
            f"{len(missing)} of {part.n_features} registered features are missing: "
            f"{shown(missing)}",
            modality=name,
            key="var_names",
            expected="every feature that the model was set up with, in any order",
            remedy=f"{same} of them are there in another case (another species, or another naming?)"
            if same
            else "add them (as zeros only if they were measured), or set up a model on the "
            "shared features",
        )
    extra = [feature for feature in adata.var_names if str(feature) not in registered]
    if extra:
        warnings.warn(
            f"modality {name!r}: {len(extra)} features are not among the registered ones and are "
            f"ignored: {shown(extra)}. Library sizes are sums over registered features.",
            MosaicviWarning,
            stacklevel=2,
        )


def feature_order(adata: AnnData, part: RegisteredModality) -> np.ndarray | None:
    """Columns of a modality in registered order; None where they already are in that order."""
    names = adata.var_names.astype(str)
    if len(names) == part.n_features and tuple(names) == part.var_names:
        return None
    return np.asarray(names.get_indexer(list(part.var_names)), dtype=np.int64)


def _new_batches(found: np.ndarray, part: RegisteredModality) -> tuple[str, ...]:
    known = {*part.batch_categories, None}
    return tuple(sorted({label for label in found if label not in known}))


def _warn_new_batches(new: dict[str, tuple[str, ...]]) -> None:
    names = sorted({batch for batches in new.values() for batch in batches})
    if names:
        warnings.warn(
            f"batches {shown(names)} were not there when the model was set up. Answers for their "
            "cells draw from the distribution of batches, so intervals widen; give "
            "transform_batch to answer as a known batch.",
            MosaicviWarning,
            stacklevel=2,
        )


def _transfer_modality(
    mdata: MuData,
    name: str,
    part: RegisteredModality,
    rows: np.ndarray,
    labels: np.ndarray,
) -> RegisteredModality:
    adata, spec = mdata.mod[name], part.spec
    layer = checked_layer(adata, spec, name)
    if spec.size_factor_key is not None:
        _columns.size_factors(mdata, name, spec.size_factor_key, rows)
    if check_representation(adata, name, spec) != part.n_representation:
        raise DataError(
            f"the representation has {check_representation(adata, name, spec)} dimensions",
            modality=name,
            key=spec.representation,
            expected=f"{part.n_representation}, as at setup",
        )
    if part.unmeasured is None or spec.panel_key is None:
        return part
    order = feature_order(adata, part)
    categories = (*part.batch_categories, *_new_batches(labels, part))
    codes = codes_of(labels, categories)[cells_of(rows, adata.n_obs)]
    present = [categories[code] for code in np.unique(codes) if code >= 0]
    unmeasured = dict(part.unmeasured)
    if spec.panel_key in adata.varm:
        known = _batches_of_table(adata.varm[spec.panel_key], categories, part)
        present = [batch for batch in present if batch in known]
        own = read_panel(adata, spec.panel_key, known, present, name)
        for batch in present:
            unmeasured[batch] = _reordered(own.get(batch, ()), order, adata.n_vars)
        unmeasured = {batch: places for batch, places in unmeasured.items() if places}
    matrix = read_layer(adata, layer, name)
    mapped = held(matrix, order, is_count=likelihood_of(spec).is_count)
    check_panel(part.var_names, mapped, layer, codes, categories, unmeasured, name)
    return replace(part, unmeasured=unmeasured)


def _batches_of_table(
    table: Any, categories: tuple[str, ...], part: RegisteredModality
) -> tuple[str, ...]:
    """Batches that a query's panel can speak of: an array's columns are the registered ones.

    A new batch that it has no column for is taken to have measured all, as one without a table.
    """
    if not isinstance(table, pd.DataFrame):
        return part.batch_categories
    columns = set(column_names(table))
    return tuple(each for each in categories if each in part.batch_categories or each in columns)


def _reordered(places: tuple[int, ...], order: np.ndarray | None, n_vars: int) -> tuple[int, ...]:
    """Turn places among a MuData's own features into places among the registered ones."""
    if order is None:
        return places
    own = np.zeros(n_vars, dtype=bool)
    own[list(places)] = True
    return tuple(int(feature) for feature in np.flatnonzero(own[order]))


def _check_covariates(mdata: MuData, state: MosaicState, rows: dict[str, np.ndarray]) -> None:
    for key, categories in state.categorical.items():
        found = _columns.labels(mdata, key, rows, option="categorical_covariate_keys")
        unknown = sorted({label for label in found if label not in {*categories, None}})
        if unknown:
            raise DataError(
                f"categories {shown(unknown)} were not there when the model was set up",
                key=key,
                expected=f"some of {list(categories)}",
                remedy="map them to known categories",
            )
    for key, (mean, deviation) in state.continuous.items():
        values = _columns.numbers(mdata, key, rows, option="continuous_covariate_keys")
        away = np.abs(values - mean) / deviation
        n_far = int((away > FAR).sum())
        if n_far:
            warnings.warn(
                f"the continuous covariate {key!r} of {n_far} cells is up to "
                f"{np.nanmax(away):,.0f} standard deviations away from its mean at setup "
                f"({mean:.4g}, standard deviation {deviation:.4g}). Its effect is drawn out in a "
                "straight line, on the log scale for counts, so that answers may be out of all "
                "proportion. Bring it to the unit of the setup.",
                MosaicviWarning,
                stacklevel=2,
            )
