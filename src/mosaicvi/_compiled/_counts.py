"""Rows of negative binomial counts, with or without zero inflation."""

from __future__ import annotations

import math

import numpy as np

from mosaicvi._compiled._math import (
    CHUNK,
    ONE,
    SMALLEST_LOG_MEAN,
    ZERO,
    compiled,
    digamma,
    effective,
    exact,
    exp,
    exponentials,
    largest,
    log,
    log1p,
    looked_up,
    row_like,
    row_of,
    sigmoid,
    vectorised,
    weighted,
)


@vectorised
def _lost_of_counts(at, scale, theta, inverse):
    """Overwrite exponentials with ``-log p(0)`` of negative binomials."""
    for f in range(len(at)):
        at[f] = theta[f] * log1p(at[f] * scale * inverse[f])


@vectorised
def _lost_with_dropout(at, dropout, shown, lost):
    """Write ``-log(1 - pi)`` and ``-log(pi + (1 - pi) e^-t)``, without cancellation."""
    for f in range(len(at)):
        shown[f] = log(ONE + exp(-abs(dropout[f])))
    for f in range(len(at)):
        tail = log(ONE + exp(-abs(dropout[f] + at[f])))
        lost[f] = shown[f] - tail - min(ZERO, max(-at[f], dropout[f]))
    for f in range(len(at)):
        shown[f] += max(dropout[f], ZERO)


@exact
def _large_count(x, log_mean, theta):
    """Log density in double precision, where no difference of large terms loses digits."""
    n, r = np.float64(x), np.float64(theta)
    mean = math.exp(log_mean)
    value = math.lgamma(n + r) - math.lgamma(r) - math.lgamma(n + 1.0)
    return value + n * (log_mean - math.log(r + mean)) - r * math.log1p(mean / r)


@exact
def _stored_counts(x, indices, logits, shift, theta, inverse, table, at, lost, shown, share):
    """What stored counts add to a row of zeros."""
    total = 0.0
    for j in range(len(x)):
        f = indices[j]
        if x[j] <= ZERO or share[f] == ZERO:
            continue
        # in double precision: of a large count, its rounding counts as often
        log_mean = max(np.float64(logits[f]) + shift, SMALLEST_LOG_MEAN)
        if looked_up(x[j], table):
            log_ratio = at[f] * inverse[f]
            density = table[int(x[j]), f] + x[j] * log_mean - (x[j] + theta[f]) * log_ratio
        else:
            density = _large_count(x[j], log_mean, theta[f])
        total += share[f] * (density + lost[f] - shown[f])
    return total


@compiled
def counts_forward(
    rows, indptr, indices, stored, observed, weights, library, logits, theta, table, dropout,
    value, kept,
):  # fmt: skip
    """Log density of rows of counts, negative binomial or, with ``dropout``, zero-inflated.

    Parameters
    ----------
    rows
        First row and the row after the last.
    indptr, indices, stored
        Counts of cells, CSR. Rows are draws of all cells, one draw after the other.
    observed
        Bool ``(n_cells, n_features)``, or without rows: all are.
    weights
        Number of features that each one stands for.
    library
        Library size of each row.
    logits
        ``(n_rows, n_features)``.
    theta, table
        Dispersions, and what :func:`negative_binomial_table` says of them.
    dropout
        Logits like ``logits``, or without rows: no inflation.
    value, kept
        Written: log density of each row, ``(n_rows,)``; largest logit and sum of exponentials
        of what is left, ``(n_rows, 2)``.
    """
    n_features = logits.shape[1]
    at, lost, shown = row_of(n_features), row_of(n_features), row_of(n_features)
    share, best = row_like(weights), row_of(CHUNK)
    inverse = ONE / theta
    inflated = dropout.shape[0] > 0
    for row in range(rows[0], rows[1]):
        cell = row % (len(indptr) - 1)
        top = largest(logits[row], best)
        if observed.shape[0] > 0:
            effective(weights, observed[cell], share)
        normaliser = 0.0
        for start in range(0, n_features, CHUNK):
            part = slice(start, min(start + CHUNK, n_features))
            normaliser += exponentials(logits[row, part], weights[part], top, at[part])
        kept[row, 0], kept[row, 1] = top, normaliser
        scale = np.float32(library[row] / normaliser)
        zeros = lost if inflated else at
        total = 0.0
        for start in range(0, n_features, CHUNK):
            part = slice(start, min(start + CHUNK, n_features))
            _lost_of_counts(at[part], scale, theta[part], inverse[part])
            if inflated:
                _lost_with_dropout(at[part], dropout[row, part], shown[part], lost[part])
            total -= weighted(zeros[part], share[part])
        run = slice(indptr[cell], indptr[cell + 1])
        shift = math.log(library[row] / normaliser) - top
        total += _stored_counts(
            stored[run], indices[run], logits[row], shift, theta, inverse, table, at, zeros,
            shown, share,
        )  # fmt: skip
        value[row] = total


