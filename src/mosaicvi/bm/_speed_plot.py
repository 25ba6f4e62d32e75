"""Records of speed as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

Record = dict[str, Any]
AXES = {
    "cells": lambda r: r["task"]["n_cells"][r["settings"]["modalities"][0]],
    "features of the first modality": lambda r: _feature(r, 0),
    "features of the second modality": lambda r: _feature(r, 1),
    "share of the first modality above zero": lambda r: round(_density(r), 4),
    "cells of a minibatch": lambda r: r["details"]["batch_size"],
    "share of cells without the second modality": lambda r: r["settings"]["missing"],
}
"""What may differ within a grid, and where a record says it."""


def _feature(record: Record, number: int) -> int:
    return int(record["task"]["n_features"][record["settings"]["modalities"][number]])


def _density(record: Record) -> float:
    return float(record["task"]["density"][record["settings"]["modalities"][0]])


def _varied(records: Sequence[Record]) -> str | None:
    """What takes most values within every method."""
    methods = {record["method"] for record in records}
    counts = {
        name: min(len({of(r) for r in records if r["method"] == method}) for method in methods)
        for name, of in AXES.items()
    }
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] > 1 else None


def draw(records: Sequence[Record], path: Path) -> None:
    """Write a PNG: processor seconds of an epoch by method and size, and parts where known."""
    from matplotlib.figure import Figure

    with_parts = [record for record in records if record["scores"]["parts"]]
    figure = Figure(figsize=(6.0 * (1 + bool(with_parts)), 4.0), layout="constrained")
    axes = figure.subplots(1, 1 + bool(with_parts), squeeze=False)[0]
    varied = _varied(records)
    _epochs(axes[0], records, varied)
    if with_parts:
        _parts(axes[1], with_parts, varied)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _epochs(axis: Axes, records: Sequence[Record], varied: str | None) -> None:
    axis.set_ylabel("processor seconds of an epoch")
    methods = list(dict.fromkeys(record["method"] for record in records))
    if varied is None:
        rows = [(f"{r['method']}\n{r['setting']}", r["scores"]["epoch"]["cpu"]) for r in records]
        axis.bar([name for name, _ in rows], [seconds for _, seconds in rows])
        axis.tick_params(axis="x", labelsize=7)
        return
    for method in methods:
        points = sorted(
            (AXES[varied](r), r["scores"]["epoch"]["cpu"]) for r in records if r["method"] == method
        )
        axis.plot(*zip(*points, strict=True), marker="o", label=method)
    _finish(axis, varied)


def _parts(axis: Axes, records: Sequence[Record], varied: str | None) -> None:
    said = "processor milliseconds of a part, one minibatch"
    names = list(dict.fromkeys(name for record in records for name in record["scores"]["parts"]))
    if varied is None:
        parts = records[0]["scores"]["parts"]
        axis.barh(list(parts), list(parts.values()))
        axis.set_xlabel(said)
        return
    axis.set_ylabel(said)
    for name in names:
        points = sorted((AXES[varied](r), r["scores"]["parts"].get(name, np.nan)) for r in records)
        axis.plot(*zip(*points, strict=True), marker="o", label=name)
    _finish(axis, varied)


def _finish(axis: Axes, varied: str) -> None:
    axis.set_xlabel(varied)
    if "share" not in varied:
        axis.set_xscale("log")
    axis.set_ylim(0, 1.05 * axis.dataLim.y1)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
