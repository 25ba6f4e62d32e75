"""Values to plot, however they are handed over."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData

from mosaicvi import _keys
from mosaicvi._errors import MosaicviWarning, RequestError
from mosaicvi.data._columns import as_label
from mosaicvi.data._structure import shown
from mosaicvi.likelihoods import BetaBinomial
from mosaicvi.tl._obs import joined

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYER_LOG1P_MEAN = "log1p_mean"
LAYER_DRAW = "draw"
"""One posterior predictive draw a cell, where the caller put one: as noisy as a measurement."""


MAX_CATEGORIES = 100
"""More different numbers than this are measurements, and no categories."""


def cell_column(mdata: MuData, key: str, option: str) -> pd.Series:
    """Column of all cells, of ``mdata.obs``, else of the modalities that have it.

    Of a cell in several of these the first one's value; NaN where unknown.

    Raises
    ------
    RequestError
        If no ``obs`` has the column, or its name is none.
    """
    if not isinstance(key, str):
        raise RequestError(
            f"found {type(key).__name__}",
            key=option,
            expected="the name of one column",
            remedy="of a column a modality, join them first: mdata.obs[...] = ...",
        )
    if key in mdata.obs:
        return pd.Series(mdata.obs[key])
    columns = [
        adata.obs[own]
        for name, adata in mdata.mod.items()
        if (own := key.removeprefix(f"{name}:")) in adata.obs
    ]
    if not columns:
        known = {*mdata.obs, *(each for adata in mdata.mod.values() for each in adata.obs)}
        raise RequestError(
            f"no column {key!r} in mdata.obs or in a modality's obs",
            key=option,
            expected=f"one of {shown(sorted(known)) or 'no columns'}",
        )
    return joined(columns, mdata.obs_names).rename(key)


def categories(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Name of each cell's category, None where it has none, and the names in their order.

    Raises
    ------
    RequestError
        If the column holds numbers, of which nearly every cell has another.
    """
    found = pd.unique(values.dropna())
    if isinstance(values.dtype, pd.CategoricalDtype):
        present = set(found)
        ordered = [name for name in values.cat.categories if name in present]
    elif pd.api.types.is_numeric_dtype(values.dtype) and len(found) > MAX_CATEGORIES:
        raise RequestError(
            f"the column holds {len(found)} different numbers",
            key=str(values.name),
            expected="categories, such as types or batches",
            remedy="cut it into some: mdata.obs[...] = pd.qcut(values, 4)",
        )
    else:
        ordered = sorted(found, key=lambda value: (isinstance(value, str), value))
    names = {value: as_label(value) for value in ordered}
    return (
        np.array([names.get(value) for value in values], dtype=object),
        list(dict.fromkeys(names.values())),
    )


def table(values: Any) -> np.ndarray:
    """Dense float64 ``(n_cells, n_features)`` of an array, sparse matrix, DataFrame or AnnData.

    Raises
    ------
    RequestError
        If it is something else, or an AnnData has layers alone.
    """
    given = type(values).__name__
    if isinstance(values, AnnData):
        if values.X is None:
            raise RequestError(
                "found an AnnData without X",
                key="measured",
                expected="values in X",
                remedy='take them from a layer: adata.to_df(layer="counts")',
            )
        values = values.X
    if sp.issparse(values):
        values = values.toarray()
    try:
        if isinstance(values, MuData):  # which numpy would index a value at a time, without end
            raise TypeError(given)
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"found {given}, which is no table of numbers",
            key="measured",
            expected="an array, sparse matrix, DataFrame or AnnData, (n_cells, n_features)",
            remedy="name the modality: mdata.mod[...]" if given == "MuData" else None,
        ) from error


def feature_names(values: Any) -> list[str] | None:
    """Names of the columns, where the values have names."""
    if isinstance(values, AnnData):
        return [str(name) for name in values.var_names]
    return [str(name) for name in values.columns] if isinstance(values, pd.DataFrame) else None


