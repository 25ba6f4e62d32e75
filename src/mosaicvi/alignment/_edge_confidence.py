"""How far data bear out that two features belong together."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import MiniBatchKMeans
from sklearn.isotonic import IsotonicRegression

from mosaicvi._types import Float, Int, Matrix

CELLS_A_GROUP = 50
GROUP_RANGE = (10, 200)
"""Groups of similar cells over which features are averaged: one for so many cells, bounded."""

N_NULL = 20_000
"""Pairs of features drawn at random, against which edges are judged."""

LEAST_CONFIDENCE = 0.01


def group_cells(
    spaces: list[Float[np.ndarray, "_ dimensions"]], *, seed: int
) -> list[Int[np.ndarray, " _"]]:
    """Groups of similar cells across modalities, ``(n_cells,)`` of each, from 0.

    Centres are sought among equally many cells of each modality, so that the larger one does not
    decide alone which cells are told apart.
    """
    fewest = min(len(space) for space in spaces)
    rng = np.random.default_rng(seed)
    chosen = [space[rng.permutation(len(space))[:fewest]] for space in spaces]
    n_groups = min(fewest, int(np.clip(fewest // CELLS_A_GROUP, *GROUP_RANGE)))
    search = MiniBatchKMeans(n_groups, random_state=seed, n_init=3).fit(np.concatenate(chosen))
    return [search.predict(space) for space in spaces]


def group_means(
    values: Float[Matrix, "cells features"], codes: Int[np.ndarray, " cells"], n_groups: int
) -> Float[np.ndarray, "{n_groups} features"]:
    """Mean of each group of cells over the values that are known, ``(n_groups, n_features)``.

    Parameters
    ----------
    values
        Shape ``(n_cells, n_features)``; NaN in a dense array is a missing value. A group without
        any known value of a feature stands at the feature's mean.
    codes
        Group of each cell, from 0, shape ``(n_cells,)``.
    n_groups
        Number of groups; one without cells is zero in sparse values.
    """
    member = (np.ones(len(codes)), (codes, np.arange(len(codes))))
    gather = sp.csr_matrix(member, shape=(n_groups, len(codes)))
    if sp.issparse(values):
        size = np.maximum(np.asarray(gather.sum(1)), 1.0)
        total = np.asarray((gather @ values).todense(), dtype=np.float64)
        return np.asarray(total / size)
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    count = np.asarray(gather @ known.astype(np.float64))
    middle = filled.sum(0) / np.maximum(known.sum(0), 1)
    return np.asarray(np.where(count > 0, (gather @ filled) / np.maximum(count, 1.0), middle))


def edge_correlation(
    left: Float[np.ndarray, "groups left"],
    right: Float[np.ndarray, "groups right"],
    source: Int[np.ndarray, " edges"],
    target: Int[np.ndarray, " edges"],
) -> Float[np.ndarray, " edges"]:
    """Correlation over groups of cells of the two features of each edge, ``(n_edges,)``.

    Parameters
    ----------
    left, right
        Mean of each feature in each group, ``(n_groups, n_features)``.
    source, target
        Columns of ``left`` and of ``right``.
    """
    first, second = (_scaled(side) for side in (left, right))
    found = np.empty(len(source))
    step = max(1, 2**22 // max(len(left), 1))
    for start in range(0, len(source), step):
        part = slice(start, start + step)
        found[part] = np.einsum("ge,ge->e", first[:, source[part]], second[:, target[part]])
    return found


def edge_confidence(
    left: Float[np.ndarray, "groups left"],
    right: Float[np.ndarray, "groups right"],
    source: Int[np.ndarray, " edges"],
    target: Int[np.ndarray, " edges"],
    sign: Float[np.ndarray, " edges"],
    *,
    seed: int,
) -> Float[np.ndarray, " edges"]:
    r"""Probability that each edge joins features that go together, ``(n_edges,)``.

    The signed correlation :math:`r` of an edge is compared with those :math:`r_0` of pairs with the
    edges' own ends, joined at random: in a mixture of right and wrong edges,
    :math:`P(\text{right} \mid r) = 1 - \pi_0 f_0(r) / f(r)` (local false discovery rate; Efron
    2004), where the ratio of densities is fitted as rising with :math:`r` and :math:`\pi_0` is
    twice the share of edges below the median of :math:`r_0`.

    Parameters
    ----------
    left, right, source, target
        As in :func:`edge_correlation`.
    sign
        1 or -1.
    seed
        Seed of the pairs drawn.
    """
    if not len(source):
        return np.zeros(0)
    rng = np.random.default_rng(seed)
    observed = sign * edge_correlation(left, right, source, target)
    n_null = max(len(source), min(N_NULL, len(source) * 50))
    drawn = rng.integers(len(source), size=(3, n_null))
    null = sign[drawn[2]] * edge_correlation(left, right, source[drawn[0]], target[drawn[1]])
    wrong = min(1.0, 2.0 * float((observed < np.median(null)).mean()))
    values = np.concatenate([observed, null])
    is_edge = np.concatenate([np.ones(len(observed)), np.zeros(n_null)])
    weight = np.concatenate([np.full(len(observed), n_null / len(observed)), np.ones(n_null)])
    fitted = IsotonicRegression(out_of_bounds="clip").fit(values, is_edge, sample_weight=weight)
    share = np.clip(fitted.predict(observed), 1e-6, 1.0)
    right_one = 1.0 - wrong * (1.0 - share) / share
    return np.asarray(np.clip(right_one, LEAST_CONFIDENCE, 1.0))


def _scaled(values: Float[np.ndarray, "groups features"]) -> Float[np.ndarray, "groups features"]:
    if not len(values):  # of a handful of cells, no group may hold both modalities
        return values
    centred = values - values.mean(0)
    length = np.linalg.norm(centred, axis=0)
    return np.asarray(centred / np.maximum(length, 1e-12))
