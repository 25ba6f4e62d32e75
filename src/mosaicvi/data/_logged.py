"""Tell log-transformed counts from counts that are fractional for another reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

_ROWS = 200
_TOLERANCE = 0.02
_LOG_CEILING = 15.0
"""log1p of three million: a natural logarithm of counts is not above it."""

_LOG2_CEILING = 25.0


def looks_logged(matrix: Any) -> bool:
    """Whether non-integer, non-negative values look like logarithms of counts.

    Within a cell, counts that were scaled are multiples of the smallest one, and so are
    ``exp(x) - 1`` (or ``2^x - 1``) of logarithms of counts, scaled or not. A sample of rows says
    which of the two fits. Where neither does (corrected counts), values that are nearly all
    fractional and all below the logarithm of any count are taken for logarithms.

    Parameters
    ----------
    matrix
        Shape ``(n_cells, n_features)``, with at least one fractional value.
    """
    rows = np.unique(np.linspace(0, matrix.shape[0] - 1, _ROWS).astype(np.int64))
    sample = matrix[rows]
    dense = np.asarray(sample.toarray() if sp.issparse(sample) else sample, dtype=np.float64)
    if float(dense.max(initial=0.0)) > _LOG2_CEILING:
        return False
    scaled = _share_of_multiples(dense)
    logged = max(_share_of_multiples(np.expm1(dense)), _share_of_multiples(np.exp2(dense) - 1))
    if max(scaled, logged) >= 0.8:
        return logged > scaled
    positive = dense[dense > 0]
    if not len(positive) or float(positive.max()) > _LOG_CEILING:
        return False
    return float((np.abs(positive - np.rint(positive)) > 1e-4).mean()) > 0.95


def _share_of_multiples(dense: np.ndarray) -> float:
    """Share of rows whose values are whole multiples of the row's smallest positive value."""
    smallest = np.where(dense > 0, dense, np.inf).min(axis=1, keepdims=True)
    distinct = dense.max(axis=1, keepdims=True) > smallest * 1.5
    usable = (np.isfinite(smallest) & distinct).ravel()
    if not usable.any():
        return 0.0
    ratios = dense[usable] / smallest[usable]
    off = np.abs(ratios - np.rint(ratios)) > _TOLERANCE + 1e-5 * ratios
    # A count of one may be missing from a row: half and third multiples fit as well.
    for divisor in (2, 3):
        finer = ratios * divisor
        alternative = np.abs(finer - np.rint(finer)) > _TOLERANCE * divisor + 1e-5 * finer
        off = np.where(alternative.any(axis=1, keepdims=True), off, alternative)
    return float((~off.any(axis=1)).mean())
