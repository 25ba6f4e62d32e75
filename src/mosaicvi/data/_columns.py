"""Columns of ``obs``, found where the user has them and brought to one value a cell.

A column is looked up in ``mdata.obs`` and in the modalities' own ``obs``. (mudata 0.3 pulls the
latter up as ``modality:column``, 0.4 does not pull them.) Every place that has a value for a cell
must say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mosaicvi import _scvi
from mosaicvi._errors import DataError
from mosaicvi.data._structure import shown

if TYPE_CHECKING:
    from mudata import MuData

Rows = Mapping[str, np.ndarray]
"""Modality name to the row of each cell, shape ``(n_cells,)``, -1 where absent."""

_Source = tuple[str, np.ndarray]
"""Where values come from, and the values, aligned to the MuData's cells."""


def labels(
    mdata: MuData, key: str, rows: Rows, *, option: str, complete: bool = True
) -> np.ndarray:
    """Category names of a column for every cell.

    Parameters
    ----------
    mdata
        The MuData.
    key
        The column; ``"modality:column"`` reads one modality only.
    rows
        The modalities whose cells must have a value.
    option
        The argument that named the column, for messages.
    complete
        Whether every cell of ``rows`` must have a value; False: some may lack one.

    Returns
    -------
    Shape ``(n_cells,)``, str, or None for a cell that is in none of ``rows``, or has no value.

    Raises
    ------
    DataError
        If the column is missing, has missing values, or two places contradict each other.
    """
    merged = np.full(mdata.n_obs, None, dtype=object)
    sources = _sources(mdata, key, rows, _as_labels, None)
    for values, known in _merge(sources, key, option, mdata):
        merged[known] = values[known]
    needed = rows if complete else {}
    _complete(mdata, _known(merged), key, rows, needed, option)
    return merged


def numbers(mdata: MuData, key: str, rows: Rows, *, option: str) -> np.ndarray:
    """Numbers in a column for every cell; see :func:`labels`.

    Returns
    -------
    Shape ``(n_cells,)``, float64, NaN for a cell that is in none of ``rows``.

    Raises
    ------
    DataError
        As in :func:`labels`, or if values are not finite numbers.
    """
    merged = np.full(mdata.n_obs, np.nan)
    sources = _sources(mdata, key, rows, _as_numbers, np.nan)
    for values, known in _merge(sources, key, option, mdata):
        merged[known] = values[known]
    if np.isinf(merged).any():
        cell = mdata.obs_names[np.flatnonzero(np.isinf(merged))[0]]
        raise DataError(
            f"{option} has infinite values, the first in cell {cell!r}",
            key=key,
            expected="finite numbers",
        )
    _complete(mdata, _known(merged), key, rows, rows, option)
    return merged


def size_factors(mdata: MuData, name: str, key: str, rows: np.ndarray) -> np.ndarray:
    """Size factors of one modality, from its own ``obs``, else from ``mdata.obs``.

    Returns
    -------
    Shape ``(n_modality_cells,)``, float64, in the modality's own order of cells.

    Raises
    ------
    DataError
        If the column is missing, or a value is missing or not above zero.
    """
    adata = mdata.mod[name]
    if key in adata.obs.columns:
        values = _as_numbers(_column(adata.obs, key))
    elif key in mdata.obs.columns:
        values = np.full(adata.n_obs, np.nan)
        values[rows[rows >= 0]] = _as_numbers(_column(mdata.obs, key))[rows >= 0]
    else:
        raise DataError(
            "size_factor_key names a column that is in no obs",
            modality=name,
            key=key,
            expected=f'a column of mdata.mod["{name}"].obs ({shown(adata.obs.columns) or "none"}) '
            f"or of mdata.obs ({shown(mdata.obs.columns) or 'none'})",
        )
    wrong = ~(np.isfinite(values) & (values > 0))
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum())} size factors are missing, infinite or not above zero, the first "
            f"in cell {str(adata.obs_names[np.flatnonzero(wrong)[0]])!r}",
            modality=name,
            key=key,
            expected="counts a cell, above zero",
        )
    return values


def _as_labels(column: pd.Series) -> np.ndarray:
    """Names of values; an integer that a missing neighbour turned into a float reads as integer."""
    codes, found = pd.factorize(column, use_na_sentinel=True)
    names = np.empty(len(found) + 1, dtype=object)
    names[: len(found)] = [as_label(value) for value in found]
    names[len(found)] = None
    result: np.ndarray = names[codes]
    return result


