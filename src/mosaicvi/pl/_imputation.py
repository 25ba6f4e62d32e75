"""Imputed values beside measured ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mosaicvi import metrics
from mosaicvi._errors import RequestError
from mosaicvi.pl._style import (
    AMBER,
    BLUE,
    GREY,
    IMPUTED,
    MAX_POINTS,
    PALE,
    axes,
    ink,
    note,
    tidy,
)
from mosaicvi.pl._values import (
    LAYER_DRAW,
    LAYER_LOG1P_MEAN,
    check_counts,
    check_rates,
    features_of,
    holds_counts,
    imputed_values,
    measured_values,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection

MAX_COLUMNS = 3
Kind = Literal["scatter", "violin", "gate"]


def imputation(
    imputed: AnnData,
    measured: Any,
    features: str | Sequence[str] | None = None,
    *,
    kind: Kind = "scatter",
    layer: str | None = None,
    background: pd.DataFrame | np.ndarray | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
) -> Axes | np.ndarray:
    """Plot imputed against measured values: counts as log1p, continuous values as they are.

    Parameters
    ----------
    imputed
        Answer of :meth:`mosaicvi.MosaicVI.impute`. Cells without an answer are left out.
    measured
        Measured values, best of cells whose values the model did not see: AnnData or DataFrame
        (counts, not their logarithms, and rates of a ``beta_binomial`` modality; cells and features
        are matched by name), or an array like ``imputed.X``.
    features
        What to show; None: the six with the highest imputability. A gate takes two.
    kind
        ``"scatter"``: imputed against measured, one panel a feature. ``"violin"``: both
        distributions, feature by feature. ``"gate"``: two features against each other, measured
        beside imputed, with the gates of the measured values and the share of cells in each
        quadrant.
    layer
        Layer of ``imputed`` to show; None: ``log1p_mean`` for a scatter, else ``draw`` if there is
        one (a draw is as noisy as a measurement, a mean is not), else ``log1p_mean``; ``X`` of
        continuous values.
    background
        For violins: expected background counts (:func:`mosaicvi.tl.protein_background`), as
        DataFrame or ``(n_cells, n_features)``; its middle half over cells is drawn as a band.
    ax
        Axes to draw on; several for several panels; None: new ones.

    Returns
    -------
    The axes, an array of them for several panels; nothing is saved or shown.

    Raises
    ------
    RequestError
        If kind, layer or a feature is unknown, a feature is named twice, no cell or no feature
        matches, names are not unique, counts are negative, reads stand for rates, there are too few
        axes, a background is given for continuous values, or no cell of a gate has both features
        measured.

    Examples
    --------
    >>> imputed = model.impute("protein", from_modalities=["rna"], indices=hidden)
    >>> mosaicvi.pl.imputation(imputed, measured, ["CD3", "CD19"])
    """
    if kind not in ("scatter", "violin", "gate"):
        raise RequestError(f"{kind!r}", key="kind", expected="'scatter', 'violin' or 'gate'")
    names = features_of(imputed, features)
    if layer is None:
        has_draw = kind != "scatter" and LAYER_DRAW in imputed.layers
        has_mean = LAYER_LOG1P_MEAN in imputed.layers
        layer = LAYER_DRAW if has_draw else LAYER_LOG1P_MEAN if has_mean else None
    counted = holds_counts(imputed)
    if background is not None and not counted:
        raise RequestError(
            "a background of values that are continuous",
            key="background",
            expected="None; only counts have a background",
        )
    rows, values = measured_values(measured, imputed)
    columns = imputed.var_names.get_indexer(names)
    values = values[:, columns]
    if counted:
        check_counts(values, measured)
        values = np.log1p(values)
    else:
        check_rates(values, imputed)
    truth = pd.DataFrame(values, columns=names)
    answer = pd.DataFrame(imputed_values(imputed, layer)[rows][:, columns], columns=names)
    if kind == "violin":
        level = None if background is None else _background(background, imputed, names)
        panel = ax if ax is None else _panels(ax, 1, 1)[0]
        return _violins(truth, answer, level, panel, counted=counted)
    if kind == "gate":
        return _gates(truth, answer, names, ax, is_draw=layer == LAYER_DRAW, counted=counted)
    panels = _panels(ax, len(names), min(len(names), MAX_COLUMNS))
    for panel, name in zip(panels, names, strict=True):
        _scatter(panel, truth[name].to_numpy(), answer[name].to_numpy(), name, counted=counted)
    _label_outer(panels, "measured" + _unit(counted), "imputed" + _unit(counted))
    return panels[0] if len(panels) == 1 else np.array(panels, dtype=object)


def _unit(counted: bool) -> str:
    """What follows the name of an axis; continuous values are in units that are not known here."""
    return " (log1p counts)" if counted else ""


def _panels(ax: Any, number: int, n_columns: int, *, size: float = 2.9) -> list[Axes]:
    """Axes of the panels: those given, or new ones in a grid."""
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != number:
            raise RequestError(
                f"{len(given)} axes", key="ax", expected=f"{number}, one for each panel"
            )
        return given
    n_rows = -(-number // n_columns)
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(size * n_columns, size * n_rows),
        layout="constrained",
        squeeze=False,
    )
    panels = list(grid.ravel())
    for spare in panels[number:]:
        figure.delaxes(spare)
    return panels[:number]


def _label_outer(panels: Sequence[Axes], x: str, y: str) -> None:
    """Label the outer axes only, where the panels stand in a grid."""
    for panel in panels:
        place = panel.get_subplotspec()
        others = [spec for other in panels if (spec := other.get_subplotspec()) is not None]
        if place is None or not any(
            other.colspan.start == place.colspan.start and other.rowspan.start > place.rowspan.start
            for other in others
        ):
            panel.set_xlabel(x)
        if place is None or len(panels) == 1 or place.is_first_col():
            panel.set_ylabel(y)


def _thinned(number: int) -> np.ndarray:
    if number <= MAX_POINTS:
        return np.arange(number)
    return np.sort(np.random.default_rng(0).choice(number, MAX_POINTS, replace=False))


def _dots(ax: Axes, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    keep = _thinned(len(x))
    alpha = float(np.clip(60 / np.sqrt(max(len(keep), 1)) / 8, 0.08, 0.6))
    size = float(np.clip(3000 / max(len(keep), 1), 2, 14))
    many = len(keep) > 2000
    ax.scatter(x[keep], y[keep], s=size, color=colour, alpha=alpha, lw=0, rasterized=many)


def _scatter(
    ax: Axes, measured: np.ndarray, predicted: np.ndarray, name: str, *, counted: bool
) -> None:
    tidy(ax)
    known = np.isfinite(measured) & np.isfinite(predicted)
    x, y = measured[known], predicted[known]
    low, top = _limits(np.concatenate([x, y]), counted=counted)
    ax.plot([low, top], [low, top], color=GREY, linewidth=1, linestyle="--", zorder=1)
    _dots(ax, x, y, BLUE)
    ax.set(xlim=(low, top), ylim=(low, top), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=counted, steps=[1, 2, 5, 10]))
    ax.set_title(name, fontsize="medium")
    r = metrics.pearson(y[:, None], x[:, None])[0]
    if np.isfinite(r):
        note(ax, f"r = {r:.2f}")


def _limits(values: np.ndarray, *, counted: bool) -> tuple[float, float]:
    """Range of both axes: from zero for counts, of the values themselves for others."""
    if counted:
        top = 1.05 * float(values.max(initial=1.0))
        return min(-0.04 * top, 1.05 * float(values.min(initial=0.0))), top
    low, top = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.05 * (top - low) or 0.5
    return low - margin, top + margin


def _background(
    background: pd.DataFrame | np.ndarray, imputed: AnnData, names: list[str]
) -> dict[str, np.ndarray]:
    """Quartiles over cells of each feature's background, log1p counts."""
    if isinstance(background, pd.DataFrame):
        values = background.reindex(columns=names).to_numpy(dtype=np.float64)
    else:
        values = table(background)[:, imputed.var_names.get_indexer(names)]
    levels = np.nanquantile(np.log1p(values), [0.25, 0.5, 0.75], axis=0)
    return dict(zip(names, levels.T, strict=True))


