"""Checks that every score makes of its arrays."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData
from numpy.typing import ArrayLike, NDArray

from mosaicvi._errors import RequestError
from mosaicvi.data._columns import as_label
from mosaicvi.data._structure import shown

Floats = NDArray[np.float64]


def dense(values: Any, key: str) -> Any:
    """A sparse matrix as an array; anything else as it is.

    Raises
    ------
    RequestError
        If it is an AnnData or a MuData, which numpy would index a value at a time, without end.
    """
    if isinstance(values, AnnData | MuData):
        kind = type(values).__name__
        raise RequestError(
            f"found {kind}, which is no table of numbers",
            key=key,
            expected="an array, sparse matrix or DataFrame",
            remedy="adata.to_df() or adata.to_df(layer=...)"
            + (", of one modality: adata = mdata.mod[...]" if kind == "MuData" else ""),
        )
    return values.toarray() if sp.issparse(values) else values


def as_table(values: ArrayLike, key: str) -> Floats:
    """Float64 ``(n_cells, n_features)``, of a sparse matrix too; a vector becomes one feature.

    Raises
    ------
    RequestError
        If these are no numbers, or there are more than two axes.
    """
    given = dense(values, key)
    try:
        table = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"found {type(values).__name__}, which is no table of numbers",
            key=key,
            expected="numbers, (n_cells, n_features)",
        ) from error
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2:
        raise RequestError(
            f"an array with shape {table.shape}", key=key, expected="(n_cells, n_features)"
        )
    return table


def as_pit(pit: ArrayLike) -> Floats:
    """Probability integral transforms ``(n_cells, n_features)``, from 0 to 1 or NaN.

    Raises
    ------
    RequestError
        If these are draws or other values, of which a coverage would mean nothing.
    """
    remedy = "metrics.randomised_pit(draws, measured)"
    values = dense(pit, "pit")
    if getattr(values, "ndim", 2) > 2:
        raise RequestError(
            f"an array with shape {values.shape}",
            key="pit",
            expected="(n_cells, n_features)",
            remedy=remedy,
        )
    table = as_table(values, "pit")
    outside = int(((table < 0) | (table > 1)).sum())
    if outside:
        raise RequestError(
            f"{outside} of {table.size} values are below 0 or above 1",
            key="pit",
            expected="probability integral transforms",
            remedy=remedy,
        )
    return table


def as_pair(predicted: ArrayLike, measured: ArrayLike) -> tuple[Floats, Floats]:
    """Both arrays as tables of one shape; of two DataFrames, the second in the order of the first.

    Raises
    ------
    RequestError
        If the shapes differ, or the labels of two DataFrames do.
    """
    if isinstance(predicted, pd.DataFrame | pd.Series) and isinstance(
        measured, pd.DataFrame | pd.Series
    ):
        measured = _in_order(measured, predicted.index, 0)
        if isinstance(predicted, pd.DataFrame) and isinstance(measured, pd.DataFrame):
            measured = _in_order(measured, predicted.columns, 1)
    left, right = as_table(predicted, "predicted"), as_table(measured, "measured")
    if left.shape != right.shape:
        raise RequestError(
            f"shapes {left.shape} and {right.shape}",
            key="predicted, measured",
            expected="the same cells and features",
        )
    return left, right


def as_scored(
    predicted: ArrayLike, measured: ArrayLike
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Both arrays as tables of one shape, and which entries have a prediction and a measured value.

    :meth:`mosaicvi.MosaicVI.impute` gives NaN where a cell has no evidence: an answer that is not
    there is neither right nor wrong.

    Raises
    ------
    RequestError
        If a value is infinite, or as :func:`as_pair`.
    """
    left, right = as_pair(predicted, measured)
    for table, key in ((left, "predicted"), (right, "measured")):
        infinite = np.isinf(table)
        if infinite.any():
            raise RequestError(
                f"{int(infinite.sum())} of {table.size} values are infinite",
                key=key,
                expected="finite numbers, and NaN where there is no value",
                remedy="look for a logarithm of zero or a division by it; to leave these entries "
                "out: np.where(np.isfinite(values), values, np.nan)",
            )
    return left, right, ~(np.isnan(left) | np.isnan(right))


