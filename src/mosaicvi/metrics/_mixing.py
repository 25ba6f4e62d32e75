"""How well batches mix in a latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.neighbors import NearestNeighbors

from mosaicvi._errors import RequestError, check_whole
from mosaicvi.metrics._latents import check_finite
from mosaicvi.metrics._shapes import along, as_named, dense, stated

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def batch_mixing(
    latent: ArrayLike,
    batch: ArrayLike,
    types: ArrayLike | None = None,
    *,
    n_neighbours: int = 30,
) -> float:
    """Share of a cell's neighbours that come from another batch, over the share expected.

    Neighbours are searched within the cell's type, so that batches of unlike composition can still
    reach 1: a cell's expected share is that of the other batches among the other cells of its type.
    The average over cells says nothing about whether types stay apart: read it beside a score that
    does.

    Parameters
    ----------
    latent
        Shape ``(n_cells, n_latent)``.
    batch
        Batch of each cell, shape ``(n_cells,)``.
    types
        Type of each cell; None: all cells are of one. Cells without a batch or type (None, NaN) are
        left out.
    n_neighbours
        Neighbours counted, or all other cells of the type where those are fewer.

    Returns
    -------
    About 1 where batch cannot be told from the neighbours, 0 where batches lie apart; NaN where no
    type has two batches.

    Raises
    ------
    RequestError
        If the arrays differ in length, the latent is no table or has values that are not finite, or
        ``n_neighbours`` is no whole number of at least one.
    """
    batch, types = along(batch, latent), None if types is None else along(types, latent)
    points, batches = np.asarray(dense(latent, "latent")), as_named(batch)
    groups = np.zeros(len(points), dtype=int) if types is None else as_named(types)
    if not len(points) == len(batches) == len(groups):
        raise RequestError(
            f"latent has {len(points)} rows, batch {len(batches)}, types {len(groups)}",
            expected="one of each a cell",
        )
    if points.ndim != 2:
        raise RequestError(f"shape {points.shape}", key="latent", expected="(n_cells, n_latent)")
    check_whole(n_neighbours, "n_neighbours")
    known = stated(batch) if types is None else stated(batch) & stated(types)
    points, groups = points[known], groups[known]
    check_finite(points, "latent")
    codes = np.unique(batches[known], return_inverse=True)[1]
    ratios = []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        own = np.bincount(codes[rows])[codes[rows]]
        if (own == len(rows)).all():
            continue
        search = NearestNeighbors(n_neighbors=min(n_neighbours, len(rows) - 1)).fit(points[rows])
        # Without a query, scikit-learn leaves each cell out of its own neighbours.
        found = codes[rows][search.kneighbors(return_distance=False)]
        other = (found != codes[rows][:, None]).mean(axis=1)
        ratios.append(other / ((len(rows) - own) / (len(rows) - 1)))
    return float(np.concatenate(ratios).mean()) if ratios else float("nan")