def _violins(
    measured: pd.DataFrame,
    predicted: pd.DataFrame,
    background: dict[str, np.ndarray] | None,
    ax: Axes | None,
    *,
    counted: bool,
) -> Axes:
    names = list(measured.columns)
    ax = axes(ax, width=1.8 + 0.85 * len(names), height=3.6)
    for place, name in enumerate(names):
        if background is not None:
            low, middle, high = background[name]
            ax.fill_between([place - 0.46, place + 0.46], low, high, color=AMBER, alpha=0.35, lw=0)
            ax.hlines(middle, place - 0.46, place + 0.46, color=AMBER, linewidth=1.4)
        known = np.isfinite(measured[name]) & np.isfinite(predicted[name])
        _half_violin(ax, measured.loc[known, name].to_numpy(), place, "low", ink(ax))
        _half_violin(ax, predicted.loc[known, name].to_numpy(), place, "high", IMPUTED)
    ax.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0, ha="right")
    if len(names) <= 4:
        plt.setp(ax.get_xticklabels(), ha="center")
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_ylabel("log1p counts" if counted else "value")
    handles = [
        Patch(color=ink(ax), alpha=0.55, lw=0, label="measured"),
        Patch(color=IMPUTED, alpha=0.55, lw=0, label="imputed"),
    ]
    if background is not None:
        handles.append(Patch(color=AMBER, alpha=0.5, lw=0, label="background"))
    ax.legend(
        handles=handles,
        frameon=False,
        fontsize="small",
        ncols=len(handles),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
    )
    return ax


