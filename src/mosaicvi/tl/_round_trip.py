"""How well cells of one modality are held in place by those of another, without any truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from mosaicvi.tl._latents import Floats, Ints, nearest, nearest_others

SCALES = (10, 20, 40)
LARGEST_SHARE = 20
"""A neighbourhood holds at most one in so many cells of its modality."""
SMALLEST = 5
N_RANDOM = 256
NO_STRUCTURE = 0.05
"""Share of the distance between random cells by which differences are softened."""
UNEVEN = 3.0
"""From so many times the other modality's cells on, distances are measured among as many."""
BLOCK = 2_000_000
"""Distances held at a time."""


@dataclass(frozen=True)
class Steps:
    """Nearest cells for one step, a matrix that averages over them."""

    matrix: sp.csr_matrix

    @classmethod
    def of(cls, index: Ints, n_reference: int) -> Steps:
        """Equal weights on the listed cells, ``(n_points, n_reference)``."""
        n_points, k = index.shape
        parts = (np.full(n_points * k, 1.0 / k), index.ravel(), np.arange(0, n_points * k + 1, k))
        return cls(sp.csr_matrix(parts, shape=(n_points, n_reference)))


def neighbourhood(scale: int, n_cells: int) -> int:
    """Cells of a neighbourhood: the scale, or a twentieth of the cells if that is fewer.

    At least five, and never all: small modalities get small neighbourhoods, so that ten times as
    many cells on one side do not blur the other.
    """
    return max(min(scale, max(n_cells // LARGEST_SHARE, SMALLEST), n_cells - 1), 1)


def trip_length(points: Floats, first: sp.csr_matrix, second: sp.csr_matrix) -> Floats:
    """Mean distance between each point and where two steps lead, shape ``(n_points,)``.

    Parameters
    ----------
    points
        Start and end of the trips, ``(n_points, n_latent)``.
    first, second
        Weights of the steps, ``(n_points, n_between)`` and ``(n_between, n_points)``.
    """
    length = np.zeros(len(points))
    fan = max(int(np.diff(first.indptr).max(initial=1) * np.diff(second.indptr).max(initial=1)), 1)
    size = max(BLOCK // (fan * points.shape[1]), 1)
    for start in range(0, len(points), size):
        part = slice(start, min(start + size, len(points)))
        ends = sp.csr_matrix(first[part] @ second)
        rows = np.repeat(np.arange(ends.shape[0]), np.diff(ends.indptr))
        distance = np.linalg.norm(points[part][rows] - points[ends.indices], axis=1)
        length[part] = np.bincount(rows, ends.data * distance, minlength=ends.shape[0])
    return length


def random_distance(points: Floats, reference: Floats, seed: int) -> Floats:
    """Mean distance of each point to random reference points, shape ``(n_points,)``."""
    rng = np.random.default_rng(seed)
    some = reference[rng.permutation(len(reference))[:N_RANDOM]]
    size = max(BLOCK // (len(some) * points.shape[1]), 1)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return np.concatenate(
        [np.linalg.norm(part[:, None] - some[None], axis=2).mean(axis=1) for part in parts]
    )


def as_many(n_cells: int, n_other: int, seed: int) -> Ints:
    """As many cells of a modality as the other one has, at random; all but for :data:`UNEVEN` ones.

    How far the nearest cells lie depends on how many there are.
    """
    if n_cells < UNEVEN * n_other:
        return np.arange(n_cells)
    return np.sort(np.random.default_rng([seed, 2]).permutation(n_cells)[:n_other])


def nearest_of(points: Floats, some: Ints, k: int) -> Ints:
    """Nearest of some of the points, by their place among these, each point itself left out."""
    _, index = nearest(points, points[some], k + 1)
    place = np.full(len(points), -1)
    place[some] = np.arange(len(some))
    itself = index == place[:, None]
    itself[~itself.any(axis=1), -1] = True
    return np.asarray(index[~itself].reshape(len(points), -1))


def round_trip_confidence(
    own: Floats, other: Floats, *, scales: tuple[int, ...] = SCALES, seed: int = 0
) -> Floats:
    r"""Confidence of each cell of one modality that the other modality has cells of its kind.

    A round trip steps from cell i to its nearest cells of the other modality, and from those to
    their nearest cells of its own. Let ``D`` be the mean distance between i and where it ends,
    ``D0`` that of a trip of two steps within the own modality, ``R`` that to random cells of the
    own modality, each averaged over scales and over the neighbours of i, and
    ``e = 0.05 R``. The locality that the trip keeps is

    ``K = clip((R - D + e) / (R - D0 + e), 0, 1)``,

    agreement beyond chance as in Cohen's kappa. A cell outside the other modality's cloud is
    marked down by ``F = min(1, R' / d)^2``, with ``d`` its mean distance to its nearest cells of
    the other modality and ``R'`` that between random cells of it. The confidence is ``K F``.

    All distances of ``K`` are within one modality, so a shift between modalities and other noise
    there do not count against a cell; ranks alone choose the steps. A trip through few cells is
    long: where the own modality has :data:`UNEVEN` times the cells of the other, the first step
    within it is to as many of them as the other has, drawn at random.

    Returns
    -------
    Between 0 and 1, shape ``(n_own,)``.
    """
    n_own, n_other = len(own), len(other)
    if n_own < 3 or n_other < 3:
        return np.zeros(n_own)
    k_own = [neighbourhood(scale, n_own) for scale in scales]
    k_other = [neighbourhood(scale, n_other) for scale in scales]
    _, within = nearest_others(own, max(k_own))
    some = as_many(n_own, n_other, seed)
    through = within if len(some) == n_own else nearest_of(own, some, max(k_other))
    away, there = nearest(own, other, max(k_other))
    _, back = nearest(other, own, max(k_own))
    trips, references = np.zeros(n_own), np.zeros(n_own)
    for few, many in zip(k_own, k_other, strict=True):
        home = Steps.of(within[:, :few], n_own).matrix
        out = Steps.of(there[:, :many], n_other).matrix
        trips += trip_length(own, out, Steps.of(back[:, :few], n_own).matrix) / len(scales)
        like = home if len(some) == n_own else Steps.of(through[:, :many], len(some)).matrix
        references += trip_length(own, like, home[some]) / len(scales)
    around = within[:, : k_own[len(k_own) // 2]]
    trip, reference, chance = (
        (values + values[around].sum(axis=1)) / (1 + around.shape[1])
        for values in (trips, references, random_distance(own, own, seed))
    )
    softened = NO_STRUCTURE * chance + np.finfo(float).tiny
    kept = (chance - trip + softened) / np.maximum(chance - reference + softened, softened)
    # Cells at random on both sides: the first ones may all be of one batch or type.
    others = other[np.random.default_rng([seed, 1]).permutation(n_other)[:N_RANDOM]]
    spread = random_distance(others, other, seed).mean()
    far = away[:, : k_other[0]].mean(axis=1)
    outside = np.minimum(1.0, spread / np.maximum(far, np.finfo(float).tiny)) ** 2
    return np.asarray(np.clip(kept, 0.0, 1.0) * outside)
