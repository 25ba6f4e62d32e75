"""Counts out of counts in one array: the one in the real part, the other in the imaginary part.

So both travel, row by row, through everything that knows arrays of one number a cell and feature
(indexing, masks, transfers to a device), and cannot be parted. An entry without coverage is NaN,
which all of that knows as missing.
"""

from __future__ import annotations

import numpy as np

from mosaicvi._types import Inexact, Real


def pair(
    part: Real[np.ndarray, "cells features"], whole: Real[np.ndarray, "cells features"]
) -> Inexact[np.ndarray, "cells features"]:
    """Pair counts with those that they are part of, complex64 ``(n_cells, n_features)``.

    Parameters
    ----------
    part, whole
        Methylated reads and coverage, shape ``(n_cells, n_features)``.
    """
    paired = np.empty(part.shape, dtype=np.complex64)
    paired.real, paired.imag = part, whole
    paired[whole == 0] = complex(np.nan, np.nan)
    return paired
