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
from mosaicvi.data._logged import looks_logged
from mosaicvi.data._schema import AUTO, ModalitySpec, likelihood_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

Matrix = Any
"""A scipy sparse matrix or array (CSR or CSC), or a dense ``np.ndarray``."""

_CHUNK = 1 << 20
"""Stored values a chunk: a scan's temporary memory stays at a few megabytes."""

_FRACTION = 1e-4
"""Counts may be off an integer by this much (rounding of a file format)."""


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


def _chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


def scan(matrix: Matrix) -> Scan:
    """Read the stored values once."""
    values = stored(matrix)
    nan, infinite, negative, fractional = 0, 0, 0, 0
    is_float = values.dtype.kind == "f"
    for chunk in _chunks(values):
        finite = chunk
        if is_float:
            is_finite = np.isfinite(chunk)
            if not is_finite.all():
                n_nan = int(np.isnan(chunk).sum())
                nan += n_nan
                infinite += int((~is_finite).sum()) - n_nan
                finite = chunk[is_finite]
            fractional += int((np.abs(finite - np.rint(finite)) > _FRACTION).sum())
        if values.dtype.kind in "fi" and len(finite) and finite.min() < 0:
            negative += int((finite < 0).sum())
    return Scan(nan, infinite, negative, fractional)


def row_totals(matrix: Matrix) -> np.ndarray:
    """Sum of each row in float64, shape ``(n_rows,)``."""
    if not sp.issparse(matrix):
        return np.asarray(np.asarray(matrix).sum(axis=1, dtype=np.float64))
    if matrix.format == "csr":
        totals = np.zeros(matrix.shape[0])
        filled = np.flatnonzero(np.diff(matrix.indptr))
        if len(filled):
            starts = matrix.indptr[filled]
            totals[filled] = np.add.reduceat(matrix.data, starts, dtype=np.float64)
        return totals
    columns = matrix.tocsc()
    return np.bincount(columns.indices, weights=columns.data, minlength=matrix.shape[0])


def read_layer(adata: AnnData, layer: str | None, modality: str) -> Matrix:
    """Values of ``X`` (None) or of a layer, as they are.

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
        raise DataError(
            f"{place(layer)} is a {type(matrix).__name__}",
            modality=modality,
            expected="a scipy sparse matrix or a numpy array in memory",
            remedy="load it, for example with .to_memory() or .compute()",
        )
    kind = (matrix.data if sp.issparse(matrix) else matrix).dtype.kind
    if kind not in "fiub":
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
        if (sp.issparse(matrix) or isinstance(matrix, np.ndarray)) and scan(matrix).is_counts:
            places.append(f"layers[{name!r}]")
    if adata.raw is not None and scan(adata.raw.X).is_counts:
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
    empty = int((row_totals(matrix) == 0).sum())
    if empty:
        warnings.warn(
            f"modality {modality!r}: {empty} cells have no counts in {place(layer)}. They are "
            "kept as measured zeros; if they are failed captures, remove them from the modality "
            "and call mdata.update().",
            MosaicviWarning,
            stacklevel=2,
        )


def _check_largest(
    matrix: Matrix, layer: str | None, largest: float, spec: ModalitySpec, modality: str
) -> None:
    values = stored(matrix)
    above = int((values > largest).sum())
    if above:
        raise DataError(
            f"{place(layer)} holds {above} values above {largest:g}, the largest "
            f"{float(values.max()):g}",
            modality=modality,
            key="likelihood",
            expected=f"values up to {largest:g} for the likelihood {spec.likelihood!r}",
            remedy="binarise a copy of the counts in a layer and name it, "
            "ModalitySpec(..., layer=...), or model the counts with 'poisson' or 'nb'",
        )


def _check_fractions(
    matrix: Matrix, layer: str | None, summary: Scan, spec: ModalitySpec, modality: str
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
    share = summary.fractional / max(1, len(stored(matrix)))
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
    matrix: Matrix,
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
    test = tests[kind]
    if sp.issparse(matrix):
        entries = matrix.tocoo()
        first = int(np.flatnonzero(test(entries.data))[0])
        row, column = int(entries.row[first]), int(entries.col[first])
    else:
        row, column = (int(axis[0]) for axis in np.nonzero(test(np.asarray(matrix))))
    is_count = likelihood_of(spec).is_count
    return DataError(
        f"{place(layer)} holds {count} {kind} values, the first in cell "
        f"{str(adata.obs_names[row])!r}, feature {str(adata.var_names[column])!r}",
        modality=modality,
        key="layer",
        expected=f"non-negative counts for the likelihood {spec.likelihood!r}"
        if is_count
        else "finite values, or NaN where a value is missing",
        remedy="name the layer that holds raw counts, ModalitySpec(..., layer=...)"
        if is_count
        else "set these values to NaN, or remove them",
    )
