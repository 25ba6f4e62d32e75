"""The randomised probability integral transform of a set of draws, and how far from uniform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi.metrics._shapes import as_draws, as_pit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def randomised_pit(draws: ArrayLike, measured: ArrayLike, *, seed: int = 0) -> NDArray[np.float64]:
    """Randomised rank of what was measured among the draws, uniform if the draws are right.

    ``u = (#{x_k < y} + V (#{x_k = y} + 1)) / (n + 1)``, ``V ~ U(0, 1)``: the randomised PIT for
    counts (Czado, Gneiting & Held 2009, section 2) with the value itself counted among its ties,
    so that ``u`` is exactly uniform, for any number of draws, when the value and the draws come
    from one distribution.

    Parameters
    ----------
    draws
        Draws of the predictive distribution, shape ``(n_draws, *measured.shape)``. An entry with a
        draw of NaN has none: :meth:`mosaicvi.MosaicVI.posterior_predictive_sample` gives such where
        a cell has no evidence.
    measured
        What was measured, any shape, in the same unit. NaN gives NaN.
    seed
        Seed of ``V``.

    Returns
    -------
    PIT per entry on [0, 1), the shape of ``measured``; NaN where there is no measured value or no
    draws, and the scores of the PIT leave such entries out.

    Raises
    ------
    RequestError
        If shapes do not belong together.
    """
    samples, values = as_draws(draws, measured)
    below = np.zeros(values.shape)
    ties = np.zeros(values.shape)
    lacking = np.isnan(values)
    for draw in samples:
        lacking |= np.isnan(draw)
        below += draw < values
        ties += draw == values
    jitter = np.random.default_rng(seed).random(values.shape)
    pit = (below + jitter * (ties + 1.0)) / (samples.shape[0] + 1.0)
    return np.where(lacking, np.nan, pit)


def pit_distance(pit: ArrayLike) -> NDArray[np.float64]:
    """Largest distance of the PIT's distribution function from that of a uniform, per feature.

    ``max_u |F_n(u) - u|``, the statistic of Kolmogorov and Smirnov: 0 for a right distribution with
    many cells, about ``0.87 / sqrt(n)`` for one with n cells. Too narrow draws and shifted ones
    raise it alike, and too wide ones.

    Parameters
    ----------
    pit
        From :func:`mosaicvi.metrics.randomised_pit`, shape ``(n_cells, n_features)``; NaN is left
        out.

    Returns
    -------
    Between 0 and 1, shape ``(n_features,)``; NaN where a feature has no PIT.

    Raises
    ------
    RequestError
        If a PIT is not between 0 and 1.
    """
    table = as_pit(pit)
    found = np.full(table.shape[1], np.nan)
    for feature, column in enumerate(table.T):
        values = np.sort(column[np.isfinite(column)])
        if not values.size:
            continue
        steps = np.arange(values.size + 1) / values.size
        found[feature] = max((steps[1:] - values).max(), (values - steps[:-1]).max())
    return found
