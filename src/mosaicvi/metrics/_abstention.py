"""Accuracy against the share of cells that are answered at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import RequestError
from mosaicvi.metrics._shapes import along, as_truth

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def accuracy_at_coverage(
    confidence: ArrayLike, correct: ArrayLike, coverage: ArrayLike
) -> NDArray[np.float64]:
    """Accuracy of the most confident cells, when the others abstain.

    Of cells with equal confidence the expected share is taken, so the order of cells does not
    matter. Confidence that says nothing gives the overall accuracy at every coverage.

    Parameters
    ----------
    confidence
        Confidence of each answer, shape ``(n_cells,)``; only its order matters.
    correct
        Whether the answer is right, shape ``(n_cells,)``, booleans, or 0 and 1; two Series of
        the same cells are matched by name.
    coverage
        Shares of the cells that are answered, above 0 and at most 1, any shape.

    Returns
    -------
    Accuracy among the answered cells, the shape of ``coverage``; at 1 the overall accuracy.

    Raises
    ------
    RequestError
        If shapes do not belong together, a confidence is NaN, ``correct`` is something else than
        booleans, or a coverage is not above 0 and at most 1.
    """
    sure, right = (
        np.asarray(confidence, dtype=np.float64),
        as_truth(along(correct, confidence), "correct"),
    )
    if sure.shape != right.shape or sure.ndim != 1 or not sure.size:
        raise RequestError(
            f"shapes {sure.shape} and {right.shape}",
            key="confidence, correct",
            expected="(n_cells,), at least one cell",
        )
    if np.isnan(sure).any():
        raise RequestError(
            f"{int(np.isnan(sure).sum())} of {sure.size} values are NaN",
            key="confidence",
            expected="a confidence for each cell",
            remedy="leave out cells without an answer, or give them the lowest confidence",
        )
    levels = np.asarray(coverage, dtype=np.float64)
    if not ((levels > 0.0) & (levels <= 1.0)).all():
        raise RequestError(f"{levels}", key="coverage", expected="above 0 and at most 1")
    groups = np.unique(-sure, return_inverse=True)[1]
    answered = np.concatenate([[0.0], np.cumsum(np.bincount(groups))])
    hits = np.concatenate([[0.0], np.cumsum(np.bincount(groups, weights=right))])
    asked = levels * sure.size
    return np.asarray(np.interp(asked, answered, hits) / asked)
