"""How often intervals hold, against how often they say they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from matplotlib.ticker import PercentFormatter
from mudata import MuData

from mosaicvi import metrics
from mosaicvi._errors import RequestError
from mosaicvi.metrics._coverage import checked_levels
from mosaicvi.pl._style import BLUE, GREY, ORANGE, axes, note
from mosaicvi.pl._values import feature_names, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from mosaicvi.metrics._coverage import Levels

GRID = tuple(np.round(np.arange(0.05, 1.0, 0.05), 2))
"""Nominal levels at which coverage is drawn."""


def calibration(
    draws: np.ndarray | None = None,
    measured: Any = None,
    *,
    pit: np.ndarray | None = None,
    features: Sequence[str] | None = None,
    levels: Levels = GRID,
    ax: Axes | None = None,
) -> Axes:
    """Plot observed against nominal coverage of central predictive intervals.

    Intervals that hold lie on the diagonal; below it they are too narrow, above it too wide. Use
    cells that did not train the model.

    Parameters
    ----------
    draws
        Posterior predictive draws ``(n_draws, n_cells, n_features)``, from
        :meth:`mosaicvi.MosaicVI.posterior_predictive_sample`. Entries without draws (NaN, of cells
        without evidence) are left out, as are those that were not measured.
    measured
        What was measured, ``(n_cells, n_features)``, cells and features in the order of the draws,
        in their unit: array, sparse matrix, DataFrame or AnnData.
    pit
        Randomised PIT ``(n_cells, n_features)`` (:func:`mosaicvi.metrics.randomised_pit`), in
        place of both.
    features
        Names of the features, to name the one that is farthest off; None: those of ``measured``.
    levels
        Nominal levels, between 0 and 1; a single number is one level.
    ax
        Axes to draw on; None: new ones.

    Returns
    -------
    The axes, with a faint line a feature and the mean in bold, the mean distance of features from
    the diagonal, and the feature with the largest; nothing is saved or shown.

    Raises
    ------
    RequestError
        If neither draws with measured values nor PIT are given, these are no numbers, shapes
        differ, no value was measured, or a level is not between 0 and 1.

    Examples
    --------
    >>> draws = model.posterior_predictive_sample("protein", ["rna"], indices=hidden, n_samples=100)
    >>> mosaicvi.pl.calibration(draws, measured)
    """
    if pit is None:
        if draws is None or measured is None:
            raise RequestError(
                "no draws, or no measured values", expected="draws and measured, or pit"
            )
        pit = metrics.randomised_pit(_numbers(draws), table(measured))
    if features is None:
        features = feature_names(pit if measured is None else measured)
    nominal = checked_levels(levels)
    covered = metrics.coverage(pit, nominal)
    if features is not None and len(features) != covered.shape[1]:
        raise RequestError(
            f"{len(features)} names of {covered.shape[1]} features",
            key="features",
            expected="a name for each feature, in their order",
        )
    off = np.abs(covered - nominal[:, None]).mean(0)
    if not np.isfinite(off).any():
        raise RequestError(
            "all values are missing",
            key="measured" if measured is not None else "pit",
            expected="measured values, with draws, of at least one feature",
        )
    worst = int(np.nanargmax(off))
    ax = axes(ax, width=4.0, height=3.9)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=1)
    crowd = covered.shape[1]
    ax.plot(nominal, covered, color=BLUE, alpha=float(np.clip(8 / crowd, 0.08, 0.5)), linewidth=0.8)
    text = f"{crowd} features, mean in bold\nmean distance {np.nanmean(off):.1%}"
    if features is not None and crowd > 1:
        ax.plot(nominal, covered[:, worst], color=ORANGE, linewidth=1.4)
        worst_one = f"worst: {features[worst]}, {off[worst]:.0%}"
        note(ax, worst_one, place=(0.97, 0.03), color=ORANGE)
    ax.plot(nominal, np.nanmean(covered, axis=1), color=BLUE, linewidth=2.6)
    note(ax, text)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    ax.set_xlabel("nominal coverage of the interval")
    ax.set_ylabel("measured values inside it")
    return ax


def _numbers(draws: Any) -> np.ndarray:
    # numpy would index an AnnData a value at a time, without end
    is_data = isinstance(draws, AnnData | MuData)
    array = np.empty(0, dtype=object) if is_data else np.asarray(draws)
    if array.dtype.kind not in "biuf":
        raise RequestError(
            f"found {type(draws).__name__}",
            key="draws",
            expected="an array of draws (n_draws, n_cells, n_features), and what was measured",
            remedy="pl.calibration(model.posterior_predictive_sample(modality, ...), measured)",
        )
    return array
