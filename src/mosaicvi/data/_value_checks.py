"""Whether the values of a modality are what its likelihood expects."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mosaicvi._errors import DataError, MosaicviWarning
from mosaicvi.data._logged import looks_logged
from mosaicvi.data._rows import RowSource
from mosaicvi.data._schema import likelihood_of
from mosaicvi.data._structure import shown
from mosaicvi.data._values import place, read_layer, row_totals, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anndata import AnnData

    from mosaicvi.data._schema import ModalitySpec
    from mosaicvi.data._values import Matrix, Scan

FEW_EMPTY = 0.05
"""Share of cells without counts above which a message says it."""


def check_values(
    adata: AnnData, layer: str | None, summary: Scan, spec: ModalitySpec, modality: str
) -> None:
    """Refuse values that the likelihood cannot explain; warn of those that it hardly can.

    Raises
    ------
    DataError
        For infinite values; under a count likelihood also for negative, NaN or log-transformed
        ones.
    """
    matrix = read_layer(adata, layer, modality)
    likelihood = likelihood_of(spec)
    if summary.infinite:
        raise _bad_value(adata, matrix, layer, modality, "infinite", summary.infinite, spec)
    if likelihood.positive:
        _check_positive(adata, matrix, layer, spec, modality)
    if likelihood.units is not None:
        _check_units(adata, matrix, layer, modality, likelihood.units)
    if not likelihood.is_count:
        if summary.nan:
            _warn_missing(adata, matrix, layer, modality)
        return
    if summary.nan:
        raise _bad_value(adata, matrix, layer, modality, "NaN", summary.nan, spec)
    if summary.negative:
        raise _bad_value(adata, matrix, layer, modality, "negative", summary.negative, spec)
    if likelihood.largest is not None:
        _check_largest(matrix, layer, likelihood.largest, spec, modality)
    if summary.fractional:
        _check_fractions(matrix, layer, summary, spec, modality)
    _warn_empty(adata, matrix, layer, modality)


def _warn_empty(
    adata: AnnData, matrix: Matrix | RowSource, layer: str | None, modality: str
) -> None:
    """Tell of cells without counts, which are measured zeros here and no missing values."""
    empty = int((row_totals(matrix) == 0).sum())
    if empty:
        share = (
            f" ({empty / adata.n_obs:.0%} of its cells)" if empty > FEW_EMPTY * adata.n_obs else ""
        )
        warnings.warn(
            f"modality {modality!r}: {empty} cells have no counts in {place(layer)}{share}. They "
            "are kept as measured zeros. Cells that were not measured (padded with zeros, as other "
            "packages ask for) or whose capture failed must not be in the modality: leave them "
            f"out, {_leave_out(modality)}; then call mdata.update().",
            MosaicviWarning,
            stacklevel=2,
        )


def _warn_missing(
    adata: AnnData, matrix: Matrix | RowSource, layer: str | None, modality: str
) -> None:
    """Tell of cells without a single value, which count as measured here."""
    empty = sum(
        int(np.isnan(block.toarray() if sp.issparse(block) else block).all(axis=1).sum())
        for _, block in _blocks(matrix)
    )
    if empty:
        warnings.warn(
            f"modality {modality!r}: all values of {empty} cells are missing in {place(layer)}. "
            "They count as measured, and as evidence they say what the average cell says. Cells "
            "that were not measured (padded with NaN, as other packages ask for) must not be in "
            f"the modality: leave them out, {_leave_out(modality)}; then call mdata.update().",
            MosaicviWarning,
            stacklevel=2,
        )


def warn_unknown_features(
    adata: AnnData, spec: ModalitySpec, layer: str | None, modality: str
) -> None:
    """Tell of features of which no cell has a value: nothing can be learnt of them."""
    if likelihood_of(spec).is_count:
        return
    known = np.zeros(adata.n_vars, dtype=bool)
    for _, block in _blocks(read_layer(adata, layer, modality)):
        values = np.asarray(block.toarray() if sp.issparse(block) else block)
        # Of counts out of counts the layer is that of coverage, zero where nothing is known.
        known |= ((values > 0) if likelihood_of(spec).reads_coverage else ~np.isnan(values)).any(0)
    unknown = [str(name) for name in adata.var_names[~known]]
    if unknown:
        warnings.warn(
            f"modality {modality!r}: features {shown(unknown)} have no value in any cell. What is "
            "answered of them says nothing. Leave them out: mdata.mod"
            f'["{modality}"] = mdata["{modality}"][:, known].copy(), then mdata.update().',
            MosaicviWarning,
            stacklevel=2,
        )


def _leave_out(modality: str) -> str:
    """Write how cells without a modality are left out of it."""
    return (
        f'mdata.mod["{modality}"] = mdata["{modality}"][measured].copy(), with measured true for '
        "cells that have it"
    )


def _check_positive(
    adata: AnnData, matrix: Matrix | RowSource, layer: str | None, spec: ModalitySpec, modality: str
) -> None:
    """Refuse values of zero or less, which empty entries of a sparse matrix are too."""
    count, first = 0, (0, 0)
    for rows, block in _blocks(matrix):
        wrong = np.asarray(block.toarray() if sp.issparse(block) else block) <= 0
        if wrong.any() and not count:
            row, column = np.argwhere(wrong)[0]
            first = int(rows.start or 0) + int(row), int(column)
        count += int(wrong.sum())
    if count:
        raise DataError(
            f"{place(layer)} holds {count} values of zero or less, the first in cell "
            f"{str(adata.obs_names[first[0]])!r}, feature {str(adata.var_names[first[1]])!r}",
            modality=modality,
            key="layer",
            expected=f"values above zero, or NaN where one is missing, for {spec.likelihood!r}",
            remedy="set zeros that mean 'not detected' to NaN, or use the likelihood 'normal' on "
            "log1p of the values",
        )


def _check_largest(
    matrix: Matrix | RowSource, layer: str | None, largest: float, spec: ModalitySpec, modality: str
) -> None:
    if isinstance(matrix, RowSource):
        highest, count = matrix.profile.largest, "some"
    else:
        values = stored(matrix)
        highest = float(values.max(initial=-np.inf))
        count = str(int((values > largest).sum()))
    if highest > largest:
        raise DataError(
            f"{place(layer)} holds {count} values above {largest:g}, the largest {highest:g}",
            modality=modality,
            key="likelihood",
            expected=f"values up to {largest:g} for the likelihood {spec.likelihood!r}",
            remedy="binarise a copy of the counts in a layer and name it, "
            "ModalitySpec(..., layer=...), or model the counts with 'poisson' or 'nb'",
        )


def _check_fractions(
    matrix: Matrix | RowSource, layer: str | None, summary: Scan, spec: ModalitySpec, modality: str
) -> None:
    if looks_logged(matrix):
        raise DataError(
            f"{place(layer)} looks log-transformed",
            modality=modality,
            key="layer",
            expected=f"raw counts for the likelihood {spec.likelihood!r}",
            remedy="name the layer that holds raw counts, ModalitySpec(..., layer=...), or use "
            "the likelihood 'normal'",
        )
    is_source = isinstance(matrix, RowSource)
    n_values = matrix.profile.n_values if is_source else len(stored(matrix))
    share = summary.fractional / max(1, n_values)
    warnings.warn(
        f"modality {modality!r}: {place(layer)} holds values that are not integers "
        f"({summary.fractional} of the stored ones, {share:.0%}) under the count likelihood "
        f"{spec.likelihood!r}. If raw counts are in another layer, name it: "
        "ModalitySpec(..., layer=...).",
        MosaicviWarning,
        stacklevel=2,
    )


def _check_units(
    adata: AnnData,
    matrix: Matrix | RowSource,
    layer: str | None,
    modality: str,
    units: tuple[float, float],
) -> None:
    """Refuse features whose values are too small or too large for single precision."""
    size = np.zeros(matrix.shape[1])
    for _rows, block in _blocks(matrix):
        if sp.issparse(block):
            found = block.tocsc()
            extremes = [
                np.asarray(each.todense()).ravel()
                for each in (found.nanmax(axis=0), found.nanmin(axis=0))
            ]
        else:
            extremes = [np.fmax.reduce(block, axis=0), np.fmin.reduce(block, axis=0)]
        for extreme in extremes:
            size = np.fmax(size, np.abs(extreme.astype(np.float64)))
    smallest, largest = units
    wrong = np.flatnonzero((size > largest) | ((size < smallest) & (size > 0)))
    if len(wrong):
        raise DataError(
            f"the largest value of feature {str(adata.var_names[wrong[0]])!r} in {place(layer)} is "
            f"{size[wrong[0]]:.3g}; so it is with {len(wrong)} of {len(size)} features",
            modality=modality,
            key="layer",
            expected=f"magnitudes from {smallest:.0e} to {largest:.0e}, as single precision needs",
            remedy="give these features in another unit, or standardise them",
        )


def _bad_value(
    adata: AnnData,
    matrix: Matrix | RowSource,
    layer: str | None,
    modality: str,
    kind: str,
    count: int,
    spec: ModalitySpec,
) -> DataError:
    """Error that names the first offending cell and feature."""
    tests: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "infinite": np.isinf,
        "NaN": np.isnan,
        "negative": lambda values: values < 0,
    }
    row, column = _first(matrix, tests[kind])
    is_count = likelihood_of(spec).is_count
    return DataError(
        f"{place(layer)} holds {count} {kind} values, the first in cell "
        f"{str(adata.obs_names[row])!r}, feature {str(adata.var_names[column])!r}",
        modality=modality,
        key="layer",
        expected=f"non-negative counts for the likelihood {spec.likelihood!r}"
        if is_count
        else "finite values, or NaN where a value is missing",
        remedy=(
            "name the layer that holds raw counts, ModalitySpec(..., layer=...)"
            + (
                f"; where NaN says that a cell was not measured, leave it out: "
                f"{_leave_out(modality)}, then mdata.update(); where it says that a feature was "
                "not, fill in zeros and say so with panel_key="
                if kind == "NaN"
                else ""
            )
        )
        if is_count
        else "set these values to NaN, or remove them",
    )


def _blocks(matrix: Matrix | RowSource) -> Iterable[tuple[slice, Matrix]]:
    """Rows in memory; of a matrix on disk, a few megabytes at a time."""
    return matrix.blocks() if isinstance(matrix, RowSource) else [(slice(0), matrix)]


def _first(matrix: Matrix | RowSource, test: Callable[[np.ndarray], np.ndarray]) -> tuple[int, int]:
    """Row and column of the first stored value that a test finds."""
    for rows, block in _blocks(matrix):
        if sp.issparse(block):
            entries = block.tocoo()
            found = np.flatnonzero(test(entries.data))
            if len(found):
                return int(rows.start or 0) + int(entries.row[found[0]]), int(entries.col[found[0]])
        else:
            places = np.nonzero(test(np.asarray(block)))
            if len(places[0]):
                return int(rows.start or 0) + int(places[0][0]), int(places[1][0])
    raise LookupError("no value passes the test")
