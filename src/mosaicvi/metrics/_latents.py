"""Latent spaces of two modalities, checked and brought to one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi._errors import RequestError
from mosaicvi.metrics._shapes import as_named, dense, stated

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from mosaicvi.metrics._shapes import Floats

CONSTANT = 1e-12
"""A dimension whose range is below this part of its largest value does not vary."""


def check_finite(values: NDArray[np.floating[Any]], key: str) -> None:
    """Refuse cells with values that are not finite, such as those that getters have no evidence of.

    Raises
    ------
    RequestError
        Says how many there are.
    """
    lost = ~np.isfinite(values).all(axis=1)
    if lost.any():
        raise RequestError(
            f"values that are not finite, in {int(lost.sum())} of {len(values)} cells",
            key=key,
            expected="finite numbers",
            remedy="leave out cells without evidence, and what is known of them: "
            "rows = np.isfinite(latent).all(axis=1)",
        )


def as_latents(left: ArrayLike, right: ArrayLike, *, paired: bool = False) -> tuple[Floats, Floats]:
    """Both latents as finite float64 ``(n_cells, n_latent)``.

    Raises
    ------
    RequestError
        If they are no tables of the same dimensions (and cells, where ``paired``), are empty, or
        hold values that are not finite.
    """
    first, second = (
        np.asarray(dense(side, "left, right"), dtype=np.float64) for side in (left, right)
    )
    shapes = f"shapes {first.shape} and {second.shape}"
    wanted = "(n_cells, n_latent), as many dimensions on both sides"
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise RequestError(shapes, key="left, right", expected=wanted)
    if paired and len(first) != len(second):
        raise RequestError(
            shapes, key="left, right", expected="row i of one is the match of row i of the other"
        )
    if not (len(first) and len(second)):
        raise RequestError(shapes, key="left, right", expected="at least one cell on both sides")
    for side in (first, second):
        check_finite(side, "left, right")
    return first, second


def standardised(left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Every dimension with mean 0 and standard deviation 1 over the cells of both sides together.

    One shift and one scale for both sides: an offset between modalities stays. A dimension that
    does not vary becomes 0.
    """
    together = np.concatenate([left, right])
    spread = together.std(axis=0)
    flat = np.ptp(together, axis=0) <= CONSTANT * np.abs(together).max(axis=0)
    scaled = (together - together.mean(axis=0)) / np.where(flat, 1.0, np.maximum(spread, 1e-300))
    scaled[:, flat] = 0.0
    return scaled[: len(left)], scaled[len(left) :]


def as_groups(groups: ArrayLike | None, n_cells: int) -> NDArray[np.int64]:
    """Group number of each cell; None: all cells are of one. A cell without one is in its own.

    Raises
    ------
    RequestError
        If there is not one group a cell.
    """
    if groups is None:
        return np.zeros(n_cells, dtype=np.int64)
    labels = np.asarray(groups)
    if labels.shape != (n_cells,):
        raise RequestError(
            f"shape {labels.shape} for {n_cells} cells", key="groups", expected="(n_cells,)"
        )
    codes = np.unique(as_named(groups), return_inverse=True)[1].astype(np.int64)
    known = stated(groups)
    codes[~known] = n_cells + np.arange(int((~known).sum()))
    return codes
