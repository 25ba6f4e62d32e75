"""Area under the receiver operating characteristic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from mosaicvi._errors import RequestError
from mosaicvi.metrics._shapes import along, as_truth

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def auc(score: ArrayLike, positive: ArrayLike) -> float:
    """Probability that a positive scores above a negative, ties counted one half.

    The Mann-Whitney form ``(R - n1 (n1 + 1) / 2) / (n1 n0)``, with ``R`` the rank sum of the
    positives (Hanley & McNeil 1982).

    Parameters
    ----------
    score
        Shape ``(n_cells,)``; larger means "more likely positive".
    positive
        Truth, shape ``(n_cells,)``, booleans, or 0 and 1; two Series of the same cells are
        matched by name.

    Returns
    -------
    Between 0 and 1; NaN when all cells are of one kind, or a score is NaN.

    Raises
    ------
    RequestError
        If the shapes differ, or the truth is something else than booleans.
    """
    values, truth = (
        np.asarray(score, dtype=np.float64),
        as_truth(along(positive, score), "positive"),
    )
    if values.shape != truth.shape or values.ndim != 1:
        raise RequestError(
            f"shapes {values.shape} and {truth.shape}", key="score, positive", expected="(n_cells,)"
        )
    n_positive = int(truth.sum())
    n_negative = truth.size - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    rank_sum = float(rankdata(values)[truth].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2.0) / (n_positive * n_negative)
