"""Colours and axes that every figure shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgba

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

# Okabe and Ito's palette, which people with any colour vision can tell apart.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
YELLOW, SKY, AMBER = "#F0E442", "#56B4E9", "#E69F00"
INK, GREY, PALE, WHITE = "#222222", "#8A8A8A", "#D9D9D9", "#FFFFFF"
CYCLE = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY)

IMPUTED = BLUE
MAX_POINTS = 20_000
"""More cells than this are drawn as a sample, so that a figure stays light."""


def axes(ax: Axes | None, *, width: float = 4.4, height: float = 3.6) -> Axes:
    """Return the axes to draw on, new ones in a figure of their own if there are none."""
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    tidy(ax)
    return ax


def tidy(ax: Axes) -> None:
    """Take away what carries no information."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(length=3, color=GREY)


def ink(ax: Axes) -> str:
    """Colour of text and of what was measured: dark on light axes, light on dark ones."""
    back = to_rgba(ax.get_facecolor())
    figure = ax.get_figure()
    if back[3] == 0.0 and figure is not None:
        back = to_rgba(figure.get_facecolor())
    brightness = float(np.dot(back[:3], (0.299, 0.587, 0.114)))
    return WHITE if back[3] > 0.0 and brightness < 0.5 else INK


def cycle(ax: Axes) -> tuple[str, ...]:
    """Colours of a few lines or categories, in turn."""
    return (*CYCLE, ink(ax))


def palette(names: Sequence[str], ax: Axes) -> dict[str, str]:
    """Colours of categories: few by a palette for any colour vision, many by a longer one."""
    few = cycle(ax)
    if len(names) <= len(few):
        return dict(zip(names, few, strict=False))
    long = [*colormaps["tab20"].colors, *colormaps["tab20b"].colors]  # type: ignore[attr-defined]
    return {name: to_hex(long[number % len(long)]) for number, name in enumerate(names)}


def note(
    ax: Axes, text: str, *, place: tuple[float, float] = (0.03, 0.97), color: str | None = None
) -> None:
    """Write a few words into a corner of the axes."""
    ax.text(
        *place,
        text,
        transform=ax.transAxes,
        ha="left" if place[0] < 0.5 else "right",
        va="top" if place[1] > 0.5 else "bottom",
        fontsize="small",
        color=ink(ax) if color is None else color,
        # lines and dots below do not run through the words
        bbox={"facecolor": ax.get_facecolor(), "alpha": 0.7, "linewidth": 0, "pad": 1},
    )
