"""Columns of cells for an AnnData of all modalities, in a form that ``.h5ad`` can hold."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mosaicvi import _keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

    from mosaicvi.data import MosaicData


def cell_table(mdata: MuData, data: MosaicData) -> pd.DataFrame:
    """``mdata.obs``, the modalities' own columns, and which modalities each cell has.

    A modality's column that ``mdata.obs`` lacks comes under its own name where all modalities that
    have it agree, else as ``modality:column``.

    Returns
    -------
    One row a cell, in the order of ``mdata``.
    """
    table = mdata.obs.copy()
    names = [name for name, part in data.modalities.items() if part.present.any()]
    keys = dict.fromkeys(key for name in names for key in mdata.mod[name].obs.columns)
    for key in keys:
        if key in table.columns:
            continue
        columns = {
            name: mdata.mod[name].obs[key].astype(object).reindex(mdata.obs_names)
            for name in names
            if key in mdata.mod[name].obs.columns
        }
        pulled = {f"{name}:{key}": column for name, column in columns.items()}
        if agree(list(columns.values())):
            # mudata up to 0.3 has pulled the same values up, under the modalities' names
            table = table.drop(columns=[name for name in pulled if name in table.columns])
            table[key] = joined([mdata.mod[name].obs[key] for name in columns], mdata.obs_names)
        else:
            table = table.assign(**pulled)
    table = pd.DataFrame({str(key): storable(table[key]) for key in table.columns})
    for name, part in data.modalities.items():
        table[f"{_keys.OBS_MEASURED}:{name}"] = part.present
    table.index = pd.Index(data.obs_names.astype(str))
    return table


def agree(columns: list[pd.Series]) -> bool:
    """Whether no two columns have different values for one cell."""
    merged = columns[0]
    for column in columns[1:]:
        both = merged.notna() & column.notna()
        if not (merged[both] == column[both]).all():
            return False
        merged = merged.where(merged.notna(), column)
    return True


def joined(columns: Sequence[pd.Series], cells: pd.Index) -> pd.Series:
    """First value of each cell; categories in the order of the columns' where all have some.

    Categories of several types are left as values.
    """
    merged = pd.Series(index=cells, dtype=object)
    for column in columns:
        merged = merged.where(merged.notna(), column.astype(object).reindex(cells))
    dtypes = [column.dtype for column in columns]
    kinds = [dtype for dtype in dtypes if isinstance(dtype, pd.CategoricalDtype)]
    names = pd.Index(list(dict.fromkeys(name for kind in kinds for name in kind.categories)))
    mixed = pd.api.types.infer_dtype(names, skipna=True) in {"mixed", "mixed-integer"}
    if len(kinds) < len(columns) or mixed:
        return merged
    ordered = bool(kinds[0].ordered) and all(kind == kinds[0] for kind in kinds)
    return merged.astype(pd.CategoricalDtype(names, ordered=ordered))


def storable(column: pd.Series) -> pd.Series:
    """Give a column of mixed Python objects a type that ``.h5ad`` keeps as it is.

    Dates, times and spans become categories by ISO 8601.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        kept = column.cat.remove_unused_categories()
        if pd.api.types.infer_dtype(kept.cat.categories, skipna=True) == "string":
            return kept
        return kept.cat.rename_categories([_text(name) for name in kept.cat.categories])
    if pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
        return column
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind == "boolean":
        return column.astype("boolean") if column.isna().any() else column.astype(bool)
    if kind in {"integer", "floating", "mixed-integer-float", "decimal"}:
        numbers = column.astype(np.float64)
        return numbers.astype(np.int64) if kind == "integer" and numbers.notna().all() else numbers
    # As objects: a column of dates would read the strings as dates again.
    objects = column.astype(object)
    return objects.where(objects.isna(), objects.map(_text)).astype("category")


def _text(value: object) -> str:
    if isinstance(value, timedelta):
        return pd.Timedelta(value).isoformat()
    return value.isoformat() if isinstance(value, date) else str(value)
