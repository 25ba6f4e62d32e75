"""Where the values of a modality are, and whether they are what the likelihood expects."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from mosaicvi import _scvi
from mosaicvi._errors import DataError, MosaicviWarning
from mosaicvi._keys import LAYER_COUNTS
from mosaicvi.data._formats import ACCEPTED, opened
from mosaicvi.data._logged import looks_logged
from mosaicvi.data._rows import RowSource, block_totals, tally
from mosaicvi.data._schema import AUTO, ModalitySpec, likelihood_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

Matrix = Any
"""A scipy sparse matrix or array (CSR or CSC), or a dense ``np.ndarray``."""

_CHUNK = 1 << 20
"""Stored values a chunk: a scan's temporary memory stays at a few megabytes."""


FEW_EMPTY = 0.05
"""Share of cells without counts above which a message says it."""


@dataclass(frozen=True)
class Scan:
    """Summary of stored values.

    Attributes
    ----------
    nan, infinite, negative, fractional
        How many stored values are.
    """

    nan: int
    infinite: int
    negative: int
    fractional: int

    @property
    def is_counts(self) -> bool:
        """Whether all are non-negative integers."""
        return not (self.nan or self.infinite or self.negative or self.fractional)


def stored(matrix: Matrix) -> np.ndarray:
    """Stored values of a matrix, flat; a view where the layout allows it."""
    if sp.issparse(matrix):
        return np.asarray(matrix.data)
    return np.asarray(matrix).reshape(-1, order="A")


def scan(matrix: Matrix | RowSource) -> Scan:
    """Read the stored values once; on disk, once for all that ask."""
    if isinstance(matrix, RowSource):
        found = matrix.profile
        return Scan(found.nan, found.infinite, found.negative, found.fractional)
    values = stored(matrix)
    counts = np.zeros(4, dtype=np.int64)
    for start in range(0, len(values), _CHUNK):
        counts += np.array(tally(values[start : start + _CHUNK])[0])
    return Scan(*(int(number) for number in counts))


def row_totals(matrix: Matrix | RowSource) -> np.ndarray:
    """Sum of each row in float64, shape ``(n_rows,)``."""
    if isinstance(matrix, RowSource):
        return matrix.profile.row_totals
    if not sp.issparse(matrix) or matrix.format == "csr":
        return block_totals(matrix)
    columns = matrix.tocsc()
    return np.bincount(columns.indices, weights=columns.data, minlength=matrix.shape[0])


def read_layer(adata: AnnData, layer: str | None, modality: str) -> Matrix | RowSource:
    """Values of ``X`` (None) or of a layer, as they are; what is on disk stays there.

    Raises
    ------
    DataError
        If they are missing, or of a kind that cannot be read.
    """
    if layer is not None and layer not in _scvi.layer_names(adata):
        raise DataError(
            "there is no such layer",
            modality=modality,
            key=layer,
            expected=f"some of {list(_scvi.layer_names(adata))}, None for X, or 'auto'",
            remedy="name the layer of each modality, layer={modality: name}, and leave out those "
            "whose counts are in X"
            + ("; for .raw build the modality from adata.raw.to_adata()" if layer == "raw" else ""),
        )
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise DataError(
            "the modality has no X",
            modality=modality,
            expected=f"values in X, or one of the layers {list(_scvi.layer_names(adata))}",
            remedy="name the layer: ModalitySpec(..., layer=...)",
        )
    if not sp.issparse(matrix) and not isinstance(matrix, np.ndarray):
        source = opened(adata, layer, matrix, place(layer), modality)
        if source is None:
            raise DataError(
                f"{place(layer)} is a {type(matrix).__name__}",
                modality=modality,
                expected=ACCEPTED,
                remedy="load it, for example with .to_memory() or .compute()",
            )
        matrix = source
    if matrix.dtype.kind not in "fiub":
        raise DataError(
            f"{place(layer)} holds values of type {matrix.dtype}",
            modality=modality,
            expected="numbers",
        )
    return matrix


def place(layer: str | None) -> str:
    """Return how messages call where values are."""
    return "X" if layer is None else f"layer {layer!r}"


def choose_layer(adata: AnnData, spec: ModalitySpec, modality: str) -> tuple[str | None, Scan]:
    """Resolve ``layer="auto"``, and scan the values chosen.

    Raises
    ------
    DataError
        If neither ``X`` nor ``layers["counts"]`` holds counts where the likelihood needs them and
        other places do: the message lists them.
    """
    if spec.layer != AUTO:
        return spec.layer, scan(read_layer(adata, spec.layer, modality))
    if adata.X is not None:
        summary = scan(read_layer(adata, None, modality))
        if summary.is_counts or not likelihood_of(spec).is_count:
            return None, summary
    if LAYER_COUNTS in _scvi.layer_names(adata):
        return LAYER_COUNTS, scan(read_layer(adata, LAYER_COUNTS, modality))
    places = _integer_places(adata)
    if adata.X is None or places:
        found = "there is no X" if adata.X is None else "X holds no counts"
        raise DataError(
            f"{found} and there is no layer {LAYER_COUNTS!r}",
            modality=modality,
            key="layer",
            expected=f"counts for the likelihood {spec.likelihood!r}; integer values are in "
            + (", ".join(places) or "no layer, nor in .raw"),
            remedy="name the layer, ModalitySpec(..., layer=...); for .raw build the modality "
            "from adata.raw.to_adata()",
        )
    return None, summary


def _integer_places(adata: AnnData) -> list[str]:
    """Layers, and ``.raw``, that hold counts."""
    places = []
    for name in _scvi.layer_names(adata):
        matrix = adata.layers[name]
        if sp.issparse(matrix) or isinstance(matrix, np.ndarray):
            is_counts = scan(matrix).is_counts
        else:
            source = opened(adata, name, matrix, place(name), name)
            is_counts = source is not None and scan(source).is_counts
        if is_counts:
            places.append(f"layers[{name!r}]")
    if adata.raw is not None:
        values = adata.raw.X
        if (sp.issparse(values) or isinstance(values, np.ndarray)) and scan(values).is_counts:
            places.append(".raw")
    return places


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
    if not likelihood.is_count:
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
    blocks = matrix.blocks() if isinstance(matrix, RowSource) else [(slice(0), matrix)]
    count, first = 0, (0, 0)
    for rows, block in blocks:
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


def _first(matrix: Matrix | RowSource, test: Callable[[np.ndarray], np.ndarray]) -> tuple[int, int]:
    """Row and column of the first stored value that a test finds."""
    blocks = matrix.blocks() if isinstance(matrix, RowSource) else [(slice(0), matrix)]
    for rows, block in blocks:
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
