"""Where the values of a modality are, and what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from mosaicvi import _scvi
from mosaicvi._errors import DataError
from mosaicvi._keys import LAYER_COUNTS
from mosaicvi.data._formats import ACCEPTED, opened
from mosaicvi.data._rows import RowSource, block_totals, tally
from mosaicvi.data._schema import AUTO, ModalitySpec, likelihood_of

if TYPE_CHECKING:
    from anndata import AnnData

Matrix = Any
"""A scipy sparse matrix or array (CSR or CSC), or a dense ``np.ndarray``."""

_CHUNK = 1 << 20
"""Stored values a chunk: a scan's temporary memory stays at a few megabytes."""


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
    matrix = _values_of(adata) if layer is None else adata.layers[layer]
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


def count_sums(adata: AnnData, spec: ModalitySpec, modality: str) -> list[float]:
    """Sums of the values in each place that may be read; of what is on disk, or lazy, none."""
    layers = [spec.layer]
    if spec.layer == AUTO:
        found = LAYER_COUNTS in _scvi.layer_names(adata)
        layers = [None] * (_values_of(adata) is not None) + [LAYER_COUNTS] * found
    matrices = [read_layer(adata, layer, modality) for layer in layers]
    return [
        float(stored(matrix).sum(dtype=np.float64))
        for matrix in matrices
        if not isinstance(matrix, RowSource)
    ]


def _values_of(adata: AnnData) -> Any:
    """``X``, None where there is none, for which a backed AnnData has a dataset without shape."""
    return None if getattr(adata.X, "shape", None) is None else adata.X


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
    there = _values_of(adata) is not None
    if there:
        summary = scan(read_layer(adata, None, modality))
        if summary.is_counts or not likelihood_of(spec).is_count:
            return None, summary
    if LAYER_COUNTS in _scvi.layer_names(adata):
        return LAYER_COUNTS, scan(read_layer(adata, LAYER_COUNTS, modality))
    places = _integer_places(adata)
    if places or not there:
        found = "X holds no counts" if there else "there is no X"
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