def _in_order(
    measured: pd.DataFrame | pd.Series, wanted: pd.Index, axis: Literal[0, 1]
) -> pd.DataFrame | pd.Series:
    """Rows (axis 0) or columns (1) in the order of some labels; other numbers of them as they are.

    Raises
    ------
    RequestError
        If it has other labels.
    """
    own = measured.axes[axis]
    if own.equals(wanted) or len(own) != len(wanted):
        return measured
    what = "columns" if axis else "rows"
    remedy = "name both alike, or hand over .to_numpy() of both, to compare them by place"
    if not (own.is_unique and wanted.is_unique):
        raise RequestError(
            f"{what} in another order, and some of the same name",
            key="predicted, measured",
            expected=f"each of the {what} once, or the same order in both",
            remedy=remedy,
        )
    places = own.get_indexer(wanted)
    if (places < 0).any():
        raise RequestError(
            f"{int((places < 0).sum())} {what} of predicted are not among those of measured: "
            f"{shown(wanted[places < 0])} against {shown(own)}",
            key="predicted, measured",
            expected=f"the same {what} in both DataFrames, in any order",
            remedy=remedy,
        )
    return measured.take(places, axis=axis)


def as_draws(draws: ArrayLike, measured: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draws ``(n_draws, n_cells, n_features)`` and measured values ``(n_cells, n_features)``.

    Raises
    ------
    RequestError
        If the shapes do not belong together, there are no draws, or these are no numbers.
    """
    samples = np.asarray(dense(draws, "draws"))
    values = np.asarray(dense(measured, "measured"))
    for array, given, key in ((samples, draws, "draws"), (values, measured, "measured")):
        if array.dtype.kind not in "biuf":
            raise RequestError(
                f"found {type(given).__name__}, which is no array of numbers",
                key=key,
                expected="draws (n_draws, *measured.shape) and measured values",
            )
    if samples.ndim < 1 or samples.shape[0] == 0 or samples.shape[1:] != values.shape:
        raise RequestError(
            f"draws with shape {samples.shape} for values with shape {values.shape}",
            key="draws, measured",
            expected="(n_draws, *measured.shape), at least one draw",
        )
    return samples, values


def as_named(labels: ArrayLike) -> NDArray[np.str_]:
    """Names of labels, shape ``(n_cells,)``, which sort whatever types they are of.

    1, 1.0 and ``"1"`` are one, as integer codes are floats wherever one is missing.
    """
    given = np.asarray(labels)
    if given.dtype.kind not in ("f", "O"):
        return given.astype(str)
    return np.array([as_label(value) for value in given.ravel()], dtype=str).reshape(given.shape)


def along(labels: ArrayLike, table: ArrayLike) -> ArrayLike:
    """Labels, or a table, in the order of a table's rows, where both name the same cells.

    Anything else is left as it is.
    """
    named = (pd.Series, pd.DataFrame)
    if not (isinstance(labels, named) and isinstance(table, named)):
        return labels
    own, wanted = labels.index, table.index
    if not (own.is_unique and wanted.is_unique and len(own) == len(wanted)):
        return labels
    places = own.get_indexer(wanted)
    return labels if (places < 0).any() else labels.take(places)


def stated(labels: ArrayLike) -> NDArray[np.bool_]:
    """Which labels are there, not None or NaN, shape ``(n_cells,)``."""
    # As objects: of a list of strings numpy would make the string "nan".
    return ~np.asarray(pd.isna(np.asarray(labels, dtype=object)))


def as_truth(values: ArrayLike, key: str) -> NDArray[np.bool_]:
    """Booleans, which may be written as 0 and 1.

    Raises
    ------
    RequestError
        If there are other values, missing ones included.
    """
    given = np.asarray(values)
    if given.dtype.kind == "b":
        return given
    numbers = given.dtype.kind in "biufO" and stated(given).all()
    if not (numbers and np.isin(given, (0, 1)).all()):
        raise RequestError(
            f"values such as {shown(pd.unique(given.astype(object).ravel())[:3])}",
            key=key,
            expected="booleans, or 0 and 1",
            remedy="compare with what counts as true: labels == 'T cell'; leave out cells of which "
            "it is not known",
        )
    return given.astype(bool)
