"""Offsets of batches around their mean, and their prior, in one pass over the table."""

from __future__ import annotations

import numpy as np

from mosaicvi._compiled._math import CHUNK, ZERO, compiled, log1p, row_of, vectorised


@vectorised
def _add(values, total):
    for f in range(len(values)):
        total[f] += values[f]


@vectorised
def _add_present(values, present, total):
    for f in range(len(values)):
        total[f] += values[f] if present[f] else ZERO


@vectorised
def _centre(values, mean, out, squares):
    for f in range(len(values)):
        out[f] = values[f] - mean[f]
        squares[f] += out[f] * out[f]


@vectorised
def _centre_present(values, present, mean, out, squares):
    for f in range(len(values)):
        out[f] = values[f] - mean[f] if present[f] else ZERO
        squares[f] += out[f] * out[f]


@vectorised
def _density(weight, scale, squares, factor):
    total = ZERO
    for f in range(len(squares)):
        total += weight[f] * log1p(squares[f] / scale)
        factor[f] = weight[f] / (scale + squares[f])
    return total


@vectorised
def _multiply(factor, out):
    for f in range(len(out)):
        out[f] *= factor[f]


@compiled
def student_prior(raw, present, counts, weight, scale, slope):
    """Half the weighted sum of ``log(1 + squares / scale)`` of features.

    ``present`` says which batch measured which feature, and has no rows where all measured all;
    ``counts`` are the batches that did, at least one. ``slope`` receives the gradient by ``raw``.
    """
    n_batches, n_features = raw.shape
    complete = present.shape[0] == 0
    mean, squares = row_of(CHUNK), row_of(CHUNK)
    centred, factor = row_of(CHUNK), row_of(CHUNK)
    value = 0.0
    for start in range(0, n_features, CHUNK):
        part = slice(start, min(start + CHUNK, n_features))
        n = part.stop - part.start
        mean[:n], squares[:n] = ZERO, ZERO
        for s in range(n_batches):
            if complete:
                _add(raw[s, part], mean[:n])
            else:
                _add_present(raw[s, part], present[s, part], mean[:n])
        for f in range(n):
            mean[f] /= counts[start + f]
        for s in range(n_batches):
            if complete:
                _centre(raw[s, part], mean[:n], centred[:n], squares[:n])
            else:
                _centre_present(raw[s, part], present[s, part], mean[:n], centred[:n], squares[:n])
            # by way of a row, since the two tables may lie side by side
            slope[s, part] = centred[:n]
        value += 0.5 * _density(weight[part], np.float32(scale), squares[:n], factor[:n])
        for s in range(n_batches):
            _multiply(factor[:n], slope[s, part])
    return value
