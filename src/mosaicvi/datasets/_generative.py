"""How simulated values are drawn: one rule a likelihood.

Written from the generative story in plain numpy, on purpose apart from the likelihoods that the
models use, so that a recovery test does not compare code with itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BACKGROUND_NOISE = 0.3
"""Standard deviation of the log background of one protein over cells of one batch."""


COVERAGE = "coverage"
"""Hidden state of a rule whose values are counts out of this many."""


@dataclass(frozen=True)
class Predictor:
    """What the generative story says about some cells before a likelihood is chosen.

    Attributes
    ----------
    signal
        ``r(z) . v`` in units of its standard deviation, shape ``(n_cells, n_features)``.
    head
        ``scale * r(z) . v + bias``, shape ``(n_cells, n_features)``.
    library_size
        Depth of each cell (of the protein: its staining, about 1), shape ``(n_cells,)``.
    measured
        Which features the cell's batch measures, shape ``(n_cells, n_features)``.
    parameters
        The rule's own parameters, each broadcastable to ``(n_cells, n_features)``.
    """

    signal: Array
    head: Array
    library_size: Array
    measured: Mask
    parameters: Mapping[str, Array]


class Rule(ABC):
    """Parameters, conditional mean and draws of one likelihood."""

    is_count: ClassVar[bool] = True

    @abstractmethod
    def parameters(
        self, rng: np.random.Generator, *, n_features: int, n_batches: int, batch_sd: float
    ) -> dict[str, Array]:
        """Draw parameters of shape ``(n_features,)`` or ``(n_features, n_batches)``."""

    @abstractmethod
    def mean(self, given: Predictor) -> Array:
        """Mean of the values, given z and batch, shape ``(n_cells, n_features)``."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, given: Predictor) -> tuple[Array, dict[str, Mask]]:
        """Values of shape ``(n_cells, n_features)``, and hidden states worth keeping."""


def composition(given: Predictor) -> Array:
    """Softmax over measured features; zero elsewhere."""
    shares: Array = softmax(np.where(given.measured, given.head, -np.inf), axis=1)
    return shares


def _rate(given: Predictor) -> Array:
    return given.library_size[:, None] * composition(given)


def _negative_binomial(rng: np.random.Generator, mean: Array, dispersion: Array) -> Array:
    """Gamma-Poisson draws with variance ``mean + mean^2 / dispersion``."""
    shape = np.broadcast_to(dispersion, mean.shape)
    return rng.poisson(rng.gamma(shape, mean / shape)).astype(np.float64)


def _dispersion(rng: np.random.Generator, n_features: int, median: float) -> Array:
    return np.exp(rng.normal(np.log(median), 0.4, n_features))


class NegativeBinomial(Rule):
    """Counts with ``mean = library size x softmax(head)``."""

    def parameters(
        self, rng: np.random.Generator, *, n_features: int, n_batches: int, batch_sd: float
    ) -> dict[str, Array]:
        return {"dispersion": _dispersion(rng, n_features, 2.0)}

    def mean(self, given: Predictor) -> Array:
        return _rate(given)

    def draw(self, rng: np.random.Generator, given: Predictor) -> tuple[Array, dict[str, Mask]]:
        return _negative_binomial(rng, _rate(given), given.parameters["dispersion"]), {}


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """As :class:`NegativeBinomial`, and each entry is lost with probability ``dropout``."""

    def parameters(
        self, rng: np.random.Generator, *, n_features: int, n_batches: int, batch_sd: float
    ) -> dict[str, Array]:
        own = super().parameters(rng, n_features=n_features, n_batches=n_batches, batch_sd=batch_sd)
        return {**own, "dropout": expit(rng.normal(-1.5, 0.7, n_features))}

    def mean(self, given: Predictor) -> Array:
        return super().mean(given) * (1 - given.parameters["dropout"])

    def draw(self, rng: np.random.Generator, given: Predictor) -> tuple[Array, dict[str, Mask]]:
        counts, _ = super().draw(rng, given)
        kept = rng.random(counts.shape) >= given.parameters["dropout"]
        return counts * kept, {}


class NegativeBinomialMixture(Rule):
    """Protein counts: background, or foreground = background x (1 + exp(head)).

    The background is lognormal over cells; the probability of background falls with the signal,
    steeply, which makes the marginal of each protein bimodal.
    """

    def parameters(
        self, rng: np.random.Generator, *, n_features: int, n_batches: int, batch_sd: float
    ) -> dict[str, Array]:
        level = rng.normal(np.log(4.0), 0.9, n_features)
        return {
            "log_background": level[:, None] + rng.normal(0, batch_sd, (n_features, n_batches)),
            "mixing_slope": rng.uniform(4.0, 8.0, n_features),
            "mixing_offset": rng.normal(-2.0, 3.0, n_features),
            "dispersion_background": _dispersion(rng, n_features, 8.0),
            "dispersion_foreground": _dispersion(rng, n_features, 8.0),
        }

    @staticmethod
    def foreground_probability(given: Predictor) -> Array:
        """Prior probability of foreground, shape ``(n_cells, n_features)``."""
        own = given.parameters
        probability: Array = expit(own["mixing_slope"] * given.signal + own["mixing_offset"])
        return probability

    def mean(self, given: Predictor) -> Array:
        foreground = self.foreground_probability(given)
        background = given.library_size[:, None] * np.exp(
            given.parameters["log_background"] + BACKGROUND_NOISE**2 / 2
        )
        return given.measured * background * (1 + foreground * np.exp(given.head))

    def draw(self, rng: np.random.Generator, given: Predictor) -> tuple[Array, dict[str, Mask]]:
        own, shape = given.parameters, given.head.shape
        noise = rng.normal(0, BACKGROUND_NOISE, shape)
        background = given.library_size[:, None] * np.exp(own["log_background"] + noise)
        foreground = rng.random(shape) < self.foreground_probability(given)
        mean = background * np.where(foreground, 1 + np.exp(given.head), 1.0)
        dispersion = np.where(
            foreground, own["dispersion_foreground"], own["dispersion_background"]
        )
        counts = _negative_binomial(rng, mean, dispersion)
        return counts * given.measured, {"foreground": foreground & given.measured}