def measured_values(measured: Any, imputed: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Measured values of the cells that were both measured and imputed.

    Parameters
    ----------
    measured
        AnnData or DataFrame, whose cells and features are matched by name; or an array in the order
        of ``imputed``.
    imputed
        Answer of :meth:`mosaicvi.MosaicVI.impute`.

    Returns
    -------
    Rows of ``imputed``, int64 ``(n_matched,)``, and values ``(n_matched, n_features)``, NaN for
    features that were not measured.

    Raises
    ------
    RequestError
        If no cell or no feature matches, a name is there twice, or both stand in each
        other's place.
    """
    if isinstance(measured, AnnData) and _keys.UNS in measured.uns and _keys.UNS not in imputed.uns:
        raise RequestError(
            "measured values stand where the answer of impute() is expected, and the other way",
            key="imputed",
            remedy="pl.imputation(imputed, measured)",
        )
    if not isinstance(measured, AnnData | pd.DataFrame):
        given = table(measured)
        if given.shape != imputed.shape:
            raise RequestError(
                f"an array of shape {given.shape}", key="measured", expected=f"{imputed.shape}"
            )
        return np.arange(imputed.n_obs), given
    names = measured.obs_names if isinstance(measured, AnnData) else measured.index
    cells, features = names.astype(str), pd.Index(feature_names(measured) or [])
    for given_names, kind in ((cells, "cell"), (features, "feature")):
        if not given_names.is_unique:
            twice = given_names[given_names.duplicated()].unique()
            raise RequestError(
                f"{kind}s of the same name: {shown(twice)}",
                key="measured",
                expected=f"each {kind} name once, as {kind}s are matched by name",
                remedy="make names unique as those of the data that the model was built on",
            )
    found = cells.get_indexer(imputed.obs_names)
    answered = np.isfinite(np.asarray(imputed.X)).all(axis=1)
    rows = np.flatnonzero((found >= 0) & answered)
    if len(rows) == 0:
        raise RequestError(
            "no imputed cell is among the measured ones",
            key="measured",
            expected="cells named as in the imputed AnnData",
        )
    columns = features.get_indexer(imputed.var_names)
    if (columns < 0).all():
        raise RequestError(
            f"no imputed feature is among the measured ones ({shown(features)})",
            key="measured",
            expected=f"features named as in the imputed AnnData ({shown(imputed.var_names)})",
        )
    values = measured[found[rows]] if isinstance(measured, AnnData) else measured.iloc[found[rows]]
    given = table(values)
    chosen = np.full((len(rows), imputed.n_vars), np.nan)
    chosen[:, columns >= 0] = given[:, columns[columns >= 0]]
    return rows, chosen


def check_counts(values: np.ndarray, measured: Any) -> None:
    """Refuse measured values that cannot be counts, and warn of those that hardly are.

    Raises
    ------
    RequestError
        If a value is negative.
    """
    known = values[np.isfinite(values)]
    remedy = 'of an AnnData whose counts are in a layer: adata.to_df(layer="counts")'
    if (known < 0).any():
        raise RequestError(
            f"{int((known < 0).sum())} of {known.size} values are negative",
            key="measured",
            expected="counts, of which log1p is taken here, as the answer is one of counts",
            remedy=remedy,
        )
    if isinstance(measured, AnnData) and (known != np.rint(known)).any():
        example = known[known != np.rint(known)][0]
        warnings.warn(
            f"X of the measured AnnData holds values that are no whole numbers, such as "
            f"{example:.3g}: counts are expected, of which log1p is taken here. Remedy, {remedy}.",
            MosaicviWarning,
            stacklevel=3,
        )


def check_rates(values: np.ndarray, imputed: AnnData) -> None:
    """Refuse reads beside an answer of rates.

    Raises
    ------
    RequestError
        If the answer is one of rates, and a measured value is above one.
    """
    likelihood = imputed.uns.get(_keys.UNS, {}).get("likelihood")
    if likelihood == BetaBinomial.name and (values > 1).any():
        raise RequestError(
            f"values up to {np.nanmax(values):.4g} beside imputed rates, which are from 0 to 1",
            key="measured",
            expected="rates: methylated reads over coverage, NaN without coverage",
            remedy="an array like imputed.X, or a DataFrame of rates with names of cells and "
            "features",
        )


def holds_counts(imputed: AnnData) -> bool:
    """Whether an answer is one of counts: of these, and only of these, ``impute`` gives log1p."""
    return LAYER_LOG1P_MEAN in imputed.layers or _keys.UNS not in imputed.uns


def imputed_values(imputed: AnnData, layer: str | None) -> np.ndarray:
    """Imputed values as log1p counts, or as they are if continuous, ``(n_cells, n_features)``.

    Parameters
    ----------
    imputed
        Answer of :meth:`mosaicvi.MosaicVI.impute`, on the scale of counts or log1p.
    layer
        The layer to read; None: ``X``.

    Raises
    ------
    RequestError
        If there is no such layer, or the answer is on a scale that has no log1p counts.
    """
    if layer is not None and layer not in imputed.layers:
        raise RequestError(
            f"no layer {layer!r}", key="layer", expected=f"some of {list(imputed.layers)}"
        )
    values = np.asarray(imputed.X if layer is None else imputed.layers[layer], dtype=np.float64)
    if layer == LAYER_LOG1P_MEAN or not holds_counts(imputed):
        return values
    scale = str(imputed.uns.get(_keys.UNS, {}).get("scale", "counts"))
    if layer in (LAYER_DRAW, "denoised") or scale == "counts":
        return np.log1p(values)
    if scale == "log1p":
        return values
    raise RequestError(
        f"the answer is on the scale {scale!r}",
        key="imputed",
        expected="counts or log1p",
        remedy=f"layer={LAYER_LOG1P_MEAN!r}",
    )


def features_of(imputed: AnnData, features: str | Sequence[str] | None) -> list[str]:
    """Chosen features; None: the six that can best be imputed.

    Raises
    ------
    RequestError
        If a feature is unknown, or named twice.
    """
    if features is None:
        score = imputed.var.get(_keys.VAR_IMPUTABILITY)
        if score is None or score.isna().all():
            return [str(name) for name in imputed.var_names[:6]]
        return [str(name) for name in score.sort_values(ascending=False).index[:6]]
    chosen = [features] if isinstance(features, str) else list(features)
    unknown = [name for name in chosen if name not in imputed.var_names]
    if unknown or not chosen:
        raise RequestError(
            f"no feature {unknown[0]!r}" if unknown else "no feature given",
            key="features",
            expected="names such as " + ", ".join(map(repr, imputed.var_names[:5])),
        )
    twice = [name for name in dict.fromkeys(chosen) if chosen.count(name) > 1]
    if twice:
        raise RequestError(
            f"feature {twice[0]!r} is named twice",
            key="features",
            expected="each feature once",
            remedy="list(dict.fromkeys(features))",
        )
    return chosen
