"""Labels from neighbours of another modality, with a probability that a round trip calibrates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar

from mosaicvi.tl._latents import Floats, Ints, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

PSEUDO_VOTES = 1.0
"""Votes that every cell gets from the composition of the source."""
TEMPERATURES = (0.25, 20.0)
FEW = 20
"""With fewer labelled cells a half, the temperature stays at 1."""


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


def at_temperature(probability: Floats, temperature: float) -> Floats:
    """``p^(1 / T)``, normalised over labels; labels of probability zero keep it."""
    with np.errstate(divide="ignore"):
        logits = np.log(probability) / temperature
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def fit_temperature(
    voters: Voters, confidence: Floats, target: Floats, k: int, *, seed: int
) -> float:
    """Temperature under which labels that went to the target and came back are most likely.

    The source is split in two. Labels of one half are voted to all target cells with k / 2
    neighbours; each cell of the other half reads the vote of its nearest target cell, and its own
    label says how likely that vote was to be right (temperature scaling, Guo et al. 2017). Cells
    are weighted by their alignment confidence, so that types without counterpart do not count.
    The way back adds errors of its own: the probability errs towards caution.
    """
    half = np.random.default_rng(seed).permutation(len(voters.codes)) % 2 == 0
    if min(half.sum(), (~half).sum()) < FEW:
        return 1.0
    _, match = nearest(voters.latent, target, 1)
    parts, truth, weights = [], [], []
    for chosen in (half, ~half):
        known = voters.part(~chosen)
        heard = vote(known, target, max(k // 2, 1))[match[chosen, 0]]
        seen = np.isin(voters.codes[chosen], known.codes)  # a label of one cell has no other half
        parts.append(heard[seen])
        truth.append(voters.codes[chosen][seen])
        weights.append(confidence[chosen][seen])
    votes, codes, weight = np.concatenate(parts), np.concatenate(truth), np.concatenate(weights)
    if weight.sum() <= 0:
        return 1.0
    rows = np.arange(len(codes))

    def nats(log_temperature: float) -> float:
        right = at_temperature(votes, float(np.exp(log_temperature)))[rows, codes]
        return float(-(weight * np.log(np.maximum(right, 1e-12))).sum() / weight.sum())

    low, high = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(nats, bounds=(low, high), method="bounded").x))
