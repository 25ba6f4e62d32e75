"""Neighbours within a modality, and mutual neighbours between two."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from sklearn.neighbors import NearestNeighbors

from mosaicvi._types import Float, Int

BLOCK_ENTRIES = 2**24
"""Similarities held at a time."""

UNEVEN = 2.0
"""Times as many cells on one side from which the sides look at unlike numbers of neighbours."""

MOST = 2.0
"""Times as many neighbours, or as few, at most: what is uneven may be the types that a side has,
and then a type of few cells must not reach beyond itself."""

FEWEST = 3
"""Neighbours looked at on the side of few cells, at least."""

RIDGE = 1e-3
"""Added to the variances of components that features are regressed on, as a share of their mean."""


def smooth(
    values: Float[np.ndarray, "cells features"],
    representation: Float[np.ndarray, "cells components"],
    n_neighbours: int,
) -> Float[np.ndarray, "cells features"]:
    """Mean over each cell's nearest cells, itself included, ``(n_cells, n_features)``.

    Sparse features say little about one cell and much about thirty alike (MaxFuse, Chen et al.
    2023).
    """
    n_cells = len(values)
    k = min(n_neighbours, n_cells)
    search = NearestNeighbors(n_neighbors=k).fit(representation)
    nearest = search.kneighbors(representation, return_distance=False)
    ends = np.arange(0, n_cells * k + 1, k)
    # In the values' own precision, so that the product is not twice as large.
    share = np.full(n_cells * k, 1.0 / k, dtype=np.result_type(values, np.float32))
    weights = sp.csr_matrix((share, nearest.ravel(), ends))
    return np.asarray(sp.csr_matrix(weights, shape=(n_cells, n_cells)) @ values)


def regress(
    values: Float[np.ndarray, "cells features"],
    representation: Float[np.ndarray, "cells components"],
) -> Float[np.ndarray, "cells features"]:
    """What a cell's components explain of its features, ``(n_cells, n_features)``, centred.

    Ridge regression. It averages over all cells where :func:`smooth` averages over the nearest, so
    it is less noisy, and says less of what is no linear function of the components.
    """
    centred = representation - representation.mean(0)
    gram = centred.T @ centred
    gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(gram) + 1e-12
    slopes = np.linalg.solve(gram, centred.T @ (values - values.mean(0)))
    return np.asarray(centred.astype(values.dtype) @ slopes.astype(values.dtype))


def unit(values: Float[np.ndarray, "cells features"]) -> Float[np.ndarray, "cells features"]:
    """Rows of length one; a row of zeros stays."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-12))


@dataclass(frozen=True)
class CellPairs:
    """Pairs of cells of two modalities.

    Attributes
    ----------
    left, right
        Row of each side's cell in its modality, int64, shape ``(n_pairs,)``.
    weight
        How much each pair counts, shape ``(n_pairs,)``.
    """

    left: Int[np.ndarray, " pairs"]
    right: Int[np.ndarray, " pairs"]
    weight: Float[np.ndarray, " pairs"]

    def __len__(self) -> int:
        return len(self.left)


def nearest(
    queries: Float[np.ndarray, "queries dimensions"],
    references: Float[np.ndarray, "references dimensions"],
    k: int,
) -> Int[np.ndarray, "queries k"]:
    """The ``k`` references of largest inner product with each query, ``(n_queries, k)``.

    In no order; memory is that of the answer and one block.
    """
    k = min(k, len(references))
    found = np.empty((len(queries), k), dtype=np.int64)
    step = max(1, BLOCK_ENTRIES // max(len(references), 1))
    for start in range(0, len(queries), step):
        block = queries[start : start + step] @ references.T
        found[start : start + step] = np.argpartition(-block, k - 1, axis=1)[:, :k]
    return found


def mutual_neighbours(
    left: Float[np.ndarray, "left dimensions"],
    right: Float[np.ndarray, "right dimensions"],
    *,
    n_neighbours: int,
) -> CellPairs:
    """Cells that are among each other's nearest by cosine (Haghverdi et al. 2018).

    Parameters
    ----------
    left, right
        Cells of two modalities in one space, ``(n_cells, n_dimensions)``.
    n_neighbours
        Neighbours looked at on either side. Where one side has at least twice as many cells, more
        of these and fewer of the others, by the root of how many times, up to two
        (:func:`looked_at`).

    Returns
    -------
    Pairs; each weighs one over the root of the product of the pairs that its cells take part in, so
    that a cell which everything resembles does not count for all of them.
    """
    first, second = (unit(side).astype(np.float32) for side in (left, right))
    forward = nearest(first, second, looked_at(n_neighbours, len(first), len(second)))
    backward = nearest(second, first, looked_at(n_neighbours, len(second), len(first)))
    asked = np.repeat(np.arange(len(first)), forward.shape[1])
    keys = asked * len(second) + forward.ravel()
    answered = np.repeat(np.arange(len(second)), backward.shape[1])
    kept = np.isin(keys, backward.ravel() * len(second) + answered)
    rows, columns = asked[kept], forward.ravel()[kept]
    return CellPairs(rows, columns, spread(rows, columns))


def looked_at(n_neighbours: int, n_own: int, n_other: int) -> int:
    """Neighbours of a cell among the other side's: equal shares of both sides, more or less.

    Fifteen of 9,000 cells lie much closer than fifteen of 750: with as many on either side, the few
    cells name the very nearest of many, and take part in the names of too many others.
    """
    times = n_other / max(n_own, 1)
    if 1 / UNEVEN < times < UNEVEN:
        return n_neighbours
    factor = min(max(math.sqrt(times), 1 / MOST), MOST)
    return max(round(n_neighbours * factor), min(FEWEST, n_neighbours))


def spread(
    left: Int[np.ndarray, " pairs"], right: Int[np.ndarray, " pairs"]
) -> Float[np.ndarray, " pairs"]:
    """One over the root of the product of both cells' numbers of pairs, ``(n_pairs,)``."""
    if not len(left):
        return np.zeros(0)
    return np.asarray(1.0 / np.sqrt(np.bincount(left)[left] * np.bincount(right)[right]))
