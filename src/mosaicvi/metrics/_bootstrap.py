"""Intervals of differences between methods that were scored on the same seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import RequestError, check_whole
from mosaicvi.metrics._shapes import along

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Difference:
    """A mean paired difference and its interval.

    Parameters
    ----------
    mean
        Mean over seeds of the first minus the second.
    low, high
        Bounds of the interval; NaN of one seed, which says nothing of others.
    level
        Nominal level of the interval.
    n_pairs
        Number of seeds.
    """

    mean: float
    low: float
    high: float
    level: float
    n_pairs: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0.0 or self.high < 0.0


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Percentile bootstrap interval of the mean difference of two scores, paired by seed.

    Seeds are resampled, so the interval speaks of other splits of the same data, not of other
    data (Efron & Tibshirani 1993, chapter 13). With few seeds it cannot reach beyond the largest
    and smallest difference seen, and holds less often than its level says: of normal differences
    an interval of 95 % holds .76 with three seeds, .85 with five and .91 with ten.

    Parameters
    ----------
    first, second
        One score a seed, shape ``(n_seeds,)``, in the same order of seeds; two Series of the same
        seeds are matched by these.
    level
        Nominal level.
    n_resamples
        Number of bootstrap samples.
    seed
        Seed of the resampling.

    Raises
    ------
    RequestError
        If the two have different lengths, there is no seed, ``level`` is not between 0 and
        1, or ``n_resamples`` no whole number of at least one.
    """
    if not 0.0 < level < 1.0:
        raise RequestError(
            f"{level}",
            key="level",
            expected="a number between 0 and 1",
            remedy="0.95 for 95 per cent",
        )
    check_whole(n_resamples, "n_resamples")
    left = np.asarray(first, dtype=np.float64)
    right = np.asarray(along(second, first), dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or left.size == 0:
        raise RequestError(
            f"shapes {left.shape} and {right.shape}",
            key="first, second",
            expected="one score a seed in both, the same seeds",
        )
    differences = left - right
    if left.size == 1:
        nothing = float("nan")
        return Difference(float(differences[0]), nothing, nothing, level, 1)
    rows = np.random.default_rng(seed).integers(0, left.size, size=(n_resamples, left.size))
    means = differences[rows].mean(axis=1)
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Difference(float(differences.mean()), float(low), float(high), level, int(left.size))
