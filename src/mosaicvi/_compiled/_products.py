"""As the rows of rates, where logits come as a product, some features of all rows at a time."""

from __future__ import annotations

import math

import numpy as np

from mosaicvi._compiled._math import CHUNK, ZERO, compiled, largest, row_of
from mosaicvi._compiled._rates import rate_gradient, rates_of, stored_rate


@compiled
def chunk_forward(
    rows, start, indptr, indices, points, logits, weights, counted, tops, sums, rates, at_stored,
):  # fmt: skip
    """Take a chunk of features into what :func:`rates_forward` sums over all of them.

    Parameters
    ----------
    rows
        First row and the row after the last.
    start
        First feature of the chunk.
    indptr, indices
        CSR pattern, columns in ascending order.
    points
        Where each row's entries go on, from which the chunk's are taken; moved on.
    logits
        ``(n_rows, n_chunk)``.
    weights, counted
        Weights of the chunk's features, alone and times their factors.
    tops, sums, rates
        Largest logit so far, and the two sums relative to it, ``(n_rows,)``; updated.
    at_stored
        Written: logits of the chunk's stored entries.
    """
    n_chunk = logits.shape[1]
    at, best = row_of(CHUNK), row_of(CHUNK)
    for row in range(rows[0], rows[1]):
        top = largest(logits[row], best)
        if top > tops[row]:
            shrink = math.exp(tops[row] - top)
            tops[row], sums[row], rates[row] = top, sums[row] * shrink, rates[row] * shrink
        top = np.float32(tops[row])
        for first in range(0, n_chunk, CHUNK):
            part = slice(first, min(first + CHUNK, n_chunk))
            more = rates_of(logits[row, part], weights[part], counted[part], top, at)
            sums[row] += more[0]
            rates[row] += more[1]
        j = points[row]
        while j < indptr[row + 1] and indices[j] < start + n_chunk:
            at_stored[j] = logits[row, indices[j] - start]
            j += 1
        points[row] = j


@compiled
def stored_rates(
    rows, indptr, indices, stored, weights, library, log_factor, factorials, binary, kept,
    at_stored, value, change,
):  # fmt: skip
    """Add what stored values change in a row of zeros, to values and to slopes."""
    for row in range(rows[0], rows[1]):
        shift = math.log(library[row] / kept[row, 1]) - kept[row, 0]
        for j in range(indptr[row], indptr[row + 1]):
            f = indices[j]
            change[j] = ZERO
            if stored[j] <= ZERO:
                continue
            log_mean = np.float64(at_stored[j]) + shift + log_factor[f]
            density, by_mean = stored_rate(stored[j], log_mean, factorials, binary)
            value[row] += weights[f] * density
            change[j] = weights[f] * by_mean
            kept[row, 2] += change[j]


@compiled
def chunk_backward(
    rows, start, indptr, indices, points, logits, weights, factor, library, kept, gradient, change,
    by_factor,
):  # fmt: skip
    """Overwrite the logits of a chunk with the gradient by them; add to that by log factors."""
    n_chunk = logits.shape[1]
    learnt = len(by_factor) > 0
    for row in range(rows[0], rows[1]):
        g = np.float32(gradient[row])
        top, scale = np.float32(kept[row, 0]), np.float32(library[row] / kept[row, 1])
        level = np.float32(kept[row, 2] / library[row])
        for first in range(0, n_chunk, CHUNK):
            part = slice(first, min(first + CHUNK, n_chunk))
            given = factor[part], weights[part], weights[part], level, by_factor[part]
            rate_gradient(logits[row, part], top, -g * scale, *given)
        j = points[row]
        while j < indptr[row + 1] and indices[j] < start + n_chunk:
            logits[row, indices[j] - start] += g * change[j]
            if learnt:
                by_factor[indices[j] - start] += g * change[j]
            j += 1
        points[row] = j


@compiled
def ascending(indptr, indices):
    """Whether columns ascend within each row."""
    for row in range(len(indptr) - 1):
        for j in range(indptr[row] + 1, indptr[row + 1]):
            if indices[j] <= indices[j - 1]:
                return False
    return True
