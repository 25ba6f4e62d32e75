"""What is known of the background of antibodies before any model: controls, empty droplets."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from mosaicvi._errors import DataError, RequestError
from mosaicvi.data._names import find_isotypes
from mosaicvi.data._rows import RowSource
from mosaicvi.data._schema import AUTO, ModalitySpec, has_background, likelihood_of
from mosaicvi.data._structure import shown
from mosaicvi.data._values import Matrix, scan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData


def with_empty_droplets(
    mdata: MuData,
    specs: Mapping[str, ModalitySpec],
    droplets: Mapping[str, AnnData | pd.DataFrame | Matrix] | None,
) -> dict[str, ModalitySpec]:
    """Compute the background of each feature from droplets that held no cell.

    Parameters
    ----------
    mdata
        The MuData, for feature names.
    specs
        Specifications by modality.
    droplets
        Modality to an AnnData or a DataFrame with the same features in any order, or a matrix
        droplets x features in the modality's feature order, of raw counts.

    Returns
    -------
    Specifications whose ``background`` is the log of the mean counts a droplet.

    Raises
    ------
    RequestError
        For a modality that is unknown or has no background component.
    DataError
        If features differ, the values are not counts, or there is no count at all.
    """
    chosen = dict(specs)
    for name, given in (droplets or {}).items():
        if name not in specs or not has_background(likelihood_of(specs[name])):
            raise RequestError(
                "empty droplets were given for a modality without a background component",
                modality=name,
                key="empty_droplets",
                expected="a modality with the likelihood 'nb_mixture'",
            )
        matrix = _droplet_counts(mdata.mod[name], given, name)
        chosen[name] = replace(specs[name], background=_log_mean(matrix))
    return chosen


def _places(names: pd.Index, wanted: pd.Index, modality: str) -> np.ndarray:
    """Columns of the modality's features among those of the droplets, ``(n_features,)``."""
    repeated = names[names.duplicated()].unique()
    if len(repeated):
        raise DataError(
            f"the empty droplets have features of the same name: {shown(repeated)}",
            modality=modality,
            key="empty_droplets",
            expected="each feature once",
        )
    places = names.get_indexer(wanted)
    if (places < 0).any():
        raise DataError(
            f"the empty droplets lack {int((places < 0).sum())} features: "
            f"{shown(wanted[places < 0])}",
            modality=modality,
            key="empty_droplets",
            expected="the modality's features",
            remedy=f"name them as in mdata.mod[{modality!r}].var_names; a matrix without names is "
            "read in that order",
        )
    return places


def _droplet_counts(adata: AnnData, given: AnnData | pd.DataFrame | Matrix, name: str) -> Matrix:
    if isinstance(given, AnnData):
        matrix = given.X[:, _places(given.var_names, adata.var_names, name)]
    elif isinstance(given, pd.DataFrame):
        matrix = given.iloc[:, _places(given.columns, adata.var_names, name)].to_numpy()
    else:
        matrix = given if sp.issparse(given) else np.asarray(given)
    if matrix.ndim != 2 or matrix.shape[1] != adata.n_vars or matrix.shape[0] == 0:
        raise DataError(
            f"the empty droplets have shape {matrix.shape}",
            modality=name,
            key="empty_droplets",
            expected=f"(n_droplets, {adata.n_vars})",
        )
    if not scan(matrix).is_counts:
        raise DataError(
            "the empty droplets hold values that are not counts",
            modality=name,
            key="empty_droplets",
            expected="raw counts",
        )
    if not matrix.sum():
        raise DataError(
            "the empty droplets hold no count",
            modality=name,
            key="empty_droplets",
            expected="raw counts of droplets without a cell, some above zero",
            remedy="take barcodes that the cell caller left out, or leave empty_droplets out",
        )
    return matrix


def _log_mean(matrix: Matrix) -> tuple[float, ...]:
    """Log of the mean count a droplet, half a count added over all droplets to stay finite."""
    totals = np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel()
    return _log_totals(totals, matrix.shape[0])


def _log_totals(totals: np.ndarray, n_rows: int | np.ndarray) -> tuple[float, ...]:
    return tuple(float(level) for level in np.log((totals + 0.5) / n_rows))


def log_background(
    adata: AnnData,
    matrix: Matrix | RowSource,
    spec: ModalitySpec,
    modality: str,
    n_measured: np.ndarray,
) -> tuple[float, ...] | None:
    """Known log background level of each feature.

    The level of empty droplets where given; otherwise each isotype control's own mean count, for
    every count of a control is background. Other features stay unknown (NaN), since antibodies
    differ in background by orders of magnitude.

    Parameters
    ----------
    adata
        The modality.
    matrix
        Its counts, ``(n_modality_cells, n_features)``, zero where a panel lacks the feature.
    spec
        Its specification.
    modality
        Its name, for messages.
    n_measured
        Cells whose panel holds each feature, ``(n_features,)``.

    Returns
    -------
    Log counts a cell by feature, or None where nothing is known.

    Raises
    ------
    DataError
        If a named isotype control is not among the features, or the given background does not fit.
    """
    if not has_background(likelihood_of(spec)):
        return None
    names = [str(name) for name in adata.var_names]
    if spec.background is not None:
        if len(spec.background) != len(names):
            raise DataError(
                f"background has {len(spec.background)} levels",
                modality=modality,
                key="background",
                expected=f"one for each of {len(names)} features",
            )
        return spec.background
    if spec.isotypes is None:
        return None
    isotypes = find_isotypes(names) if spec.isotypes == AUTO else spec.isotypes
    lacking = [name for name in isotypes if name not in set(names)]
    if lacking:
        raise DataError(
            f"isotype controls {shown(lacking)} are not among the features",
            modality=modality,
            key="isotypes",
            expected=f"some of the features; by name these look like controls: "
            f"{shown(find_isotypes(names)) or 'none'}",
        )
    places = [place for place in map(names.index, isotypes) if n_measured[place]]
    if not places:
        return None
    levels = [math.nan] * len(names)
    if isinstance(matrix, RowSource):
        totals = matrix.profile.column_totals[places]
    else:
        totals = np.asarray(matrix[:, places].sum(axis=0), dtype=np.float64).ravel()
    for feature, level in zip(places, _log_totals(totals, n_measured[places]), strict=True):
        levels[feature] = level
    return tuple(levels)
