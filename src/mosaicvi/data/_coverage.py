"""Counts out of counts: two layers of a modality, read and checked together."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mosaicvi import _scvi
from mosaicvi._errors import DataError, MosaicviWarning
from mosaicvi._keys import LAYER_COVERAGE, LAYER_METHYLATED
from mosaicvi.data._rows import RowSource
from mosaicvi.data._schema import AUTO, ModalitySpec
from mosaicvi.data._values import place, read_layer
from mosaicvi.likelihoods._pairs import pair

if TYPE_CHECKING:
    from anndata import AnnData


def coverage_layers(adata: AnnData, spec: ModalitySpec, modality: str) -> tuple[str | None, str]:
    """Layers of methylated reads (None: ``X``) and of coverage.

    Raises
    ------
    DataError
        If they are not there under the names that a specification leaves open.
    """
    part = LAYER_METHYLATED if spec.layer == AUTO else spec.layer
    whole = LAYER_COVERAGE if spec.coverage_layer is None else spec.coverage_layer
    known = _scvi.layer_names(adata)
    for name, option in ((part, "layer"), (whole, "coverage_layer")):
        if name is not None and name not in known:
            raise DataError(
                f"there is no layer {name!r}",
                modality=modality,
                key=option,
                expected=f"methylated reads and coverage in two layers; found {list(known)}",
                remedy='name them: ModalitySpec("beta_binomial", layer=..., coverage_layer=...)',
            )
    return part, whole


def _dense(adata: AnnData, layer: str | None, modality: str) -> np.ndarray:
    matrix = read_layer(adata, layer, modality)
    if isinstance(matrix, RowSource):
        raise DataError(
            f"{place(layer)} is on disk",
            modality=modality,
            expected="methylated reads and coverage in memory",
            remedy="load the modality, for example with .to_memory()",
        )
    return np.asarray(matrix.toarray() if sp.issparse(matrix) else matrix)


def read_pair(
    adata: AnnData, spec: ModalitySpec, modality: str, order: np.ndarray | None
) -> np.ndarray:
    """Pairs of methylated reads and coverage, complex64 ``(n_cells, n_features)``, read-only.

    Parameters
    ----------
    adata
        The modality.
    spec
        Its specification.
    modality
        Its name.
    order
        Columns in registered order; None where they already are.
    """
    part, whole = (
        _dense(adata, layer, modality) for layer in coverage_layers(adata, spec, modality)
    )
    paired = pair(part, whole) if order is None else pair(part[:, order], whole[:, order])
    paired.flags.writeable = False
    return paired


def check_pair(adata: AnnData, spec: ModalitySpec, modality: str) -> None:
    """Refuse what are no counts out of counts.

    Raises
    ------
    DataError
        For values that are NaN, infinite, negative or no integers, for more methylated reads than
        reads, and where nothing is covered.
    """
    layers = coverage_layers(adata, spec, modality)
    part, whole = (_dense(adata, layer, modality) for layer in layers)
    for values, layer in zip((part, whole), layers, strict=True):
        for kind, wrong in (
            ("NaN", np.isnan(values)),
            ("infinite", np.isinf(values)),
            ("negative", values < 0),
            ("fractional", values != np.floor(values)),
        ):
            if wrong.any():
                raise DataError(
                    f"{place(layer)} holds {int(wrong.sum())} {kind} values, the first in "
                    f"{_first(adata, wrong)}",
                    modality=modality,
                    key="layer",
                    expected="numbers of reads, with coverage 0 where there are none",
                    remedy="for rates, multiply them by the coverage and round"
                    if kind == "fractional"
                    else "set both layers to 0 where nothing was measured",
                )
    above = part > whole
    if above.any():
        row, column = np.argwhere(above)[0]
        raise DataError(
            f"{place(layers[0])} is above {place(layers[1])} at {int(above.sum())} places, the "
            f"first in {_first(adata, above)}: {part[row, column]:g} of {whole[row, column]:g}",
            modality=modality,
            key="coverage_layer",
            expected="at most as many methylated reads as reads",
            remedy="coverage is methylated plus unmethylated reads; name the layers in that order",
        )
    empty = int((whole.sum(1) == 0).sum())
    if empty == adata.n_obs:
        raise DataError(
            f"{place(layers[1])} is zero everywhere",
            modality=modality,
            key="coverage_layer",
            expected="numbers of reads",
        )
    if empty:
        warnings.warn(
            f"modality {modality!r}: {empty} cells have no coverage in {place(layers[1])}. All "
            "their values are missing; remove them from the modality and call mdata.update().",
            MosaicviWarning,
            stacklevel=2,
        )


def _first(adata: AnnData, wrong: np.ndarray) -> str:
    row, column = np.argwhere(wrong)[0]
    return f"cell {str(adata.obs_names[row])!r}, feature {str(adata.var_names[column])!r}"
