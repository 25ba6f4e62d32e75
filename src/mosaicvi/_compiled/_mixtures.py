"""Entries of two negative binomials, background and foreground.

Panels are narrow, so loops run over the entries of several rows at a time. Formulas are those of
:func:`~mosaicvi.likelihoods._nb_density.negative_binomial`, in which no two large terms cancel
(Loader 2000). Each loop writes one array: with more, compilers give up on vector instructions.
"""

from __future__ import annotations

import math

import numpy as np

from mosaicvi._compiled._math import (
    HALF,
    ONE,
    ZERO,
    compiled,
    exact,
    exp,
    log,
    row_of,
    sigmoid,
    vectorised,
)

ENTRIES = 1024
"""Entries a time, about."""
SHIFT, LOG_2PI = np.float32(4.0), np.float32(math.log(2 * math.pi))
G0, G1, G2 = (np.float32(each) for each in (1 / 12, -1 / 360, 1 / 1260))
D0, D1, D2 = (np.float32(each) for each in (-1 / 12, 1 / 120, -1 / 252))
A0, A1, A2, A3 = (np.float32(-2 / (2 * k + 3)) for k in range(4))
TWO, THREE, NARROW = np.float32(2), np.float32(3), np.float32(0.2)
LARGEST_LOG_MEAN = 15.0
"""Guard against float overflow: means stay within exp(-15) and exp(15)."""
BOUND = np.float32(LARGEST_LOG_MEAN)


@vectorised
def _stirling(z, out):
    """Error of Stirling's formula for the logarithm of the gamma function."""
    for i in range(len(out)):
        below = z[i] < SHIFT
        shifted = z[i] + SHIFT if below else z[i]
        inverse = ONE / shifted
        square = inverse * inverse
        low = min(z[i], SHIFT)
        product = low * (low + ONE) * (low + TWO) * (low + THREE)
        moved = (shifted - HALF) * log(shifted) - (z[i] - HALF) * log(z[i]) - SHIFT - log(product)
        out[i] = ((G2 * square + G1) * square + G0) * inverse + (moved if below else ZERO)


@vectorised
def _stirling_slope(z, out):
    """Digamma less the logarithm."""
    for i in range(len(out)):
        below = z[i] < SHIFT
        shifted = z[i] + SHIFT if below else z[i]
        inverse = ONE / shifted
        square = inverse * inverse
        low = min(z[i], SHIFT)
        # 1/z + 1/(z + 1) + 1/(z + 2) + 1/(z + 3)
        first, last = low * (low + THREE), (low + ONE) * (low + TWO)
        harmonic = (TWO * low + THREE) * (first + last) / (first * last)
        moved = log(shifted / z[i]) - harmonic
        slope = ((D2 * square + D1) * square + D0) * square - HALF * inverse
        out[i] = slope + (moved if below else ZERO)


@vectorised
def _counted(x, theta, out):
    """Counts, of which zeros are taken for ones, and a dispersion."""
    for i in range(len(out)):
        out[i] = (x[i] if x[i] > ZERO else ONE) + theta[i]


@vectorised
def _excess(u, ratio):
    """``u - log(1 + u)``, where ``ratio`` is ``1 + u``."""
    v = u / (u + TWO)
    square = v * v
    series = ((((A3 * square + A2) * square + A1) * square + A0) * square + u) * v
    return series if abs(u) < NARROW else u - log(ratio)


@vectorised
def _constants(x, theta, total, errors, out):
    """What counts and dispersions alone say; ``out`` holds the total's error of Stirling's."""
    for i in range(len(x)):
        count = x[i] if x[i] > ZERO else ONE
        scale = HALF * (log(theta[i] / total[i]) - log(count) - LOG_2PI)
        out[i] = out[i] - errors[i] + scale if x[i] > ZERO else ZERO


@vectorised
def _add(values, others, out):
    for i in range(len(out)):
        out[i] = values[i] + others[i]


@vectorised
def _densities(x, theta, mean, out):
    """Add the rest of the log density."""
    for i in range(len(x)):
        count = x[i] if x[i] > ZERO else ONE
        denominator, total = mean[i] + theta[i], x[i] + theta[i]
        delta = (x[i] - mean[i]) / denominator
        tilt = theta[i] * delta
        counted = count * _excess(-tilt / count, (mean[i] / denominator) * (total / count))
        deviance = counted if x[i] > ZERO else -tilt
        out[i] -= deviance + theta[i] * _excess(delta, total / denominator)


@vectorised
def _mean_slopes(x, theta, mean, out):
    for i in range(len(x)):
        out[i] = theta[i] * ((x[i] - mean[i]) / (mean[i] + theta[i]))


@vectorised
def _theta_slopes(x, theta, mean, series, own, out):
    for i in range(len(x)):
        denominator, total = mean[i] + theta[i], x[i] + theta[i]
        excess = _excess((x[i] - mean[i]) / denominator, total / denominator)
        out[i] = (series[i] - own[i] if x[i] > ZERO else ZERO) - excess


@vectorised
def _bounded(log_mean):
    """A log mean within its bounds; NaN stays NaN."""
    log_mean = -BOUND if log_mean < -BOUND else log_mean
    return BOUND if log_mean > BOUND else log_mean


@vectorised
def _background_means(background, out):
    for i in range(len(out)):
        out[i] = exp(_bounded(background[i]))


@vectorised
def _foreground_means(background, foreground, out):
    for i in range(len(out)):
        excess = max(foreground[i], ZERO) + log(ONE + exp(-abs(foreground[i])))
        out[i] = exp(_bounded(_bounded(background[i]) + excess))


@vectorised
def _shares(low, high, logit, out):
    """Log odds of background, given the entry."""
    for i in range(len(out)):
        out[i] = low[i] - high[i] + logit[i]