def as_label(value: Any) -> str:
    """Name of a value of a column of labels; 1 and 1.0 are both ``"1"``."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _as_numbers(column: pd.Series) -> np.ndarray:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    try:
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the column holds {column.dtype} values",
            key=str(column.name),
            expected="numbers",
            remedy="pass it among the categorical covariates, or convert it",
        ) from error


def _sources(
    mdata: MuData,
    key: str,
    rows: Rows,
    convert: Callable[[pd.Series], np.ndarray],
    missing: Any,
) -> list[_Source]:
    """Every place that has the column, aligned to the MuData's cells."""
    sources: list[_Source] = []
    if key in mdata.obs.columns:
        sources.append(("mdata.obs", convert(_column(mdata.obs, key))))
    for name, its_rows in rows.items():
        own = _own_column(mdata, name, key, rows)
        if own is not None:
            values = convert(own)
            aligned = np.full(mdata.n_obs, missing, dtype=values.dtype)
            aligned[its_rows >= 0] = values[its_rows[its_rows >= 0]]
            sources.append((f'mdata.mod["{name}"].obs', aligned))
        elif key not in mdata.obs.columns:
            pulled = _scvi.pulled_column(mdata, name, key)
            if pulled is not None:
                sources.append((f'mdata.obs["{name}:{key}"]', convert(pulled)))
    return sources


def _own_column(mdata: MuData, name: str, key: str, rows: Rows) -> pd.Series | None:
    """Column of a modality's own ``obs``, also where it is asked for as ``modality:column``."""
    if name not in mdata.mod:
        return None
    obs = mdata.mod[name].obs
    if key in obs.columns:
        return _column(obs, key)
    prefix, _, rest = key.partition(":")
    if rest and prefix == name and prefix in rows and rest in obs.columns:
        return _column(obs, rest)
    return None


def _column(obs: pd.DataFrame, key: str) -> pd.Series:
    """Return the one column of a name.

    Raises
    ------
    DataError
        If there are several, as ``pandas.concat`` makes them.
    """
    n_columns = int((obs.columns == key).sum())
    if n_columns > 1:
        raise DataError(
            f"obs has {n_columns} columns of this name",
            key=key,
            expected="one",
            remedy="obs = obs.loc[:, ~obs.columns.duplicated()]",
        )
    return obs[key]


def _known(values: np.ndarray) -> np.ndarray:
    return np.asarray(~pd.isna(values))


def _merge(
    sources: list[_Source], key: str, option: str, mdata: MuData
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Check that no two places contradict each other; return values and where each is known."""
    merged: list[tuple[np.ndarray, np.ndarray]] = []
    for number, (place, values) in enumerate(sources):
        known = _known(values)
        for (other_place, others), (_, others_known) in zip(sources[:number], merged, strict=True):
            both = np.flatnonzero(known & others_known)
            differs = both[_differ(values[both], others[both])]
            if len(differs):
                cell = differs[0]
                raise DataError(
                    f"{option} is in conflict for {len(differs)} cells: cell "
                    f"{str(mdata.obs_names[cell])!r} has {others[cell]!r} in {other_place} and "
                    f"{values[cell]!r} in {place}",
                    key=key,
                    expected="one value a cell",
                    remedy="correct one of them, or put the values to use into a column of "
                    "mdata.obs under a name that no modality has, and pass that name; if different "
                    "cells have one name by chance, as barcodes of two captures may, give those of "
                    "one modality other names",
                )
        merged.append((values, known))
    return merged


def _differ(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    if left.dtype == object:
        return np.asarray(left != right, dtype=bool)
    return np.asarray(~np.isclose(left, right, rtol=1e-5, atol=1e-8))


def _complete(
    mdata: MuData,
    known: np.ndarray,
    key: str,
    rows: Rows,
    needed: Rows,
    option: str,
) -> None:
    """Refuse a column that no place has, or that lacks a value for a cell that needs one."""
    if not known.any():
        raise DataError(
            f"{option} names a column that is "
            + ("empty" if _places(mdata, key, rows) else "in no obs"),
            key=key,
            expected=f"a column of mdata.obs ({shown(mdata.obs.columns) or 'no columns'}) or of "
            + "; ".join(
                f'mdata.mod["{name}"].obs ({shown(mdata.mod[name].obs.columns) or "no columns"})'
                for name in rows
                if name in mdata.mod
            ),
            remedy=f"name a column that is there; new cells need it as well: mdata.obs[{key!r}] = "
            "the value of each cell, for a batch any name that the model does not know",
        )
    for name, its_rows in needed.items():
        lacking = np.flatnonzero((its_rows >= 0) & ~known)
        if len(lacking):
            raise DataError(
                f"{option} has no value for {len(lacking)} cells, the first "
                f"{shown(mdata.obs_names[lacking])}",
                modality=name,
                key=key,
                expected="a value for every cell of the modality, in mdata.obs or in the "
                "modality's own obs",
                remedy=_instead(mdata, key) + "fill in the column, or remove these cells",
            )


def _instead(mdata: MuData, key: str) -> str:
    """Advice where the key names the column of one modality only."""
    named, _, column = key.partition(":")
    if not column or named not in mdata.mod:
        return ""
    return f"pass {column!r}, which is read in the obs of each modality; else "


def _places(mdata: MuData, key: str, rows: Rows) -> bool:
    return key in mdata.obs.columns or any(
        _own_column(mdata, name, key, rows) is not None for name in rows
    )
