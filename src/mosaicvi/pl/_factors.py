"""What the factors of a factor model explain, which features they act on, where cells lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import RequestError
from mosaicvi.factor import FactorVI
from mosaicvi.pl._style import BLUE, GREY, INK, MAX_POINTS, ORANGE, PALE, axes, ink, palette
from mosaicvi.pl._values import categories, cell_column

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LEGEND_ROWS = 18

LABEL_WIDTH = 11
"""Characters of a column's label that fit beside those of its neighbours."""


def variance_explained(model: FactorVI, ax: Axes | None = None) -> Axes:
    """Draw the deviance R2 of each factor (rows) in each modality and group (columns).

    Parameters
    ----------
    model
        Fitted model.
    ax
        Axes to draw on; None: new ones.

    Returns
    -------
    The axes; nothing is saved or shown. Numbers are per cent; the last row is what all factors
    explain together.

    Raises
    ------
    RequestError
        If the model has no factors.

    Examples
    --------
    >>> mosaicvi.pl.variance_explained(model)
    """
    _check_model(model)
    table = model.get_variance_explained()
    table = table[table["factor"] != "not additive"]
    groups = table["group"].nunique()
    table = table.assign(
        column=table["modality"] if groups == 1 else table["modality"] + "\n" + table["group"]
    )
    wide = table.pivot_table(index="factor", columns="column", values="r2", sort=False)
    wide = 100 * wide.loc[[*model.factors, "all factors"]]
    height = 1.2 + 0.26 * len(wide)
    ax = axes(ax, width=1.8 + 0.9 * wide.shape[1], height=height)
    single = wide.to_numpy()[:-1]
    top = max(float(np.nanmax(single)), 1.0) if single.size else 1.0
    ax.imshow(np.clip(wide.to_numpy(), 0, top), cmap="Blues", vmin=0, vmax=top, aspect="auto")
    for row, values in enumerate(wide.to_numpy()):
        for column, value in enumerate(values):
            dark = min(value, top) > 0.6 * top
            text = f"{value:.1f}" if abs(value) >= 0.05 else ""
            ax.text(column, row, text, ha="center", va="center", fontsize="x-small",
                    color="white" if dark else INK)  # fmt: skip
    ax.axhline(len(wide) - 1.5, color="white", linewidth=3)
    longest = max(len(line) for name in wide.columns for line in str(name).split("\n"))
    turned = 90.0 if longest > LABEL_WIDTH else 0.0
    ax.set_xticks(range(wide.shape[1]), list(wide.columns), rotation=turned)
    ax.set_yticks(range(len(wide)), list(wide.index), fontsize="small")
    ax.set_title("deviance explained (%)", fontsize="medium")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax


def weights(
    model: FactorVI,
    modality: str,
    factor: str | None = None,
    n_features: int = 20,
    ax: Axes | None = None,
) -> Axes:
    """Draw the largest weights of a factor in a modality, with two posterior standard deviations.

    Parameters
    ----------
    model
        Fitted model.
    modality
        Modality.
    factor
        Name of the factor; None: the first.
    n_features
        Features to draw, largest weights first.
    ax
        Axes to draw on; None: new ones.

    Returns
    -------
    The axes; nothing is saved or shown. Features that are more likely zero than not are hollow.

    Raises
    ------
    RequestError
        If the modality or the factor is unknown, or the model has no factors.

    Examples
    --------
    >>> mosaicvi.pl.weights(model, "rna", "factor1")
    """
    _check_model(model)
    chosen = _factor(model, factor)
    table = model.get_weights(modality, tidy=True)
    table = table[table["factor"] == chosen]
    order = np.argsort(-table["weight"].abs().to_numpy(), kind="stable")[:n_features]
    table = table.iloc[order[::-1]]
    ax = axes(ax, width=3.8, height=0.9 + 0.19 * len(table))
    places = np.arange(len(table))
    ax.axvline(0, color=PALE, linewidth=1)
    columns = [table[name].to_numpy(dtype=float) for name in ("weight", "sd", "inclusion")]
    for place, weight, sd, inclusion in zip(places, *columns, strict=True):
        colour = BLUE if weight > 0 else ORANGE
        ax.plot([weight - 2 * sd, weight + 2 * sd], [place, place], color=colour)
        filled = colour if inclusion >= 0.5 else "white"
        ax.plot(weight, place, "o", color=colour, markersize=5, markerfacecolor=filled)
    ax.set_yticks(places, list(table["feature"]), fontsize="x-small")
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel(f"weight of {chosen} in {modality}")
    return ax


def factors(
    model: FactorVI,
    first: str | None = None,
    second: str | None = None,
    color: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw cells by two factors.

    Parameters
    ----------
    model
        Fitted model with its MuData.
    first, second
        Names of the factors; None: the first two.
    color
        Categorical column that colours cells, of ``mdata.obs``, else of the modalities whose
        ``obs`` has it; cells without a value are pale. None: one colour.
    ax
        Axes to draw on; None: new ones.

    Returns
    -------
    The axes; nothing is saved or shown. More than 20,000 cells are drawn as a sample.

    Raises
    ------
    RequestError
        If a factor or the column is unknown, the column holds measurements, or the model has no
        factors.

    Examples
    --------
    >>> mosaicvi.pl.factors(model, "factor1", "factor2", color="cell_type")
    """
    _check_model(model)
    names = [_factor(model, first), _factor(model, second, place=min(1, len(model.factors) - 1))]
    table = model.get_factors()
    rows = np.arange(len(table))
    if len(rows) > MAX_POINTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_POINTS, replace=False))
    points = table.iloc[rows][names].to_numpy()
    ax = axes(ax, width=5.0 if color else 4.0)
    size = float(np.clip(6000 / len(rows), 1, 12))
    if color is None:
        ax.scatter(points[:, 0], points[:, 1], s=size, color=BLUE, linewidths=0)
    else:
        labels, known = categories(cell_column(model.adata, color, "color"))
        for label, colour in [(None, PALE), *palette(known, ax).items()]:
            own = np.array([each == label for each in labels[rows]])
            name = "none" if label is None else label
            if own.any():
                ax.scatter(
                    points[own, 0], points[own, 1], s=size, color=colour, linewidths=0, label=name
                )
        ax.legend(frameon=False, fontsize="x-small", markerscale=3, loc="upper left",
                  bbox_to_anchor=(1.0, 1.0), ncols=-(-len(known) // LEGEND_ROWS))  # fmt: skip
    ax.axhline(0, color=PALE, linewidth=0.8, zorder=0)
    ax.axvline(0, color=PALE, linewidth=0.8, zorder=0)
    ax.set_xlabel(names[0], color=ink(ax))
    ax.set_ylabel(names[1], color=ink(ax))
    ax.tick_params(colors=GREY)
    return ax


def _check_model(model: object) -> None:
    if not isinstance(model, FactorVI):
        raise RequestError(
            f"found {type(model).__name__}",
            key="model",
            expected="a fitted mosaicvi.FactorVI, which has factors",
            remedy="of a MosaicVI draw mosaicvi.pl.alignment",
        )


def _factor(model: FactorVI, name: str | None, place: int = 0) -> str:
    if name is None:
        return model.factors[place]
    if name not in model.factors:
        raise RequestError(
            f"no factor {name!r}",
            key="factor",
            expected="one of " + ", ".join(map(repr, model.factors)),
        )
    return name
