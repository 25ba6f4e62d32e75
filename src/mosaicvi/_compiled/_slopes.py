"""How the density of negative binomial counts rises with the logits of its means, row by row."""

from __future__ import annotations

import math

import numpy as np

from mosaicvi._compiled._math import (
    CHUNK,
    ONE,
    ZERO,
    compiled,
    exp,
    exponentials,
    largest,
    log1p,
    row_of,
    vectorised,
)


@vectorised
def _entries(x, shown, at, log_share, inverse, theta, log_theta, slope, sums):
    """Overwrite logits with means; write slopes, and add to sums over the features.

    ``log_share`` turns a logit into a log mean.
    """
    nats, total, information = ZERO, ZERO, ZERO
    for f in range(len(at)):
        log_mean = at[f] + log_share
        mean = exp(log_mean)
        ratio = mean * inverse[f]
        damped = ONE / (ONE + ratio)
        seen = ONE if shown[f] else ZERO
        nats += seen * (x[f] * (log_mean - log_theta[f]) - (x[f] + theta[f]) * log1p(ratio))
        slope[f] = seen * (x[f] - mean) * damped
        total += slope[f]
        information += seen * mean * damped
        at[f] = mean
    sums[0] += nats
    sums[1] += total
    sums[2] += information


@vectorised
def _through_softmax(slope, mean, level, out):
    for f in range(len(slope)):
        out[f] = slope[f] - mean[f] * level


@compiled
def count_slopes(rows, values, shown, library, logits, theta, heads, sums):
    r"""Log density of the shown counts of rows, but for what means do not change, and its slopes.

    With mean :math:`\mu` and dispersion :math:`\theta` the density is
    :math:`x \log(\mu / \theta) - (x + \theta) \log(1 + \mu / \theta)`, its slope by
    :math:`\log \mu` is :math:`(x - \mu) / (1 + \mu / \theta)`, and the expected information
    :math:`\mu / (1 + \mu / \theta)`.

    Parameters
    ----------
    rows
        First row and the row after the last.
    values, shown
        Counts, and which of them count, bool, ``(n_rows, n_features)``.
    library
        Library size of each row.
    logits
        ``(n_rows, n_features)``.
    theta
        Dispersions.
    heads, sums
        Written: slopes by the logits, ``(n_rows, n_features)``; the density, and slope and
        information by the log of the library size, ``(n_rows, 3)``.
    """
    n_features = logits.shape[1]
    at, slope, best = row_of(n_features), row_of(n_features), row_of(CHUNK)
    ones = np.ones(n_features, np.float32)
    inverse, log_theta, part_sums = ONE / theta, np.log(theta), row_of(3)
    for row in range(rows[0], rows[1]):
        top = largest(logits[row], best)
        normaliser = 0.0
        for start in range(0, n_features, CHUNK):
            part = slice(start, min(start + CHUNK, n_features))
            normaliser += exponentials(logits[row, part], ones[part], top, at[part])
        log_share = np.float32(math.log(library[row] / normaliser) - top)
        at[:] = logits[row]
        for start in range(0, n_features, CHUNK):
            part = slice(start, min(start + CHUNK, n_features))
            part_sums[:] = ZERO
            _entries(
                values[row, part], shown[row, part], at[part], log_share, inverse[part],
                theta[part], log_theta[part], slope[part], part_sums,
            )  # fmt: skip
            for number in range(3):
                sums[row, number] += part_sums[number]
        # Shares add up to one: a logit that rises lowers all other means.
        level = np.float32(sums[row, 1] / library[row])
        _through_softmax(slope, at, level, heads[row])
