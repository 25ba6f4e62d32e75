"""What compiled densities are made of: elementary functions, and loops over a row.

Exponential and logarithm are Cephes' polynomials (Moshier 1989), within two units of the last
place: calls of the mathematical library cannot be made part of vector instructions.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from pathlib import Path

import numpy as np
from numba import config, njit

ZERO, HALF, ONE = (np.float32(each) for each in (0.0, 0.5, 1.0))
LOG2_E, LN2_HIGH, LN2_LOW = (np.float32(e) for e in (1.44269504, 0.693359375, -2.12194440e-4))
LOWEST_EXPONENT, HIGHEST_EXPONENT = np.float32(-87.0), np.float32(88.0)
E0, E1, E2 = (np.float32(e) for e in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3))
E3, E4, E5 = (np.float32(e) for e in (4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1))
L0, L1, L2 = (np.float32(e) for e in (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1))
L3, L4, L5 = (np.float32(e) for e in (-1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1))
L6, L7, L8 = (np.float32(e) for e in (2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1))
BIAS, MANTISSA, ROOT_HALF = np.int32(127), np.int32(23), np.int32(0x3F3504F3)
SMALLEST_MEAN = 1e-30
"""Floor of a mean, far below anything a decoder emits and above float32's smallest normal."""
SMALLEST_LOG_MEAN = math.log(SMALLEST_MEAN)
CHUNK, LANES = 256, 16
"""Features that are summed in single precision, before the sum is added in double."""
APART = 256
"""Numbers of single precision on either side of a row: more than a loop takes at once."""

# Sums may be reordered and products fused, which vector instructions need; NaN stays NaN.
# Inlined, always: of a function that is called, a process that compiles has one version, and one
# that reads what was compiled from disk another, and they round differently.
MATH = {"reassoc", "contract", "arcp", "nsz"}
elementary = njit(fastmath={"contract"}, error_model="numpy", nogil=True, forceinline=True)
vectorised = njit(fastmath=MATH, error_model="numpy", nogil=True, forceinline=True)
exact = njit(error_model="numpy", nogil=True, forceinline=True)


_SOURCES = hashlib.blake2b(digest_size=8)
for _path in sorted(Path(__file__).parent.glob("*.py")):
    _SOURCES.update(_path.read_bytes())


def compiled(function):
    """Compile at the first call, once for all processes: the result is kept on disk.

    Where neither the package's folder nor the user's cache can be written, each process compiles.
    """
    try:
        found = njit(error_model="numpy", nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no place for its files
        return exact(function)
    if not config.DISABLE_JIT:  # NUMBA_DISABLE_JIT=1 leaves functions as they are
        _guard(found._cache)
    return found


def _guard(cache):
    """Read nothing that was compiled of other sources, and compute without the files of a cache.

    numba asks whether the function's own file has changed, not those of functions that it calls;
    and it writes that code is there before the code, in whose place that of other sources may lie.
    """
    file, load, save = cache._cache_file, cache.load_overload, cache.save_overload
    file._source_stamp = (file._source_stamp, _SOURCES.hexdigest())
    file._data_name_pattern = f"{_SOURCES.hexdigest()}.{file._data_name_pattern}"

    def load_overload(*args):
        try:
            return load(*args)
        except Exception:  # noqa: BLE001  (a damaged file may raise anything)
            return None

    def save_overload(*args):
        try:
            save(*args)
        except Exception:  # noqa: BLE001  (a full disk, or an index that is damaged)
            with suppress(OSError):
                Path(file._index_path).unlink()

    cache.load_overload, cache.save_overload = load_overload, save_overload


@elementary
def exp(x):
    """``exp(x)`` in single precision, between e^-87 and e^88."""
    # not by min and max, which may make a number of NaN
    x = LOWEST_EXPONENT if x < LOWEST_EXPONENT else x
    x = HIGHEST_EXPONENT if x > HIGHEST_EXPONENT else x
    n = np.float32(math.floor(x * LOG2_E + HALF))
    f = x - n * LN2_HIGH - n * LN2_LOW
    p = ((((E0 * f + E1) * f + E2) * f + E3) * f + E4) * f + E5
    power = np.int32((np.int32(n) + BIAS) << MANTISSA).view(np.float32)
    return (p * f * f + f + ONE) * power


@elementary
def log(x):
    """``log(x)`` of a positive, normal number in single precision."""
    bits = np.float32(x).view(np.int32)
    exponent = (bits - ROOT_HALF) >> MANTISSA
    m = np.int32(bits - (exponent << MANTISSA)).view(np.float32) - ONE
    p = (((((L0 * m + L1) * m + L2) * m + L3) * m + L4) * m + L5) * m
    p = ((p + L6) * m + L7) * m + L8
    n = np.float32(exponent)
    z = m * m
    # bits of NaN are a number: the difference makes it NaN again
    return (m * z * p + n * LN2_LOW - HALF * z + m) + n * LN2_HIGH + (x - x)


@elementary
def log1p(x):
    """``log(1 + x)`` of ``x >= 0``: what rounding takes from ``1 + x`` is given back."""
    u = ONE + x
    return log(u) + (x - (u - ONE)) / u


@vectorised
def sigmoid(x):
    tail = exp(-abs(x))
    return (ONE if x >= ZERO else tail) / (ONE + tail)


@exact
def row_of(n):
    """A row of zeros: rows of a matrix may have strides, over which loops stay scalar.

    It lies apart from whatever else there is. Before it enters a loop of vector instructions, the
    compiler asks at run time whether what is written lies a few vectors behind what is read, and
    if so goes one by one, which rounds otherwise: of short rows side by side, bits would depend on
    where memory was free.
    """
    return np.zeros(n + 2 * APART, np.float32)[APART : APART + n]


@exact
def row_like(values):
    """A copy of a row, apart as :func:`row_of` is."""
    row = row_of(len(values))
    row[:] = values
    return row


@vectorised
def exponentials(logits, weights, top, at):
    """Write ``exp(a - top)``; weighted sum."""
    total = ZERO
    for f in range(len(logits)):
        at[f] = exp(logits[f] - top)
        total += at[f] * weights[f]
    return total


@vectorised
def _larger(values, best):
    """Overwrite with the larger of two, one by one: a maximum of all would stay scalar."""
    for f in range(len(values)):
        best[f] = values[f] if values[f] > best[f] else best[f]


@exact
def largest(logits, best):
    """Maximum of a row; ``best`` holds what a chunk of it needs."""
    n_features = len(logits)
    best[:] = logits[0]
    for start in range(0, n_features, CHUNK):
        part = logits[start : min(start + CHUNK, n_features)]
        _larger(part, best[: len(part)])
    width = CHUNK // 2
    while width >= LANES:
        _larger(best[width : 2 * width], best[:width])
        width //= 2
    return best[: 2 * width].max()


@vectorised
def weighted(values, weights):
    total = ZERO
    for f in range(len(values)):
        total += values[f] * weights[f]
    return total


@exact
def digamma(x):
    """Digamma of ``x > 0`` in double precision."""
    shift = 0.0
    while x < 8.0:
        shift -= 1.0 / x
        x += 1.0
    square = 1.0 / (x * x)
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))
    return shift + math.log(x) - 0.5 / x - series


@exact
def looked_up(x, table):
    """Whether a table, by counts from zero, has a row for a number."""
    return x < len(table) and x == math.floor(x)


@vectorised
def effective(weights, observed, buffer):
    """Weights of the entries of a row: none where they are not observed."""
    for f in range(len(weights)):
        buffer[f] = weights[f] if observed[f] else ZERO
