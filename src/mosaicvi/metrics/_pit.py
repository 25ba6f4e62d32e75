"""The randomised probability integral transform of a set of draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi.metrics._shapes import as_draws

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
        Draws of the predictive distribution, shape ``(n_draws, *measured.shape)``.
    measured
        What was measured, any shape, in the same unit. NaN gives NaN.
    seed
        Seed of ``V``.

    Returns
    -------
    PIT per entry on [0, 1), the shape of ``measured``.

    Raises
    ------
    RequestError
        If shapes do not belong together.
    """
    samples, values = as_draws(draws, measured)
    below = np.zeros(values.shape)
    ties = np.zeros(values.shape)
    for draw in samples:
        below += draw < values
        ties += draw == values
    jitter = np.random.default_rng(seed).random(values.shape)
    pit = (below + jitter * (ties + 1.0)) / (samples.shape[0] + 1.0)
    return np.where(np.isnan(values), np.nan, pit)
