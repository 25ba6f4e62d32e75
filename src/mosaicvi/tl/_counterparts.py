"""Whether cells of one modality have counterparts in another, without any truth."""

from __future__ import annotations

import numpy as np

from mosaicvi.tl._latents import Floats, Ints, Places, nearest, nearest_others
from mosaicvi.tl._round_trip import SCALES, as_many, neighbourhood, round_trip_confidence

N_AVERAGED = 20
"""Neighbours over which places are averaged before distances are taken."""
N_NEAREST = 5
"""Cells of the other modality whose mean distance is taken."""


def alignment_confidence_of(
    own: Places, other: Places, *, scales: tuple[int, ...] = SCALES, seed: int = 0
) -> Floats:
    r"""Confidence of each cell of one modality that the other modality has cells of its kind.

    ``C = K F sqrt(min(1, d' / d))``, with ``K F`` of
    :func:`~mosaicvi.tl._round_trip.round_trip_confidence`, ``d`` of
    :func:`distance_to_counterparts` and ``d'`` its median, that of the modality in which it is
    smaller.

    A round trip tells cells whose type it leads away from. A type that is a kind of another comes
    back to itself, since nothing nearer is there; it lies apart from the other modality none the
    less. How far apart counterparts lie is read off the modality of which more cells have them.

    Returns
    -------
    Between 0 and 1, shape ``(n_own,)``.
    """
    confidence = round_trip_confidence(own.latent, other.latent, scales=scales, seed=seed)
    if min(len(own), len(other)) < 3:
        return confidence
    distance, reverse = distance_to_counterparts(own, other, seed=seed)
    typical = float(min(np.median(distance), np.median(reverse)))
    near = np.minimum(1.0, typical / np.maximum(distance, np.finfo(float).tiny))
    return np.asarray(confidence * np.sqrt(near))


def distance_to_counterparts(own: Places, other: Places, *, seed: int = 0) -> tuple[Floats, Floats]:
    """How far cells of either modality lie from the other one's, noise of single cells left out.

    The shared place of each cell is averaged over its neighbours within its own modality, by what
    that modality alone says. ``d_i`` is the mean distance from there to the five nearest averaged
    places of the other modality, averaged over the same neighbours. Both directions are measured in
    one space, and to as many cells where one modality has several times the other's, so that their
    distances compare; a cell of few neighbours like itself is drawn towards others, in both
    modalities alike.

    Returns
    -------
    ``(n_own,)`` and ``(n_other,)``.
    """
    first, second = _around(own), _around(other)
    ours, theirs = _averaged(own.shared, first), _averaged(other.shared, second)
    away, _ = nearest(ours, theirs[as_many(len(other), len(own), seed)], N_NEAREST)
    back, _ = nearest(theirs, ours[as_many(len(own), len(other), seed)], N_NEAREST)
    return _averaged(away.mean(axis=1), first), _averaged(back.mean(axis=1), second)


def _around(cells: Places) -> Ints:
    """Neighbours of each cell within its modality, ``(n_cells, k)``."""
    return nearest_others(cells.own, neighbourhood(N_AVERAGED, len(cells)))[1]


def _averaged(values: Floats, around: Ints) -> Floats:
    """Mean over each cell and its neighbours, shape of the values."""
    total = np.array(values, dtype=np.float64)
    for column in around.T:
        total += values[column]
    return np.asarray(total / (1 + around.shape[1]))
