"""Held-out deviance of predicted means, one definition for every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOOR = 0.05
"""Share of the feature means that is mixed into every method's rates: a method for real numbers
may predict none at all, and its deviance would be infinite."""

LARGEST_DISPERSION, SMALLEST_DISPERSION = 100.0, 1e-6
N_BOOTSTRAP = 200


def dispersion(counts: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dispersion a feature by moments, ``var = mean + dispersion * mean ** 2``."""
    surplus = ((counts - means) ** 2 - means).sum(0) / np.maximum((means**2).sum(0), 1e-12)
    return np.asarray(np.clip(surplus, SMALLEST_DISPERSION, LARGEST_DISPERSION))


def negative_binomial_deviance(
    counts: NDArray[np.float64], means: NDArray[np.float64], spread: NDArray[np.float64]
) -> NDArray[np.float64]:
    r"""Deviance of every entry for a given dispersion :math:`a`; its mean is least at the truth.

    .. math:: 2 \left[ x \log \frac{x}{\mu} - (x + 1/a) \log \frac{1 + a x}{1 + a \mu} \right]
    """
    own = np.where(counts > 0, counts * np.log(np.maximum(counts, 1e-300) / means), 0.0)
    rest = (counts + 1 / spread) * (np.log1p(spread * counts) - np.log1p(spread * means))
    return np.asarray(2 * (own - rest))


@dataclass(frozen=True)
class HeldOut:
    """Hidden values of one modality, and known ones of training cells.

    Parameters
    ----------
    training
        Values of all training cells, ``(n_training, n_features)``.
    known
        Values of the training cells whose predictions are asked for too, ``(n_known, n_features)``.
    hidden
        Hidden values, ``(n_hidden, n_features)``.
    is_count
        Whether values are counts.
    """

    training: NDArray[np.float64]
    known: NDArray[np.float64]
    hidden: NDArray[np.float64]
    is_count: bool

    def score(self, predicted: NDArray[np.float64], *, seed: int = 0) -> dict[str, Any]:
        """Share of the deviance that a method explains, on hidden and on known values.

        Counts: shares of the cell's own total, so that depth is given to every method; means of
        features made right on the known cells by one factor a feature; a little of the feature
        means mixed in. The deviance is negative binomial, with dispersions around the feature means
        of the training cells, the same for all methods. Real numbers: squared error by the
        feature's variance.

        Parameters
        ----------
        predicted
            Of known cells, then of hidden ones, ``(n_known + n_hidden, n_features)``.
        seed
            Of the bootstrap over cells.
        """
        n_known = len(self.known)
        known, hidden = predicted[:n_known], predicted[n_known:]
        tables = (self._counts if self.is_count else self._values)(known, hidden)
        scores: dict[str, Any] = {"train": tables["train"], "poisson": tables["poisson"]}
        own, null = tables["own"], tables["null"]
        rng = np.random.default_rng(seed)
        drawn = rng.integers(len(own), size=(N_BOOTSTRAP, len(own)))
        ratios = 1 - own[drawn].sum(1) / null[drawn].sum(1)
        low, high = np.quantile(ratios, [0.025, 0.975])
        scores |= {"r2": float(1 - own.sum() / null.sum()), "low": float(low), "high": float(high)}
        scores["deviance"] = float(own.mean())
        return scores

    def _counts(self, known: NDArray[np.float64], hidden: NDArray[np.float64]) -> dict[str, Any]:
        depth = self.training.sum(1, keepdims=True)
        shares = np.maximum(self.training.sum(0) / depth.sum(), 1e-9)
        shares = shares / shares.sum()
        spread = dispersion(self.training, depth * shares)
        known = rates(known, shares)
        total = self.known.sum(1, keepdims=True)
        right = self.known.sum(0) / np.maximum((total * known).sum(0), 1e-9)

        def deviances(values: NDArray[np.float64], table: NDArray[np.float64]) -> list[Any]:
            means = values.sum(1, keepdims=True) * (1 - FLOOR) * rates(table * right, shares)
            base = values.sum(1, keepdims=True) * shares
            means, base = np.maximum(means + FLOOR * base, 1e-12), np.maximum(base, 1e-12)
            slight = np.full_like(spread, SMALLEST_DISPERSION)
            return [
                negative_binomial_deviance(values, mean, each).sum(1)
                for each in (spread, slight)
                for mean in (means, base)
            ]

        own, null, poisson, poisson_null = deviances(self.hidden, rates(hidden, shares))
        train = deviances(self.known, known)
        return {
            "own": own,
            "null": null,
            "poisson": float(1 - poisson.sum() / poisson_null.sum()),
            "train": float(1 - train[0].sum() / train[1].sum()),
        }

    def _values(self, known: NDArray[np.float64], hidden: NDArray[np.float64]) -> dict[str, Any]:
        centre = np.nanmean(self.training, 0)
        variance = np.maximum(np.nanvar(self.training, 0), 1e-12)

        def errors(values: NDArray[np.float64], table: NDArray[np.float64]) -> Any:
            return np.nansum((values - table) ** 2 / variance, axis=1)

        train = errors(self.known, known).sum() / errors(self.known, centre[None]).sum()
        return {
            "own": errors(self.hidden, hidden),
            "null": errors(self.hidden, centre[None]),
            "poisson": None,
            "train": float(1 - train),
        }


def rates(table: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows as shares; negative entries are zero, a row of zeros is that of the feature means."""
    clipped = np.maximum(table, 0.0)
    total = clipped.sum(1, keepdims=True)
    return np.where(total > 0, clipped / np.maximum(total, 1e-300), shares)
