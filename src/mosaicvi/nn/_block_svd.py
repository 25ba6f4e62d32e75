r"""Leading singular vectors of many sparse cells, from few passes over their values.

Lanczos' method one vector at a time reads all values twice for each of some hundred vectors, at the
speed at which memory hands them out. A block of vectors takes each value read for all of them.
Blocks :math:`Q_1, Q_2, \dots` are an orthonormal basis of the Krylov space of a random block and
:math:`A = \tilde X^\top \tilde X`, the centred values; :math:`A Q_p` is one pass over the rows, and
:math:`Q^\top A Q` of all blocks gives the components (Rayleigh and Ritz; Musco and Musco 2015,
"Randomized block Krylov methods", Advances in Neural Information Processing Systems 28).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from mosaicvi._types import Float, Int

BLOCK = 16
"""Vectors a pass: values read once serve so many."""

MAX_PASSES = 24

TOLERANCE = 1e-5
"""A further pass is not worth it once it adds less than this share to the variance explained."""

_ROWS = 8192


def leading_components(
    rows: Float[sp.csr_matrix, "cells features"],
    table: Float[np.ndarray, "batches features"],
    codes: Int[np.ndarray, " cells"],
    n_components: int,
    seed: int,
) -> tuple[Float[np.ndarray, "components features"], Float[np.ndarray, " components"]]:
    """Right singular vectors and singular values of ``rows - table[codes]``, the largest first.

    Parameters
    ----------
    rows
        Values, shape ``(n_cells, n_features)``.
    table
        What is taken from each cell, by its code, shape ``(n_batches, n_features)``.
    codes
        Code of each cell, shape ``(n_cells,)``.
    n_components
        How many; at most the smaller side of ``rows``.
    seed
        Seed of the first block.
    """
    n_features = rows.shape[1]
    table = np.asarray(table, dtype=np.float32)
    size = min(BLOCK, n_features)
    start = np.random.default_rng(seed).normal(size=(n_features, size)).astype(np.float32)
    basis = np.linalg.qr(start)[0]
    parts = [_view(rows, first) for first in range(0, rows.shape[0], _ROWS)]
    images = np.zeros((n_features, 0), dtype=np.float32)
    explained = 0.0
    for _ in range(MAX_PASSES):
        image = _gram_times(parts, table, codes, basis[:, images.shape[1] :])
        images = np.concatenate([images, image], axis=1)
        values, vectors = _ritz(basis, images)
        total = float(values[-n_components:].sum())
        complete = len(values) >= n_components and total - explained <= TOLERANCE * total
        room = min(size, n_features - basis.shape[1])
        if complete or room == 0:
            break
        explained = total
        basis = np.concatenate([basis, _orthogonal(image, basis)[:, :room]], axis=1)
    order = np.argsort(values)[::-1][:n_components]
    components = (basis[:, : images.shape[1]] @ vectors[:, order].astype(np.float32)).T
    # A component and its negative are the same: the largest loading is positive.
    largest = components[np.arange(len(order)), np.abs(components).argmax(1)]
    components *= np.where(largest < 0, -1.0, 1.0)[:, None]
    return components, np.sqrt(np.maximum(values[order], 0.0))


def _view(
    rows: Float[sp.csr_matrix, "cells features"], first: int
) -> Float[sp.csr_matrix, "some features"]:
    """Rows from ``first`` on, which share the memory of all."""
    indptr = rows.indptr[first : first + _ROWS + 1]
    inside = slice(indptr[0], indptr[-1])
    parts = (rows.data[inside], rows.indices[inside], indptr - indptr[0])
    return sp.csr_matrix(parts, shape=(len(indptr) - 1, rows.shape[1]), copy=False)


def _gram_times(
    parts: Sequence[Float[sp.csr_matrix, "_ features"]],
    table: Float[np.ndarray, "batches features"],
    codes: Int[np.ndarray, " cells"],
    block: Float[np.ndarray, "features vectors"],
) -> Float[np.ndarray, "features vectors"]:
    """``C.T @ (C @ block)`` of the centred values ``C``, in one pass, some cells at a time."""
    block = np.ascontiguousarray(block)
    shift = table @ block
    total = np.zeros(block.shape, dtype=np.float64)
    by_code = np.zeros((table.shape[0], block.shape[1]))
    for number, part in enumerate(parts):
        codes_here = codes[number * _ROWS : (number + 1) * _ROWS]
        scores = part @ block - shift[codes_here]
        total += part.T @ scores
        np.add.at(by_code, codes_here, scores)
    return np.asarray(total - table.T @ by_code, dtype=np.float32)


def _orthogonal(
    image: Float[np.ndarray, "features vectors"], basis: Float[np.ndarray, "features before"]
) -> Float[np.ndarray, "features vectors"]:
    """Orthonormal columns that span what ``image`` adds to ``basis``; twice, against rounding."""
    for _ in range(2):
        image = np.linalg.qr(image - basis @ (basis.T @ image))[0]
    return image


def _ritz(
    basis: Float[np.ndarray, "features vectors"], images: Float[np.ndarray, "features vectors"]
) -> tuple[Float[np.ndarray, " vectors"], Float[np.ndarray, "vectors vectors"]]:
    """Eigenvalues, ascending, and eigenvectors of the matrix seen in the basis."""
    seen = (basis.T @ images).astype(np.float64)
    values, vectors = np.linalg.eigh((seen + seen.T) / 2)
    return np.asarray(values), np.asarray(vectors)
