"""Labels from neighbours of another modality, with a probability that a round trip calibrates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar

from mosaicvi.tl._latents import Floats, Ints, Places, nearest, nearest_others
from mosaicvi.tl._round_trip import neighbourhood

if TYPE_CHECKING:
    from numpy.typing import NDArray

PSEUDO_VOTES = 1.0
"""Votes that every cell gets from the composition of the source."""
TEMPERATURES = (0.25, 20.0)
FEW = 20
"""With fewer labelled cells a half, the temperature stays at 1."""
N_ALIKE = 5
"""Cells of its own modality whose votes a cell's vote is averaged with."""
FEWEST_CELLS = 20
"""A target of fewer cells has no votes averaged."""


@dataclass(frozen=True)
class Voters:
    """Labelled cells of the source.

    Attributes
    ----------
    latent
        Their latent, ``(n_source, n_latent)``.
    codes
        Label of each, ``(n_source,)``.
    n_labels
        Number of labels.
    """

    latent: Floats
    codes: Ints
    n_labels: int

    @property
    def composition(self) -> Floats:
        """Share of each label, ``(n_labels,)``."""
        counts = np.bincount(self.codes, minlength=self.n_labels)
        return np.asarray(counts / max(len(self.codes), 1))

    def part(self, chosen: NDArray[np.bool_]) -> Voters:
        """Some of the cells, with the codes of all."""
        return Voters(self.latent[chosen], self.codes[chosen], self.n_labels)


def vote(voters: Voters, target: Floats, k: int) -> Floats:
    """Probability of each label from the k nearest voters, before calibration.

    Neighbour j of target cell i has weight ``exp(-d_ij^2 / d_ik^2)``, with ``d_ik`` the distance
    to the k-th, as in a self-tuning kernel; weights of a cell sum to k, and one more vote is shared
    out by the composition of the voters.

    Returns
    -------
    ``(n_target, n_labels)``, rows sum to one.
    """
    distance, index = nearest(target, voters.latent, k)
    width = np.maximum(distance[:, -1:], np.finfo(float).tiny)
    weight = np.exp(-np.square(distance / width))
    weight *= index.shape[1] / weight.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(target)), index.shape[1])
    cells = rows * voters.n_labels + voters.codes[index].ravel()
    size = len(target) * voters.n_labels
    votes = np.bincount(cells, weight.ravel(), minlength=size).reshape(len(target), -1)
    prior = PSEUDO_VOTES * voters.composition
    return np.asarray((votes + prior) / (index.shape[1] + PSEUDO_VOTES))


def alike(target: Places) -> Ints:
    """Target cells most like each by what modalities share, ``(n_target, n_alike)``."""
    if len(target) < FEWEST_CELLS:
        return np.empty((len(target), 0), dtype=np.int64)
    return nearest_others(target.shared, neighbourhood(N_ALIKE, len(target)))[1]


def averaged(votes: Floats, around: Ints) -> Floats:
    """Mean of each cell's votes and those of the cells around it, shape of the votes.

    Cells of one kind are misplaced each in its own way: their votes together know the kind better.
    """
    total = votes.copy()
    for column in around.T:
        total += votes[column]
    return np.asarray(total / (1 + around.shape[1]))


def at_temperature(probability: Floats, temperature: float) -> Floats:
    """``p^(1 / T)``, normalised over labels; labels of probability zero keep it."""
    with np.errstate(divide="ignore"):
        logits = np.log(probability) / temperature
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def fit_temperature(
    source: Places,
    codes: Ints,
    n_labels: int,
    confidence: Floats,
    target: Places,
    k: int,
    *,
    seed: int,
) -> float:
    r"""Temperature under which labels that are known would have been most likely.

    The source is split in two; labels of one half are voted with k / 2 neighbours and asked for
    those of the other half (temperature scaling, Guo et al. 2017), in two ways:

    - Labels went to the target and back: a source cell reads the vote of its nearest target cell.
      That cell lies where source cells lie, so what its own modality fails to tell is not seen.
    - A *twin* of the source cell asks, as the target would see it. With posterior variances
      ``s`` of the source cell and ``t`` of its nearest target cell, a place ``z`` is drawn from the
      cell's posterior, and the twin lies at ``(1 - t) z + sqrt(t (1 - t)) e``, ``e`` standard
      normal: the posterior mean of a measurement of that precision, under a standard normal prior.
      What the source fails to tell is counted twice, so that it errs towards doubt.

    The temperature is the first one, times the root of what the second has more of.
    Cells are weighted by their alignment confidence, so that types without counterpart do not
    count.

    Parameters
    ----------
    source, codes, n_labels
        Labelled source cells, their labels and the number of these.
    confidence
        Alignment confidence of the source cells.
    target
        Target cells.
    k
        Neighbours asked.
    seed
        Seed of the split and of the twins.
    """
    rng = np.random.default_rng(seed)
    half = rng.permutation(len(codes)) % 2 == 0
    if min(half.sum(), (~half).sum()) < FEW:
        return 1.0
    voters, around = Voters(source.latent, codes, n_labels), alike(target)
    match = nearest(source.latent, target.latent, 1)[1][:, 0]
    trips, twins, truth, weights = [], [], [], []
    for chosen in (half, ~half):
        known, few = voters.part(~chosen), max(k // 2, 1)
        votes = vote(known, target.latent, few)
        trips.append(averaged(votes, around)[match[chosen]])
        places = _twins(source.part(chosen), target.variance[match[chosen]], rng)
        near = nearest(places, target.latent, around.shape[1] or 1)[1][:, : around.shape[1]]
        heard = vote(known, places, few) + votes[near].sum(axis=1)
        twins.append(heard / (1 + near.shape[1]))
        truth.append(codes[chosen])
        # A label of one cell has no other half.
        weights.append(confidence[chosen] * np.isin(codes[chosen], known.codes))
    answers, weight = np.concatenate(truth), np.concatenate(weights)
    if weight.sum() <= 0:
        return 1.0
    back, seen = (_most_likely(np.concatenate(votes), answers, weight) for votes in (trips, twins))
    return back * float(np.sqrt(max(1.0, seen / back)))


def _twins(source: Places, variance: Floats, rng: np.random.Generator) -> Floats:
    """Source cells as a measurement with posterior variance ``variance`` would place them."""
    of = np.minimum(variance, 1.0)
    z = source.latent + np.sqrt(source.variance) * rng.standard_normal(of.shape)
    return np.asarray((1.0 - of) * z + np.sqrt(of * (1.0 - of)) * rng.standard_normal(of.shape))


def _most_likely(votes: Floats, codes: Ints, weight: Floats) -> float:
    rows = np.arange(len(codes))

    def nats(log_temperature: float) -> float:
        right = at_temperature(votes, float(np.exp(log_temperature)))[rows, codes]
        return float(-(weight * np.log(np.maximum(right, 1e-12))).sum() / weight.sum())

    low, high = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(nats, bounds=(low, high), method="bounded").x))