@vectorised
def _means(logits, top, scale, inverse, mean, log_ratio):
    for f in range(len(logits)):
        mean[f] = exp(logits[f] - top) * scale
    for f in range(len(logits)):
        log_ratio[f] = log1p(mean[f] * inverse[f])


@vectorised
def _owned(dropout, theta, log_ratio, scaled, own, by_dropout):
    """Posterior that a zero is no dropout, and the derivative by the dropout's logit."""
    for f in range(len(dropout)):
        own[f] = ONE - sigmoid(dropout[f] + theta[f] * log_ratio[f])
    for f in range(len(dropout)):
        by_dropout[f] = (ONE - own[f] - sigmoid(dropout[f])) * scaled[f]


@vectorised
def _zero_slopes(mean, inverse, log_ratio, own, share, slope, by_own):
    for f in range(len(mean)):
        slope[f] = -mean[f] / (ONE + mean[f] * inverse[f]) * own[f] * share[f]
    for f in range(len(mean)):
        ratio = mean[f] * inverse[f]
        by_own[f] = (ratio / (ONE + ratio) - log_ratio[f]) * own[f]


@exact
def _stored_slopes(
    x, indices, mean, inverse, theta, table, log_ratio, scaled, share,
    own, slope, by_own, by_dropout,
):  # fmt: skip
    inflated = len(by_dropout) > 0
    for j in range(len(x)):
        f = indices[j]
        if x[j] <= ZERO:
            continue
        by_mean = (x[j] - mean[f]) / (ONE + mean[f] * inverse[f])
        slope[f] = share[f] * by_mean
        if looked_up(x[j], table):
            by_gamma = table[int(x[j]), f]
        else:
            by_gamma = np.float32(
                digamma(np.float64(x[j]) + np.float64(theta[f])) - digamma(np.float64(theta[f]))
            )
        by_own[f] = by_gamma - log_ratio[f] - by_mean * inverse[f]
        if inflated:
            by_dropout[f] -= (ONE - own[f]) * scaled[f]


@vectorised
def _through_softmax(slope, weights, mean, level, g, by_logits):
    for f in range(len(slope)):
        by_logits[f] = g * (slope[f] - weights[f] * mean[f] * level)


@vectorised
def _add_scaled(total, values, scaled):
    for f in range(len(total)):
        total[f] += values[f] * scaled[f]


@vectorised
def _scale(values, number, out):
    for f in range(len(values)):
        out[f] = values[f] * number


@compiled
def counts_backward(
    rows, indptr, indices, stored, observed, weights, library, logits, theta, table, dropout,
    kept, gradient, by_logits, by_dropout, by_theta,
):  # fmt: skip
    """Gradient of :func:`counts_forward`; ``table`` holds slopes by dispersion.

    ``by_logits`` and ``by_dropout`` are written, rows of them; ``by_theta`` is added to.
    """
    n_features = logits.shape[1]
    mean, log_ratio, scaled = row_of(n_features), row_of(n_features), row_of(n_features)
    own, slope, by_own = row_of(n_features), row_of(n_features), row_of(n_features)
    # what by_logits is computed from lies apart from it, too
    weights, share = row_like(weights), row_like(weights)
    none, ones = row_of(0), np.ones(n_features, np.float32)
    inverse = ONE / theta
    inflated = dropout.shape[0] > 0
    own[:] = ONE
    for row in range(rows[0], rows[1]):
        cell = row % (len(indptr) - 1)
        g = np.float32(gradient[row])
        top, scale = np.float32(kept[row, 0]), np.float32(library[row] / kept[row, 1])
        if observed.shape[0] > 0:
            effective(weights, observed[cell], share)
        for start in range(0, n_features, CHUNK):
            part = slice(start, min(start + CHUNK, n_features))
            _scale(share[part], g, scaled[part])
            _means(logits[row, part], top, scale, inverse[part], mean[part], log_ratio[part])
            if inflated:
                _owned(
                    dropout[row, part], theta[part], log_ratio[part], scaled[part], own[part],
                    by_dropout[row, part],
                )  # fmt: skip
            _zero_slopes(
                mean[part], inverse[part], log_ratio[part], own[part], share[part], slope[part],
                by_own[part],
            )  # fmt: skip
        run = slice(indptr[cell], indptr[cell + 1])
        _stored_slopes(
            stored[run], indices[run], mean, inverse, theta, table, log_ratio, scaled, share,
            own, slope, by_own, by_dropout[row] if inflated else none,
        )  # fmt: skip
        total = 0.0
        for start in range(0, n_features, CHUNK):
            part = slice(start, min(start + CHUNK, n_features))
            total += weighted(slope[part], ones[part])
        level = np.float32(total / library[row])
        _through_softmax(slope, weights, mean, level, g, by_logits[row])
        _add_scaled(by_theta, by_own, scaled)
