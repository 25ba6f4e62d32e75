"""What predictions explain of their targets beyond the groups that both know."""

from __future__ import annotations

import numpy as np

from mosaicvi._types import Float, Int

CHANCE = 4.0
"""Over the number of cells: what chance explains of the best of a few targets, now and then."""


def explained_shares(
    targets: Float[np.ndarray, "cells targets"],
    predicted: Float[np.ndarray, "cells targets"],
    groups: Int[np.ndarray, " cells"] | None,
) -> Float[np.ndarray, " targets"]:
    r"""Share of each target's variance within groups that predictions explain, less chance.

    ``1 - sum_c (e_c - mean_g(e))^2 / sum_c (t_c - mean_g(t))^2 - CHANCE / n_cells`` with
    ``e = t - p``: below one, about zero for predictions that tell groups apart and no more,
    negative for worse ones, and zero less chance for a target without variance.

    Parameters
    ----------
    targets, predicted
        Shape ``(n_cells, n_targets)``; each cell's prediction by a fit that left it out.
    groups
        Group of each cell, shape ``(n_cells,)``; None: one group.
    """
    codes = np.zeros(len(targets), dtype=np.int64)
    if groups is not None:
        codes = np.unique(groups, return_inverse=True)[1]
    size = np.bincount(codes)[:, None]

    def within(values: Float[np.ndarray, "cells targets"]) -> Float[np.ndarray, "cells targets"]:
        totals = np.zeros((len(size), values.shape[1]))
        np.add.at(totals, codes, values)
        return np.asarray(values - (totals / size)[codes])

    total = np.square(within(targets)).sum(0)
    left = np.square(within(targets - predicted)).sum(0)
    varies = total > 1e-12
    shares = np.zeros(len(total))
    shares[varies] = 1.0 - left[varies] / total[varies]
    return np.asarray(shares - CHANCE / len(targets))
