"""Rows of values that follow from one rate: Poisson counts, or whether there are any."""

from __future__ import annotations

import math

import numpy as np

from mosaicvi._compiled._math import (
    CHUNK,
    SMALLEST_LOG_MEAN,
    ZERO,
    compiled,
    effective,
    exact,
    exp,
    largest,
    looked_up,
    row_like,
    row_of,
    vectorised,
)


@exact
def _open(mean, log_mean):
    """``log(1 - exp(-mean)) + mean``, and the same of its derivative by the log of the mean."""
    if mean < 0.5:
        square = mean * mean
        value = square * (1 / 24 - square * (1 / 2880 - square / 181440))
        slope = square * (1 / 12 - square * (1 / 720 - square / 30240))
        return log_mean + 0.5 * mean + value, 1.0 + 0.5 * mean + slope
    closed = math.exp(-mean)
    return mean + math.log1p(-closed), mean / (1.0 - closed)


@exact
def stored_rate(x, log_mean, factorials, binary):
    """What a value above zero has more than a zero: log-probability, and slope by the log rate."""
    log_mean = max(log_mean, SMALLEST_LOG_MEAN)
    if binary:
        return _open(math.exp(log_mean), log_mean)
    if looked_up(x, factorials):
        return x * log_mean - factorials[int(x)], np.float64(x)
    return x * log_mean - math.lgamma(np.float64(x) + 1.0), np.float64(x)


@vectorised
def rates_of(logits, weights, factor, top, at):
    """Weighted sums of exponentials, and of exponentials times factors."""
    total, rates = ZERO, ZERO
    for f in range(len(logits)):
        at[f] = exp(logits[f] - top)
        total += at[f] * weights[f]
    for f in range(len(logits)):
        rates += at[f] * factor[f]
    return total, rates


@compiled
def rates_forward(
    rows, indptr, indices, stored, observed, weights, library, logits, log_factor, factor,
    factorials, binary, value, kept,
):  # fmt: skip
    """Log-probability of rows of Poisson counts or, if ``binary``, of whether there are any.

    As :func:`counts_forward`; ``log_factor`` and ``factor`` multiply each feature's rate,
    ``factorials`` are logs of those of small counts, and the third column of ``kept`` is the sum
    of a row's derivatives by log rates. Zeros need the sum of rates alone: one pass over logits.
    """
    n_features = logits.shape[1]
    at, best = row_of(CHUNK), row_of(CHUNK)
    share, counted = row_like(weights), factor * weights
    for row in range(rows[0], rows[1]):
        cell = row % (len(indptr) - 1)
        if observed.shape[0] > 0:
            effective(weights, observed[cell], share)
            for f in range(n_features):
                counted[f] = factor[f] * share[f]
        top, normaliser, rates = largest(logits[row], best), 0.0, 0.0
        for start in range(0, n_features, CHUNK):
            part = slice(start, min(start + CHUNK, n_features))
            sums = rates_of(logits[row, part], weights[part], counted[part], top, at)
            normaliser, rates = normaliser + sums[0], rates + sums[1]
        total = slopes = -rates * library[row] / normaliser
        shift = math.log(library[row] / normaliser) - top
        for j in range(indptr[cell], indptr[cell + 1]):
            f = indices[j]
            if stored[j] <= ZERO or share[f] == ZERO:
                continue
            log_mean = np.float64(logits[row, f]) + shift + log_factor[f]
            density, by_mean = stored_rate(stored[j], log_mean, factorials, binary)
            total += share[f] * density
            slopes += share[f] * by_mean
        value[row] = total
        kept[row, 0], kept[row, 1], kept[row, 2] = top, normaliser, slopes


@vectorised
def _scaled_rates(logits, top, scale, factor, share, weights, level):
    for f in range(len(logits)):
        change = factor[f] * share[f] + weights[f] * level
        logits[f] = scale * exp(logits[f] - top) * change


@vectorised
def _scaled_rates_and_factors(logits, top, scale, factor, share, weights, level, by_factor):
    for f in range(len(logits)):
        logits[f] = scale * exp(logits[f] - top)
    for f in range(len(logits)):
        by_factor[f] += logits[f] * factor[f] * share[f]
    for f in range(len(logits)):
        logits[f] *= factor[f] * share[f] + weights[f] * level


@exact
def rate_gradient(logits, top, scale, factor, share, weights, level, by_factor):
    """Overwrite logits of a row, as of zeros, with the gradient by them.

    In place, since a loop that reads and writes one array by two names stays scalar; and
    ``by_factor`` is added to, if there is room in it.
    """
    if len(by_factor) > 0:
        _scaled_rates_and_factors(logits, top, scale, factor, share, weights, level, by_factor)
    else:
        _scaled_rates(logits, top, scale, factor, share, weights, level)


@compiled
def rates_backward(
    rows, indptr, indices, stored, observed, weights, library, logits, log_factor, factor,
    factorials, binary, kept, gradient, by_logits, by_factor,
):  # fmt: skip
    """Gradient of :func:`rates_forward`; by logs of factors it is added, if there is room."""
    n_features = logits.shape[1]
    share = row_like(weights)
    learnt = len(by_factor) > 0
    for row in range(rows[0], rows[1]):
        cell = row % (len(indptr) - 1)
        g = np.float32(gradient[row])
        top, scale = np.float32(kept[row, 0]), np.float32(library[row] / kept[row, 1])
        shift = math.log(library[row] / kept[row, 1]) - kept[row, 0]
        level = np.float32(kept[row, 2] / library[row])
        if observed.shape[0] > 0:
            effective(weights, observed[cell], share)
        for start in range(0, n_features, CHUNK):
            part = slice(start, min(start + CHUNK, n_features))
            by_logits[row, part] = logits[row, part]
            given = factor[part], share[part], weights[part], level, by_factor[part]
            rate_gradient(by_logits[row, part], top, -g * scale, *given)
        for j in range(indptr[cell], indptr[cell + 1]):
            f = indices[j]
            if stored[j] <= ZERO or share[f] == ZERO:
                continue
            log_mean = np.float64(logits[row, f]) + shift + log_factor[f]
            _, by_mean = stored_rate(stored[j], log_mean, factorials, binary)
            change = g * share[f] * by_mean
            by_logits[row, f] += change
            if learnt:
                by_factor[f] += change
