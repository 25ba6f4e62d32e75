"""How often intervals hold, and how wide they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mosaicvi._errors import RequestError
from mosaicvi.metrics._shapes import as_pit, dense

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LEVELS = (0.5, 0.8, 0.95)


Levels = float | Sequence[float] | NDArray[np.floating[Any]]


def checked_levels(levels: Levels) -> NDArray[np.float64]:
    """Nominal levels of intervals as ``(n_levels,)``; a single number is one level.

    Raises
    ------
    RequestError
        If there are none, or these are no numbers between 0 and 1.
    """
    try:
        given = np.atleast_1d(np.asarray(levels, dtype=np.float64))
    except (TypeError, ValueError):
        given = np.empty(0)
    if given.ndim != 1 or not given.size or not ((given > 0.0) & (given < 1.0)).all():
        raise RequestError(
            f"{levels}",
            key="levels",
            expected="numbers between 0 and 1",
            remedy="levels=(0.5, 0.8, 0.95), as shares and not in per cent",
        )
    return given


def coverage(pit: ArrayLike, levels: Levels = LEVELS) -> NDArray[np.float64]:
    """Share of measured values inside the central interval of each level, per feature.

    A value is inside the interval of level ``l`` when its randomised PIT lies between
    ``(1 - l) / 2`` and ``(1 + l) / 2``. Unlike counting values between two quantiles of counts,
    this has expectation ``l`` exactly for a right distribution, ties included.

    Parameters
    ----------
    pit
        From :func:`mosaicvi.metrics.randomised_pit`, shape ``(n_cells, n_features)``; NaN (no
        measured value, or no draws) is left out.
    levels
        Nominal levels; a single number is one level.

    Returns
    -------
    Shape ``(n_levels, n_features)``; NaN where a feature has no PIT.

    Raises
    ------
    RequestError
        If a level or a PIT is not between 0 and 1.
    """
    table, nominal = as_pit(pit), checked_levels(levels)
    held = np.isfinite(table)
    counts = held.sum(axis=0)
    share = np.full((len(nominal), table.shape[1]), np.nan)
    for row, level in enumerate(nominal):
        inside = held & (np.abs(table - 0.5) <= level / 2.0)
        np.divide(inside.sum(axis=0), counts, out=share[row], where=counts > 0)
    return share


def miscoverage(pit: ArrayLike, levels: Levels = LEVELS) -> NDArray[np.float64]:
    """Mean over levels of ``|coverage - level|``, per feature, shape ``(n_features,)``.

    Parameters
    ----------
    pit
        From :func:`mosaicvi.metrics.randomised_pit`, shape ``(n_cells, n_features)``; NaN is left
        out, as in :func:`coverage`.
    levels
        Nominal levels; a single number is one level.

    Raises
    ------
    RequestError
        If a level or a PIT is not between 0 and 1.
    """
    nominal = checked_levels(levels)
    return np.asarray(np.abs(coverage(pit, nominal) - nominal[:, None]).mean(axis=0))


def interval_width(draws: ArrayLike, levels: Levels = LEVELS) -> NDArray[np.float64]:
    """Mean width of the central interval of each level, per feature.

    Parameters
    ----------
    draws
        Draws, shape ``(n_draws, n_cells, n_features)``. Entries with a draw of NaN (cells without
        evidence) are left out.
    levels
        Nominal levels; a single number is one level.

    Returns
    -------
    Shape ``(n_levels, n_features)``, in the unit of the draws: the distance between the quantiles
    ``(1 - l) / 2`` and ``(1 + l) / 2`` of the draws, averaged over cells; NaN where a feature has
    no cell with draws.

    Raises
    ------
    RequestError
        If the draws do not have three axes or a level is not between 0 and 1.
    """
    samples = np.asarray(dense(draws, "draws"))
    if samples.ndim != 3:
        raise RequestError(
            f"shape {samples.shape}", key="draws", expected="(n_draws, n_cells, n_features)"
        )
    nominal = checked_levels(levels)
    width = np.full((len(nominal), samples.shape[2]), np.nan)
    for feature in range(samples.shape[2]):
        part = samples[:, :, feature]
        lacking = np.isnan(part).any(axis=0)
        if lacking.all():
            continue
        if lacking.any():
            part = part[:, ~lacking]
        for row, level in enumerate(nominal):
            low, high = np.quantile(part, [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=0)
            width[row, feature] = float(np.mean(high - low))
    return width
