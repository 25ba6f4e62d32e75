"""The continuous ranked probability score of a set of draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from mosaicvi._errors import RequestError
from mosaicvi.metrics._shapes import as_draws

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def crps_from_samples(
    draws: ArrayLike, measured: ArrayLike, *, estimator: Literal["fair", "plain"] = "fair"
) -> NDArray[np.float64]:
    """Continuous ranked probability score, estimated from draws; lower is better.

    ``CRPS(F, y) = E|X - y| - E|X - X'| / 2`` with ``X, X' ~ F`` independent
    (Gneiting & Raftery 2007, equation 21). The second expectation is estimated from the ``n`` draws
    over pairs of different draws, ``/ (n (n - 1))``, which is unbiased for the score of ``F``
    ("fair"; Ferro 2014), or over all pairs, ``/ n^2``, which is the exact score of the empirical
    distribution of the draws ("plain") and favours methods that give more draws.

    Parameters
    ----------
    draws
        Draws of the predictive distribution, shape ``(n_draws, *measured.shape)``.
    measured
        What was measured, any shape, in the same unit. NaN gives NaN, and so does a draw of NaN.
    estimator
        "fair" (default; needs two draws) or "plain".

    Returns
    -------
    Score per entry, the shape of ``measured``, in its unit. The fair estimate can be negative.

    Raises
    ------
    RequestError
        If shapes do not belong together, there are too few draws, or the estimator is unknown.
    """
    samples, values = as_draws(draws, measured)
    n_draws = samples.shape[0]
    if estimator not in ("fair", "plain"):
        raise RequestError(f"{estimator!r}", key="estimator", expected="'fair' or 'plain'")
    if estimator == "fair" and n_draws < 2:
        raise RequestError("one draw", key="draws", expected="at least two for the fair estimate")
    pairs = n_draws * (n_draws - 1 if estimator == "fair" else n_draws)
    # sum_{i<j} (x_(j) - x_(i)) = sum_k (2k - n - 1) x_(k) over sorted draws, k from 1
    weights = 2.0 * np.arange(1, n_draws + 1) - n_draws - 1.0
    score = np.empty(values.shape, dtype=np.float64)
    flat_samples = samples.reshape(n_draws, -1)
    flat_values, flat_score = values.reshape(-1), score.reshape(-1)
    step = max(1, 4_000_000 // n_draws)  # entries at a time, so that sorting copies stay small
    for start in range(0, flat_values.size, step):
        part = np.sort(flat_samples[:, start : start + step].astype(np.float64), axis=0)
        distance = np.abs(part - flat_values[start : start + step]).mean(axis=0)
        flat_score[start : start + step] = distance - weights @ part / pairs
    return score
