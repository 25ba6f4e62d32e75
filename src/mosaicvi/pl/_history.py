"""How the objective and its terms went during training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from mosaicvi._errors import RequestError
from mosaicvi.pl._style import BLUE, GREY, axes, cycle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from mosaicvi.model import MosaicVI

TOTAL = "loss"
GRAPH = "graph"
"""The one term that is no mean over cells."""
SPLITS = {"train": ("-", 1.0), "validation": ("--", 1.8)}
BURN_IN = 0.1
"""The first tenth of the epochs does not set the range of the vertical axis."""


def history(model: MosaicVI, ax: Axes | None = None, terms: Sequence[str] | None = None) -> Axes:
    """Plot the objective, or some of its terms, against the epoch.

    Parameters
    ----------
    model
        Fitted model.
    ax
        Axes to draw on; None: new ones.
    terms
        Terms such as ``"reconstruction/rna"``, ``"kl"`` or ``"cross/protein"``; None: the whole
        objective. Solid lines are training cells, dashed ones validation cells.

    Returns
    -------
    The axes; nothing is saved or shown.

    Raises
    ------
    RequestError
        If the model was not trained, or a term is unknown.

    Examples
    --------
    >>> mosaicvi.pl.history(model)
    >>> mosaicvi.pl.history(model, terms=["reconstruction/protein", "cross/protein"])
    """
    recorded = model.history
    if not recorded:
        raise RequestError("the model has no history", remedy="call model.train() first")
    chosen = _terms(recorded, terms)
    ax = axes(ax, width=4.4 if len(chosen) == 1 else 6.2)
    heights, colours = [], cycle(ax)
    for number, term in enumerate(chosen):
        colour = BLUE if len(chosen) == 1 else colours[number % len(colours)]
        for split, (style, width) in SPLITS.items():
            values = _series(recorded, term, split)
            if values is None:
                continue
            label = split if len(chosen) == 1 else term if split == "train" else None
            shade = colour if split == "validation" or len(chosen) > 1 else GREY
            ax.plot(values.index + 1, values, style, color=shade, linewidth=width, label=label)
            heights.append(values.to_numpy())
    _range(ax, heights)
    result = model.fit_result
    if result is not None and result.best_epoch >= 0:
        kept = result.best_epoch + 1
        ax.axvline(kept, color=GREY, linewidth=1.2, linestyle=":", label=f"kept: epoch {kept}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel(_ylabel(chosen))
    if len(chosen) == 1:
        ax.legend(frameon=False, fontsize="small", loc="best")
    else:
        for split, (style, width) in SPLITS.items():
            ax.plot([], [], style, color=GREY, linewidth=width, label=split)
        # beside the axes, where no line can run through it
        ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def _ylabel(chosen: tuple[str, ...]) -> str:
    if len(chosen) == 1:
        unit = "edge" if chosen == (GRAPH,) else "cell"
        return f"{'objective' if chosen == (TOTAL,) else chosen[0]} (nats per {unit})"
    return "nats per cell" + (f" ({GRAPH}: per edge)" if GRAPH in chosen else "")


def _terms(recorded: Mapping[str, pd.DataFrame], terms: Sequence[str] | None) -> tuple[str, ...]:
    known = sorted({name.removesuffix(f"_{s}") for name in recorded for s in SPLITS})
    known = [name for name in known if _series(recorded, name, "train") is not None]
    if terms is None:
        return (TOTAL,)
    chosen = (terms,) if isinstance(terms, str) else tuple(terms)
    unknown = [name for name in chosen if name not in {*known, TOTAL}]
    if unknown or not chosen:
        raise RequestError(
            f"no term {unknown[0]!r}" if unknown else "no term given",
            key="terms",
            expected="some of " + ", ".join(map(repr, [TOTAL, *known])),
        )
    return chosen


def _series(recorded: Mapping[str, pd.DataFrame], term: str, split: str) -> pd.Series | None:
    name = f"{split}_{TOTAL}" if term == TOTAL else f"{term}_{split}"
    if name not in recorded:
        return None
    values = recorded[name].iloc[:, 0].astype(float)
    return values.set_axis(values.index.astype(int))


def _range(ax: Axes, heights: Sequence[np.ndarray]) -> None:
    """Let the bulk of the epochs set the range: the first ones are far above all others."""
    later = [values[int(BURN_IN * len(values)) :] for values in heights]
    values = np.concatenate([part[np.isfinite(part)] for part in later])
    if values.size and np.ptp(values) > 0:
        margin = 0.06 * np.ptp(values)
        ax.set_ylim(values.min() - margin, values.max() + margin)