def _half_violin(
    ax: Axes, values: np.ndarray, place: int, side: Literal["low", "high"], colour: str
) -> None:
    if len(values) == 0:
        return
    if np.ptp(values) == 0:
        # a density of a constant is not defined
        values = values + np.linspace(-1e-3, 1e-3, max(len(values), 2))[: len(values)]
    shift = -0.02 if side == "low" else 0.02
    if len(values) > 1:
        parts = ax.violinplot(
            values, [place + shift], widths=0.84, showextrema=False, side=side, points=200
        )
        bodies = cast("list[PolyCollection]", parts["bodies"])
        for body in bodies:
            body.set(facecolor=colour, alpha=0.55, edgecolor=colour, linewidth=0.6)
    middle = float(np.median(values))
    reach = -0.2 if side == "low" else 0.2
    ax.plot([place + shift, place + shift + reach], [middle, middle], color=colour, linewidth=1.8)


def _gates(
    measured: pd.DataFrame,
    predicted: pd.DataFrame,
    names: list[str],
    ax: Any,
    *,
    is_draw: bool,
    counted: bool,
) -> np.ndarray:
    if len(names) != 2:
        raise RequestError(f"{len(names)} features", key="features", expected="two for a gate")
    both = np.isfinite(measured.to_numpy()).all(1) & np.isfinite(predicted.to_numpy()).all(1)
    if not both.any():
        raise RequestError(
            f"no cell has both {names[0]!r} and {names[1]!r} measured and imputed",
            key="measured",
            expected="values of both features in some cells",
            remedy="name two features that were measured together, or kind='scatter'",
        )
    panels = _panels(ax, 2, 2, size=3.4)
    tables = measured[both].to_numpy(), predicted[both].to_numpy()
    gates = metrics.gate_threshold(tables[0])
    top = np.max([values.max(0) for values in tables], axis=0)
    low = np.min([values.min(0) for values in tables], axis=0)
    margin = np.maximum(0.08 * (top - low), 0.1)
    low, top = low - margin, top + margin
    captions = ("measured", "imputed (one draw a cell)" if is_draw else "imputed (mean)")
    colours = (ink(panels[0]), IMPUTED)
    for panel, values, colour, title in zip(panels, tables, colours, captions, strict=True):
        tidy(panel)
        panel.axvline(gates[0], color=PALE, linewidth=1, zorder=1)
        panel.axhline(gates[1], color=PALE, linewidth=1, zorder=1)
        _dots(panel, values[:, 0], values[:, 1], colour)
        _quadrants(panel, values, gates)
        panel.set(xlim=(low[0], top[0]), ylim=(low[1], top[1]))
        panel.set_title(title, fontsize="medium")
        panel.set_xlabel(names[0] + _unit(counted))
    panels[0].set_ylabel(names[1] + _unit(counted))
    return np.array(panels, dtype=object)


def _quadrants(ax: Axes, values: np.ndarray, gates: np.ndarray) -> None:
    """Write the share of cells into each quadrant."""
    right, upper = values[:, 0] > gates[0], values[:, 1] > gates[1]
    for is_right in (False, True):
        for is_upper in (False, True):
            share = np.mean((right == is_right) & (upper == is_upper))
            place = (0.97 if is_right else 0.03, 0.97 if is_upper else 0.03)
            note(ax, f"{share:.0%}", place=place)
