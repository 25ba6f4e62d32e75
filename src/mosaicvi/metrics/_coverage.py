"""How often intervals hold, and how wide they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import RequestError
from mosaicvi.metrics._shapes import as_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

LEVELS = (0.5, 0.8, 0.95)


def _checked(levels: Sequence[float]) -> tuple[float, ...]:
    if not levels or not all(0.0 < level < 1.0 for level in levels):
        raise RequestError(f"{tuple(levels)}", key="levels", expected="numbers between 0 and 1")
    return tuple(levels)


def coverage(pit: ArrayLike, levels: Sequence[float] = LEVELS) -> NDArray[np.float64]:
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
        Nominal levels.

    Returns
    -------
    Shape ``(n_levels, n_features)``; NaN where a feature has no PIT.

    Raises
    ------
    RequestError
        If a level is not between 0 and 1.
    """
    table = as_table(pit, "pit")
    held = np.isfinite(table)
    counts = held.sum(axis=0)
    share = np.full((len(_checked(levels)), table.shape[1]), np.nan)
    for row, level in enumerate(levels):
        inside = held & (np.abs(table - 0.5) <= level / 2.0)
        np.divide(inside.sum(axis=0), counts, out=share[row], where=counts > 0)
    return share


def miscoverage(pit: ArrayLike, levels: Sequence[float] = LEVELS) -> NDArray[np.float64]:
    """Mean over levels of ``|coverage - level|``, per feature, shape ``(n_features,)``.

    Parameters
    ----------
    pit
        From :func:`mosaicvi.metrics.randomised_pit`, shape ``(n_cells, n_features)``; NaN is left
        out, as in :func:`coverage`.
    levels
        Nominal levels.

    Raises
    ------
    RequestError
        If a level is not between 0 and 1.
    """
    nominal = np.asarray(_checked(levels))[:, None]
    return np.asarray(np.abs(coverage(pit, levels) - nominal).mean(axis=0))


def interval_width(draws: ArrayLike, levels: Sequence[float] = LEVELS) -> NDArray[np.float64]:
    """Mean width of the central interval of each level, per feature.

    Parameters
    ----------
    draws
        Draws, shape ``(n_draws, n_cells, n_features)``. Entries with a draw of NaN (cells without
        evidence) are left out.
    levels
        Nominal levels.

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
    samples = np.asarray(draws)
    if samples.ndim != 3:
        raise RequestError(
            f"shape {samples.shape}", key="draws", expected="(n_draws, n_cells, n_features)"
        )
    width = np.full((len(_checked(levels)), samples.shape[2]), np.nan)
    for feature in range(samples.shape[2]):
        part = samples[:, :, feature]
        lacking = np.isnan(part).any(axis=0)
        if lacking.all():
            continue
        if lacking.any():
            part = part[:, ~lacking]
        for row, level in enumerate(levels):
            low, high = np.quantile(part, [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=0)
            width[row, feature] = float(np.mean(high - low))
    return width
