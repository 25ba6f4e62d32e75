"""Panels: which features each batch measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mosaicvi._errors import DataError
from mosaicvi.data._columns import as_label
from mosaicvi.data._structure import shown
from mosaicvi.data._values import Matrix, place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from mosaicvi.data._rows import RowSource
    from mosaicvi.data._stored import StoredValues

_CHECKED_ROWS = 8192
"""Rows looked at together."""

Unmeasured = dict[str, tuple[int, ...]]
"""Batch name to the places of the features that it did not measure."""


def read_panel(
    adata: AnnData, key: str, categories: Sequence[str], present: Sequence[str], modality: str
) -> Unmeasured:
    """Read a features x batches table from ``varm``.

    Parameters
    ----------
    adata
        The modality.
    key
        Key of ``varm``.
    categories
        Batch names in sorted order, which are the columns of an array.
    present
        Batches that have cells in this modality; a DataFrame must have a column for each.
    modality
        Its name, for messages.

    Returns
    -------
    Places of unmeasured features in the modality's own feature order; batches that measured all,
    or have no column, are left out.

    Raises
    ------
    DataError
        If the table is missing, does not fit, is not boolean, has two columns for one batch, or
        leaves a batch without features.
    """
    if key not in adata.varm:
        raise DataError(
            "there is no such table in varm",
            modality=modality,
            key=key,
            expected=f"one of {list(adata.varm)}",
        )
    table, columns = _columns(adata.varm[key], categories, present, modality, key)
    unmeasured: Unmeasured = {}
    for column, batch in enumerate(columns):
        if batch not in categories:
            continue
        absent = np.flatnonzero(~table[:, column])
        if len(absent) == adata.n_vars and batch in present:
            raise DataError(
                f"the panel of batch {batch!r} has no features, yet the batch has cells",
                modality=modality,
                key=key,
                remedy="correct the table, or take these cells out of the modality",
            )
        if 0 < len(absent) < adata.n_vars:
            unmeasured[batch] = tuple(int(feature) for feature in absent)
    return unmeasured


def column_names(table: pd.DataFrame) -> list[str]:
    """Batches that a panel's columns speak of, named as the column of batches names them."""
    return [as_label(name) for name in table.columns]


def _columns(
    table: Any,
    categories: Sequence[str],
    present: Sequence[str],
    modality: str,
    key: str,
) -> tuple[np.ndarray, list[str]]:
    if isinstance(table, pd.DataFrame):
        columns = column_names(table)
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise DataError(
                f"the panel has several columns for batches {shown(twice)}",
                modality=modality,
                key=key,
                expected="one column a batch; 1, 1.0 and '1' are one batch",
            )
        lacking = [batch for batch in present if batch not in columns]
        if lacking:
            raise DataError(
                f"the panel has no column for batches {shown(lacking)}",
                modality=modality,
                key=key,
                expected=f"columns {list(present)}",
            )
        values = table.to_numpy()
    else:
        columns = list(categories)
        values = np.asarray(table.toarray() if sp.issparse(table) else table)
        if values.ndim != 2 or values.shape[1] != len(categories):
            raise DataError(
                f"the panel has shape {values.shape}",
                modality=modality,
                key=key,
                expected=f"one column for each of the batches {list(categories)}, in this order",
                remedy="or store a DataFrame with batch names as columns",
            )
    if pd.isna(values).any() or not np.isin(values, [0, 1]).all():
        raise DataError(
            "the panel holds values that are neither true nor false",
            modality=modality,
            key=key,
            expected="True where a batch measured a feature",
        )
    return values.astype(bool), columns


def check_panel(
    var_names: Sequence[str],
    matrix: Matrix | RowSource | StoredValues,
    layer: str | None,
    codes: np.ndarray,
    categories: Sequence[str],
    unmeasured: Mapping[str, Sequence[int]],
    modality: str,
) -> None:
    """Refuse counts at features that the panel calls unmeasured: the table must be wrong.

    Parameters
    ----------
    var_names
        Features, the columns of ``matrix``.
    matrix
        Values of the modality, shape ``(n_modality_cells, n_features)``.
    codes
        Batch of each row, shape ``(n_modality_cells,)``.
    unmeasured
        Places in the columns of ``matrix``.

    Raises
    ------
    DataError
        Names the batch and the features.
    """
    for batch, features in unmeasured.items():
        rows = np.flatnonzero(codes == list(categories).index(batch))
        filled = np.zeros(len(features), dtype=bool)
        for start in range(0, len(rows), _CHECKED_ROWS):
            part = matrix[rows[start : start + _CHECKED_ROWS]][:, list(features)]
            filled |= _filled(part)
        if filled.any():
            wrong = [var_names[feature] for feature in np.asarray(features)[filled]]
            raise DataError(
                f"{place(layer)} has counts in batch {batch!r} for features that the panel calls "
                f"unmeasured: {shown(wrong)}",
                modality=modality,
                key="panel_key",
                expected="zeros there",
                remedy="correct the panel, or the values",
            )


def _filled(part: Matrix) -> np.ndarray:
    """Which columns hold a value that is neither zero nor missing."""
    if sp.issparse(part):
        return np.asarray((part != 0).sum(axis=0)).ravel() > 0
    return np.asarray(((part != 0) & ~np.isnan(part.astype(np.float64))).any(axis=0))
