"""Strata of cells by batch and depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import RequestError, check_whole
from mosaicvi.metrics._shapes import along, as_named, stated

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def depth_strata(
    depth: ArrayLike, batch: ArrayLike | None = None, *, n_quantiles: int = 5
) -> NDArray[np.str_]:
    """Batch and depth quantile of each cell, quantiles within the batch.

    Parameters
    ----------
    depth
        Total counts of each cell, shape ``(n_cells,)``; only their order matters.
    batch
        Batch of each cell; None: all cells are of one.
    n_quantiles
        Quantiles of each batch, at most as many as it has cells. Equal depths are never separated,
        so quantiles of depths with ties differ in size.

    Returns
    -------
    Names of the strata, ``batch:quantile``, shape ``(n_cells,)``; for ``groups`` of
    :func:`foscttm` and :func:`matching_accuracy`.

    Raises
    ------
    RequestError
        If the arrays differ in length, a depth or batch is missing, or ``n_quantiles`` is below
        one.
    """
    values = np.asarray(depth, dtype=np.float64)
    given = np.full(values.shape, "", dtype=object) if batch is None else along(batch, depth)
    names = as_named(given)
    if values.ndim != 1 or names.shape != values.shape:
        raise RequestError(
            f"shapes {values.shape} and {names.shape}", key="depth, batch", expected="(n_cells,)"
        )
    check_whole(n_quantiles, "n_quantiles")
    for known, key in ((np.isfinite(values), "depth"), (stated(given), "batch")):
        if not known.all():
            raise RequestError(
                f"{int((~known).sum())} of {len(values)} cells have none",
                key=key,
                expected="one of each cell",
                remedy="leave these cells out",
            )
    strata = np.empty(len(values), dtype=object)
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        # share of the batch's cells with less depth: the same for equal depths
        below = np.searchsorted(np.sort(values[rows]), values[rows], side="left") / len(rows)
        quantile = np.floor(below * n_quantiles).astype(int)
        strata[rows] = [f"{name}:{number}" for number in quantile]
    return strata.astype(str)