class Poisson(Rule):
    """Fragment counts with ``mean = library size x softmax(head)``."""

    def parameters(
        self, rng: np.random.Generator, *, n_features: int, n_batches: int, batch_sd: float
    ) -> dict[str, Array]:
        return {}

    def mean(self, given: Predictor) -> Array:
        return _rate(given)

    def draw(self, rng: np.random.Generator, given: Predictor) -> tuple[Array, dict[str, Mask]]:
        return rng.poisson(_rate(given)).astype(np.float64), {}


class Bernoulli(Poisson):
    """Accessibility, 0 or 1: ``p = 1 - exp(-library size x softmax(head))``."""

    def mean(self, given: Predictor) -> Array:
        return -np.expm1(-_rate(given))

    def draw(self, rng: np.random.Generator, given: Predictor) -> tuple[Array, dict[str, Mask]]:
        open_ = rng.random(given.head.shape) < self.mean(given)
        return open_.astype(np.float64), {}


class Normal(Rule):
    """Continuous values around the head; NaN where a feature is not measured."""

    is_count = False

    def parameters(
        self, rng: np.random.Generator, *, n_features: int, n_batches: int, batch_sd: float
    ) -> dict[str, Array]:
        return {"sd": np.exp(rng.normal(np.log(0.5), 0.3, n_features))}

    def mean(self, given: Predictor) -> Array:
        return np.where(given.measured, given.head, np.nan)

    def draw(self, rng: np.random.Generator, given: Predictor) -> tuple[Array, dict[str, Mask]]:
        return self.mean(given) + given.parameters["sd"] * rng.normal(size=given.head.shape), {}


class Student(Normal):
    """Continuous values around the head with Student's tails."""

    def parameters(
        self, rng: np.random.Generator, *, n_features: int, n_batches: int, batch_sd: float
    ) -> dict[str, Array]:
        found = super().parameters(
            rng, n_features=n_features, n_batches=n_batches, batch_sd=batch_sd
        )
        return {**found, "df": rng.uniform(2.5, 8.0, n_features)}

    def draw(self, rng: np.random.Generator, given: Predictor) -> tuple[Array, dict[str, Mask]]:
        noise = rng.standard_t(given.parameters["df"], given.head.shape)
        return self.mean(given) + given.parameters["sd"] * noise, {}


class LogNormal(Normal):
    """Positive values whose logs are :class:`Normal`."""

    def mean(self, given: Predictor) -> Array:
        return np.exp(super().mean(given) + given.parameters["sd"] ** 2 / 2)

    def draw(self, rng: np.random.Generator, given: Predictor) -> tuple[Array, dict[str, Mask]]:
        noise = given.parameters["sd"] * rng.normal(size=given.head.shape)
        return np.exp(super().mean(given) + noise), {}


class BetaBinomial(Rule):
    """Methylated reads of Poisson reads a feature; the rate varies around ``expit(head)``."""

    def parameters(
        self, rng: np.random.Generator, *, n_features: int, n_batches: int, batch_sd: float
    ) -> dict[str, Array]:
        return {"concentration": np.exp(rng.normal(np.log(10.0), 0.4, n_features))}

    def mean(self, given: Predictor) -> Array:
        return np.where(given.measured, expit(given.head), np.nan)

    def draw(self, rng: np.random.Generator, given: Predictor) -> tuple[Array, dict[str, Any]]:
        p, phi = expit(given.head), given.parameters["concentration"]
        coverage = rng.poisson(given.library_size[:, None], p.shape) * given.measured
        reads = rng.binomial(coverage, rng.beta(p * phi, (1 - p) * phi)).astype(np.float64)
        return reads, {COVERAGE: coverage.astype(np.float32)}


RULES: dict[str, Rule] = {
    "nb": NegativeBinomial(),
    "zinb": ZeroInflatedNegativeBinomial(),
    "nb_mixture": NegativeBinomialMixture(),
    "poisson": Poisson(),
    "bernoulli": Bernoulli(),
    "normal": Normal(),
    "student": Student(),
    "lognormal": LogNormal(),
    "beta_binomial": BetaBinomial(),
}
"""Likelihood name to its rule."""