@vectorised
def _mixed(low, high, logit, odds, out):
    """Log density of the mixture."""
    for i in range(len(out)):
        top = high[i] if odds[i] < ZERO else low[i] + logit[i]
        rest = max(logit[i], ZERO) + log(ONE + exp(-abs(logit[i])))
        out[i] = top + log(ONE + exp(-abs(odds[i]))) - rest


@vectorised
def _times_share(odds, out):
    for i in range(len(out)):
        out[i] *= sigmoid(odds[i])


@vectorised
def _times_rest(odds, out):
    for i in range(len(out)):
        out[i] *= sigmoid(-odds[i])


@vectorised
def _logit_slopes(odds, logit, out):
    for i in range(len(out)):
        out[i] = sigmoid(odds[i]) - sigmoid(logit[i])


@exact
def _add_rows(entries, observed, first, n_features, value):
    """Sum entries of rows, from a row on, over observed features."""
    for row in range(len(entries) // n_features):
        total = 0.0
        for f in range(n_features):
            if observed.shape[0] == 0 or observed[first + row, f]:
                total += entries[row * n_features + f]
        value[first + row] = total


@compiled
def mixtures_forward(
    rows, x, observed, theta, background, foreground, logit, gradients, value,
    by_low, by_high, by_logit, by_theta,
):  # fmt: skip
    """Log density of rows, and derivatives of entries if asked for.

    Parameters
    ----------
    rows
        First row and the row after the last.
    x, background, foreground, logit
        Counts and heads, flattened from ``(n_rows, n_features)``.
    observed
        Bool ``(n_rows, n_features)``, or without rows: all are.
    theta
        Dispersions of background and foreground, ``(2, n_features)``.
    gradients
        Whether to write derivatives.
    value
        Written, ``(n_rows,)``.
    by_low, by_high, by_logit, by_theta
        Written, flattened like ``x`` (the last ``(2, ...)``): derivatives by the log means, the
        logit and the dispersions.
    """
    n_features = theta.shape[1]
    at_once = max(1, ENTRIES // n_features)
    n = at_once * n_features
    thetas, means = (row_of(n), row_of(n)), (row_of(n), row_of(n))
    values, totals = (row_of(n), row_of(n)), (row_of(n), row_of(n))
    errors, slopes = (row_of(n), row_of(n)), (row_of(n), row_of(n))
    counts, spare, none = row_of(n), row_of(n), row_of(n)
    for k in range(2):
        for i in range(n):
            thetas[k][i] = theta[k, i % n_features]
        _stirling(thetas[k], errors[k])
        if gradients:
            _stirling_slope(thetas[k], slopes[k])
    for first in range(rows[0], rows[1], at_once):
        part = slice(first * n_features, min(first + at_once, rows[1]) * n_features)
        n = part.stop - part.start
        _counted(x[part], none[:n], spare[:n])
        _stirling(spare[:n], counts[:n])
        _background_means(background[part], means[0][:n])
        _foreground_means(background[part], foreground[part], means[1][:n])
        for k in range(2):
            _counted(x[part], thetas[k][:n], totals[k][:n])
            _stirling(totals[k][:n], values[k][:n])
            _add(errors[k][:n], counts[:n], spare[:n])
            _constants(x[part], thetas[k][:n], totals[k][:n], spare[:n], values[k][:n])
            _densities(x[part], thetas[k][:n], means[k][:n], values[k][:n])
        odds, mixed = counts[:n], spare[:n]
        _shares(values[0][:n], values[1][:n], logit[part], odds)
        _mixed(values[0][:n], values[1][:n], logit[part], odds, mixed)
        _add_rows(mixed, observed, first, n_features, value)
        if gradients:
            _mean_slopes(x[part], thetas[0][:n], means[0][:n], by_low[part])
            _mean_slopes(x[part], thetas[1][:n], means[1][:n], by_high[part])
            for k in range(2):
                series = values[k][:n]
                _stirling_slope(totals[k][:n], series)
                given = x[part], thetas[k][:n], means[k][:n], series, slopes[k][:n]
                _theta_slopes(*given, by_theta[k, part])
            _times_share(odds, by_low[part])
            _times_rest(odds, by_high[part])
            _times_share(odds, by_theta[0, part])
            _times_rest(odds, by_theta[1, part])
            _logit_slopes(odds, logit[part], by_logit[part])


@exact
def _within(value, slope):
    """A gradient that would lead further out of the bounds of log means is none."""
    outwards = (value < -BOUND and slope > ZERO) or (value > BOUND and slope < ZERO)
    return ZERO if outwards else slope


@compiled
def mixtures_backward(
    rows, observed, background, foreground, gradient, by_low, by_high, by_logit, by_theta, sums,
):  # fmt: skip
    """Overwrite derivatives by gradients by heads; add those by dispersions to ``sums``.

    ``by_low`` becomes the gradient by the background head, ``by_high`` by the foreground head.
    """
    n_features = sums.shape[1]
    for row in range(rows[0], rows[1]):
        for f in range(n_features):
            i = row * n_features + f
            g = gradient[row]
            if observed.shape[0] > 0 and not observed[row, f]:
                g = ZERO
            low = _bounded(background[i])
            tail = exp(-abs(foreground[i]))
            excess = max(foreground[i], ZERO) + log(ONE + tail)
            high = _within(low + excess, g * by_high[i])
            by_high[i] = high * ((ONE if foreground[i] >= ZERO else tail) / (ONE + tail))
            by_low[i] = _within(background[i], g * by_low[i] + high)
            by_logit[i] *= g
            sums[0, f] += g * by_theta[0, i]
            sums[1, f] += g * by_theta[1, i]
