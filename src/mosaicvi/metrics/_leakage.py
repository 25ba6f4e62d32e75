"""How well batch and depth can be read from a latent space, beyond what cell type explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.preprocessing import StandardScaler

from mosaicvi._errors import RequestError
from mosaicvi.metrics._folds import stratified_folds
from mosaicvi.metrics._latents import check_finite
from mosaicvi.metrics._shapes import Floats, along, as_named, as_table, stated

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

PENALTIES = np.logspace(-1, 5, 7)
FLAT = 1e-6
"""Depths whose logarithms differ by less than this part of them are the same."""


@dataclass(frozen=True)
class Leakage:
    """What can be read from a latent space within type: 0 nothing, 1 all; NaN: not asked for.

    Parameters
    ----------
    batch
        Balanced accuracy above chance, ``(accuracy - 1 / n) / (1 - 1 / n)`` over n batches.
    depth
        R2 of log1p depth.
    """

    batch: float
    depth: float


def _reader_inputs(training: Floats, test: Floats) -> tuple[Floats, Floats]:
    """Standardised dimensions and their standardised squares."""
    scaler = StandardScaler().fit(training)
    parts = scaler.transform(training), scaler.transform(test)
    squares = StandardScaler().fit(parts[0] ** 2)
    return tuple(np.hstack([part, squares.transform(part**2)]) for part in parts)  # type: ignore[return-value]


def _read_batch(
    points: Floats, codes: NDArray[np.int64], n_folds: int, seed: int
) -> tuple[float, int]:
    """Balanced accuracy above chance within one type, and the number of cells it rests on."""
    counts = np.bincount(codes)
    kept = counts[codes] >= 2 * n_folds
    points, codes = points[kept], np.unique(codes[kept], return_inverse=True)[1]
    n_batches = int(codes.max(initial=-1)) + 1
    if n_batches < 2:
        return 0.0, 0
    correct, folds = np.empty(len(codes), dtype=bool), stratified_folds(codes, n_folds, seed)
    for fold in range(n_folds):
        test = folds == fold
        known, asked = _reader_inputs(points[~test], points[test])
        reader = RidgeClassifierCV(PENALTIES, class_weight="balanced").fit(known, codes[~test])
        correct[test] = reader.predict(asked) == codes[test]
    recall = np.bincount(codes, weights=correct) / np.bincount(codes)
    return float((recall.mean() - 1.0 / n_batches) / (1.0 - 1.0 / n_batches)), len(codes)


def _read_depth(points: Floats, depth: Floats, n_folds: int, seed: int) -> tuple[float, float]:
    """Squared errors within one type, and its squares about the mean."""
    errors, folds = (
        np.empty(len(depth)),
        stratified_folds(np.zeros(len(depth), np.int64), n_folds, seed),
    )
    for fold in range(n_folds):
        test = folds == fold
        known, asked = _reader_inputs(points[~test], points[test])
        errors[test] = RidgeCV(PENALTIES).fit(known, depth[~test]).predict(asked) - depth[test]
    return float((errors**2).sum()), float(((depth - depth.mean()) ** 2).sum())


def _checked_depth(depth: ArrayLike) -> Floats:
    values = np.asarray(depth, dtype=np.float64)
    wrong = (values < 0) | np.isinf(values)
    if wrong.any():
        raise RequestError(
            f"{int(wrong.sum())} of {values.size} values are negative or infinite",
            key="depth",
            expected="total counts of each cell, of which log1p is taken here",
        )
    return values


def leakage(
    latent: ArrayLike,
    types: ArrayLike | None = None,
    *,
    batch: ArrayLike | None = None,
    depth: ArrayLike | None = None,
    n_folds: int = 5,
    min_cells: int = 50,
    seed: int = 0,
) -> Leakage:
    """How well batch and depth can be read from a latent space within type.

    Within each type a ridge model of the standardised dimensions and their squares is trained to
    tell batch (as a classifier with balanced classes) and log1p depth, with the penalty chosen
    inside the training cells, and judged on cells it has not seen. Batch: the types' balanced
    accuracies above chance, averaged by their cells. Depth: one R2, squared errors and squares
    about the type's mean summed over types. What type explains earns nothing.

    A reader this simple finds shifts and changes of spread, not every pattern: 0 means that it
    could read nothing. :func:`batch_mixing` looks at neighbours instead.

    Parameters
    ----------
    latent
        Shape ``(n_cells, n_latent)``; of one modality, or of both for ``batch=modality``.
    types
        Type of each cell, shape ``(n_cells,)``; None: all cells are of one.
    batch
        Batch of each cell; in a type, batches with fewer cells than two a fold are left out.
    depth
        Total counts of each cell, at least 0. Cells without a type, batch or depth (None, NaN) are
        left out, where it is given.
    n_folds
        Folds of the cross-validation.
    min_cells
        Types with fewer cells are left out.
    seed
        Seed of the folds.

    Returns
    -------
    Both between 0 and 1, where values below 0 (worse than knowing nothing) are set to 0. NaN for
    what was not given, or where no type could be judged (few cells, one batch, one depth). A
    constant latent scores about 0; batch or depth themselves score 1. The score does not depend on
    how good the latent is: noise, too, scores about 0.

    Raises
    ------
    RequestError
        If the arrays do not belong together, the latent has values that are not finite, a depth is
        negative or infinite, or there are fewer than two folds.
    """
    points = as_table(latent, "latent")
    types, batch, depth = (
        None if values is None else along(values, latent) for values in (types, batch, depth)
    )
    given = {"types": types, "batch": batch, "depth": depth}
    for key, values in given.items():
        if values is not None and np.asarray(values).shape != points.shape[:1]:
            raise RequestError(
                f"shape {np.asarray(values).shape} for {len(points)} cells",
                key=key,
                expected="(n_cells,)",
            )
    if n_folds < 2:
        raise RequestError(f"{n_folds}", key="n_folds", expected="at least 2")
    known = np.ones(len(points), dtype=bool)
    for values in given.values():
        known &= True if values is None else stated(values)
    points = points[known]
    check_finite(points, "latent")
    groups = np.zeros(len(points), dtype=int) if types is None else as_named(types)[known]
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    members = [rows for rows in members if len(rows) >= max(min_cells, 2 * n_folds)]
    found = Leakage(float("nan"), float("nan"))
    if batch is not None:
        codes = np.unique(as_named(batch)[known], return_inverse=True)[1]
        parts = np.array(
            [_read_batch(points[rows], codes[rows], n_folds, seed) for rows in members]
        )
        cells = parts[:, 1].sum() if len(parts) else 0.0
        if cells:
            share = float(parts[:, 0] @ parts[:, 1] / cells)
            found = Leakage(max(share, 0.0), found.depth)
    if depth is not None:
        log = np.log1p(_checked_depth(depth)[known])
        # Depth that is the same in all cells of a type, but for rounding, leaves nothing to read.
        members = [rows for rows in members if np.ptp(log[rows]) > FLAT * np.abs(log[rows]).max()]
        squares = np.array(
            [_read_depth(points[rows], log[rows], n_folds, seed) for rows in members]
        )
        if len(squares):
            explained = 1.0 - float(squares[:, 0].sum() / squares[:, 1].sum())
            found = Leakage(found.batch, max(explained, 0.0))
    return found
