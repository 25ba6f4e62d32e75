"""Whether what was read of a MuData is still what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mosaicvi._errors import DataError
from mosaicvi._keys import LAYER_COUNTS, LAYER_COVERAGE, LAYER_METHYLATED
from mosaicvi._scvi import layer_names
from mosaicvi.data import _columns
from mosaicvi.data._schema import AUTO
from mosaicvi.data._transfer import batch_labels, present_rows
from mosaicvi.data._values import stored

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from anndata import AnnData
    from mudata import MuData

    from mosaicvi.data._state import MosaicState

USUAL_LAYERS = (LAYER_COUNTS, LAYER_METHYLATED, LAYER_COVERAGE)

LOOKED_AT = 1 << 20
"""Values of a matrix that are added up, evenly apart; all where there are no more."""


def total(matrix: Any) -> complex | None:
    """Sum of the stored values of a matrix, or of some of them; None of what is not in memory.

    Values that were transformed or scaled in place have another sum.
    """
    if not sp.issparse(matrix) and not isinstance(matrix, np.ndarray):
        return None
    values = stored(matrix)
    values = values[:: max(1, values.size // LOOKED_AT)]
    return complex(np.nansum(values, dtype=np.complex128))


def same(left: complex | None, right: complex | None) -> bool:
    """Whether two totals agree but for rounding."""
    if left is None or right is None:
        return left is right
    return bool(np.isclose(left, right, rtol=1e-9, atol=0.0))


def contents(
    mdata: MuData, state: MosaicState, columns: Collection[str] = ()
) -> dict[tuple[str, ...], Any]:
    """Totals of the values that are read of each modality, and hashes of the columns that are.

    Parameters
    ----------
    mdata
        The MuData.
    state
        What is registered of it.
    columns
        Further columns of ``obs`` that are read.
    """
    found: dict[tuple[str, ...], Any] = {}
    keys = {*columns, *state.categorical, *state.continuous, state.shared_batch_key}
    for name, part in state.modalities.items():
        adata, spec = mdata.mod.get(name), part.spec
        if adata is None:
            continue
        # Left to "auto", values are in X or in one of these.
        auto = {*USUAL_LAYERS} if AUTO in (spec.layer, spec.coverage_layer or AUTO) else set()
        for layer in sorted({spec.layer, spec.coverage_layer, *auto} - {None, AUTO}, key=str):
            if layer in layer_names(adata):
                found[name, "layer", str(layer)] = total(adata.layers[layer])
        if spec.layer is None or spec.layer == AUTO:
            found[name, "X"] = total(adata.X)
        if spec.representation in adata.obsm:
            table = adata.obsm[spec.representation]
            found[name, "obsm"] = total(table if sp.issparse(table) else np.asarray(table))
        if spec.panel_key in adata.varm:
            found[name, "varm"] = _hash(pd.DataFrame(adata.varm[spec.panel_key]))
        own = keys | {part.batch_key, spec.size_factor_key}
        found.update({(name, *key): value for key, value in _hashes(adata, own).items()})
        found.update(_hashes(mdata, own))
    return found


def told(mdata: MuData, state: MosaicState) -> dict[tuple[str | None, str], int]:
    """Hash of what columns say of each cell, whatever their type and wherever they stand.

    By modality, None where all have one, and column.
    """
    rows, shared = present_rows(mdata, state), state.shared_batch_key
    found: dict[tuple[str | None, str], np.ndarray] = {}
    for key in state.categorical:
        found[None, key] = _columns.labels(mdata, key, rows, option="categorical")
    for key in state.continuous:
        found[None, key] = _columns.numbers(mdata, key, rows, option="continuous")
    if shared is not None:
        found[None, shared] = _columns.labels(mdata, shared, rows, option="batch_key")
    for name, part in state.modalities.items():
        size_factor = part.spec.size_factor_key
        if part.batch_key is not None and shared is None:
            found[name, part.batch_key] = batch_labels(mdata, state, name, rows)
        if size_factor is not None:
            found[name, size_factor] = _columns.size_factors(mdata, name, size_factor, rows[name])
    return {place: hash(pd.util.hash_array(values).tobytes()) for place, values in found.items()}


def check_told(before: Mapping[Any, int], now: Mapping[Any, int]) -> None:
    """Refuse columns that say another thing of cells than they did; see :func:`told`.

    Raises
    ------
    DataError
        Names the column.
    """
    for (modality, column), value in before.items():
        if now[modality, column] != value:
            raise DataError(
                "the column changed after it was set up",
                modality=modality,
                key=column,
                expected="the values of the setup, in mdata.obs and the modalities' own obs",
                remedy="call setup_mudata again",
            )


def changed(before: Mapping[Any, Any], now: Mapping[Any, Any]) -> bool:
    """Whether two :func:`contents` differ."""
    if before.keys() != now.keys():
        return True
    return not all(
        same(value, now[key]) if isinstance(value, complex) else value == now[key]
        for key, value in before.items()
    )


def _hashes(table: AnnData | MuData, keys: Collection[str | None]) -> dict[tuple[str, ...], int]:
    """Hash of each of the columns that a table's ``obs`` has, ``modality:column`` among them."""
    names = {str(key).partition(":")[2] for key in keys if key is not None} | set(keys)
    return {
        ("obs", str(key)): _hash(table.obs[[key]])
        for key in sorted(map(str, names - {None, ""}))
        if key in table.obs.columns
    }


def _hash(table: pd.DataFrame) -> int:
    """Hash of the values of a table, whatever their type."""
    plain = table.astype(str)
    return hash(pd.util.hash_pandas_object(plain, index=False).to_numpy().tobytes())
