"""Records as a table of plain text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi.bm._records import Record, distinct, place
from mosaicvi.metrics import paired_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMES = {
    "fit s": ("seconds", "fit"),
    "pred s": ("seconds", "predict"),
    "MiB": ("peak_memory_mib",),
}


@dataclass(frozen=True)
class Layout:
    """Columns of the table of a comparison.

    Parameters
    ----------
    columns
        Heading -> where the value is in a record. Columns without a value are not printed.
    order
        Columns to sort by: the first that has values; a minus before the name: largest first.
        Empty: rows stay in the order of the records.
    differences
        Columns of the table of differences.
    coarse
        Columns printed with one digit behind the point, besides seconds.
    by_setting
        Whether each setting has a table of its own; else a row.
    """

    columns: dict[str, tuple[str, ...]]
    order: tuple[str, ...]
    differences: tuple[str, ...]
    coarse: tuple[str, ...] = ()
    by_setting: bool = True


SPEED_PARTS = ("load", "project", "encode", "decode", "likelihood")
FACTOR_MODALITIES = ("rna", "protein", "atac", "expression")
"""Hidden modalities that have a column of their own."""

LAYOUTS = {
    "imputation": Layout(
        {
            "CRPS": ("scores", "crps_log1p", "mean"),
            "RMSE": ("scores", "rmse_log1p", "pooled"),
            "RMSE type": ("scores", "rmse_log1p", "within_type"),
            "Pearson": ("scores", "pearson", "mean"),
            "in type": ("scores", "pearson", "within_type"),
            "Spearman": ("scores", "spearman", "mean"),
            "gates": ("scores", "gate_precision", "mean"),
            "CRPS cnt": ("scores", "crps_counts", "mean"),
            "miscov": ("scores", "miscoverage", "mean"),
            "PIT": ("scores", "pit_distance", "mean"),
            "cov80": ("scores", "coverage_80%", "mean"),
            "width80": ("scores", "width_80%", "mean"),
            "ELBO": ("details", "elbo"),
            "mixing": ("details", "batch_mixing"),
            **TIMES,
        },
        order=("CRPS",),
        differences=("CRPS", "RMSE", "Pearson", "in type"),
        coarse=("CRPS cnt", "ELBO"),
    ),
    "alignment": Layout(
        {
            "FOSCTTM": ("scores", "foscttm", "overall"),
            "strata": ("scores", "foscttm", "stratified"),
            "in type": ("scores", "foscttm", "within_type"),
            "str raw": ("scores", "foscttm_as_given", "stratified"),
            "match10": ("scores", "matching", "accuracy"),
            "labels": ("scores", "label_transfer", "accuracy"),
            "balanced": ("scores", "label_transfer", "balanced"),
            "of sup": ("scores", "label_transfer", "of_supervised"),
            "at 50%": ("scores", "label_transfer", "at_50%"),
            "back": ("scores", "label_transfer_back", "accuracy"),
            "leak bat": ("scores", "leakage", "batch"),
            "leak dep": ("scores", "leakage", "depth"),
            "leak mod": ("scores", "leakage", "modality"),
            "mixing": ("scores", "mixing", "modality"),
            **TIMES,
        },
        order=("strata", "-labels", "-mixing"),
        differences=("strata", "in type", "labels", "balanced"),
    ),
    "speed": Layout(
        {
            "epoch s": ("scores", "epoch", "wall"),
            "epoch cpu": ("scores", "epoch", "cpu"),
            "ratio": ("scores", "ratio", "wall"),
            "ratio cpu": ("scores", "ratio", "cpu"),
            "step ms": ("scores", "step_ms"),
            "cells/s": ("scores", "cells_per_second"),
            "minibatch": ("details", "batch_size"),
            "build cpu": ("scores", "build", "cpu"),
            "whole s": ("scores", "whole", "wall"),
            "whole cpu": ("scores", "whole", "cpu"),
            "epochs": ("scores", "whole", "epochs"),
            "whole ratio": ("scores", "ratio", "whole"),
            **{f"{part} ms": ("scores", "part_sums", part) for part in SPEED_PARTS},
            "MiB": ("peak_memory_mib",),
            "device MiB": ("scores", "device_mib"),
        },
        order=("epoch cpu",),
        differences=(),
        coarse=(
            "step ms",
            "build cpu",
            "whole s",
            "whole cpu",
            "ratio",
            "ratio cpu",
            "whole ratio",
        ),
    ),
    "factors": Layout(
        {
            "held-out R2": ("scores", "mean_held_out"),
            "train R2": ("scores", "mean_train"),
            **{name: ("scores", "held_out", name) for name in FACTOR_MODALITIES},
            "matched": ("scores", "matched_correlation"),
            "worst": ("scores", "worst_correlation"),
            "activity": ("scores", "activity_exact"),
            "factors": ("scores", "n_factors"),
            "depth": ("scores", "depth_correlation"),
            "fit s": TIMES["fit s"],
            "fit cpu": ("seconds", "fit_cpu"),
            "fit MiB": ("details", "fit_peak_mib"),
            "MiB": TIMES["MiB"],
        },
        order=("-held-out R2", "-matched"),
        differences=("held-out R2", "matched"),
        coarse=("fit cpu",),
    ),
    "controls": Layout(
        {
            "strata": ("scores", "foscttm", "stratified"),
            "in type": ("scores", "foscttm", "within_type"),
            "labels": ("scores", "label_transfer", "accuracy"),
            "balanced": ("scores", "label_transfer", "balanced"),
            "mixing": ("scores", "mixing", "modality"),
            "orph AUC": ("scores", "orphans", "auc"),
            "abstain": ("scores", "orphans", "abstain"),
            "answered": ("scores", "orphans", "answered"),
            "right": ("scores", "orphans", "accuracy"),
            "marker": ("scores", "markers", "imputed"),
            "true": ("scores", "markers", "true"),
            "edge AUC": ("scores", "edges", "auc"),
            "few lab": ("scores", "few_labels", "accuracy"),
            "few bal": ("scores", "few_labels", "balanced"),
            **TIMES,
        },
        order=(),
        differences=(),
        by_setting=False,
    ),
}
"""By the comparison's command-line name."""

WHOLE_NUMBERS = frozenset({"MiB", "fit MiB", "device MiB", "cells/s", "minibatch", "epochs"})
"""Columns printed without digits behind the point."""

KINDS = {
    "trivial": "a row without biology: a score that it wins says nothing",
    "unaligned": "a row that had nothing to align by: its scores across modalities mean nothing",
    "ceiling": "a row that is told pairs that the others are not (alignment: those scored too)",
}
"""What a row's mark means."""


def with_ratios(records: Sequence[Record]) -> list[Record]:
    """Records of speed with times over those of ``mosaicvi`` on the same data; others as given."""
    ours = {
        (r.get("setting"), r["seed"]): r["scores"]
        for r in records
        if r.get("comparison") == "speed" and r["method"] == "mosaicvi"
    }
    found = []
    for record in records:
        base = ours.get((record.get("setting"), record["seed"]))
        if record.get("comparison") != "speed" or base is None:
            found.append(record)
            continue
        scores = record["scores"]
        ratio = {key: scores["epoch"][key] / base["epoch"][key] for key in ("wall", "cpu")}
        if scores["whole"] and base["whole"]:
            ratio["whole"] = scores["whole"]["cpu"] / base["whole"]["cpu"]
        found.append({**record, "scores": {**scores, "ratio": ratio}})
    return found


def _value(record: Record, path: Sequence[str]) -> float:
    found: Any = record
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return float("nan") if found is None else float(found)


def _text(column: str, value: float, layout: Layout) -> str:
    if not np.isfinite(value):
        return "-"
    if column in ("fit s", "pred s") or column in layout.coarse:
        return f"{value:.1f}"
    return f"{value:.0f}" if column in WHOLE_NUMBERS else f"{value:.3f}"


def _lines(rows: list[list[str]]) -> str:
    widths = [max(len(row[col]) for row in rows) for col in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if col == 0 else cell.rjust(width)
            for col, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)


def _by_method(records: Sequence[Record]) -> dict[str, dict[int, Record]]:
    grouped: dict[str, dict[int, Record]] = {}
    for record in records:
        grouped.setdefault(record["method"], {})[record["seed"]] = record
    return grouped


def comparison_table(records: Sequence[Record], *, reference: str | None = None) -> str:
    """Means over seeds, best first, and differences from a method, paired by seed.

    Best is the smallest CRPS (imputation), or the smallest FOSCTTM within strata and where there is
    none the largest accuracy of label transfer (alignment).

    Parameters
    ----------
    records
        Of one comparison or several; each comparison, data set and setting has a table of its own.
        The first of a method and seed is shown; a warning says where others differ by settings.
    reference
        Method whose differences from the others are shown; default: ``mosaicvi`` where it is
        among them, else the best one.

    Returns
    -------
    Text with line ends. Rows that are trivial or told the truth are marked so. ELBO (nats a cell,
    of the validation cells, at weight one) and mixing of batches (1: as expected by chance) are
    there for methods that have them. Differences carry a 95 % bootstrap interval over the shared
    seeds, an asterisk where it excludes zero (as it does of a true zero in .24 of the cases with
    three seeds, .15 with five), and none where fewer than three seeds are shared.
    """
    parts: dict[tuple[str, str], list[Record]] = {}
    for record in with_ratios(distinct(records)):
        comparison = record.get("comparison", "imputation")
        row = record
        if not LAYOUTS[comparison].by_setting:
            row = {**record, "method": f"{record['method']}, {record['setting']}", "setting": ""}
        parts.setdefault((comparison, place(row)), []).append(row)
    if not parts:
        return "no records\n"
    texts = []
    for (comparison, where), found in parts.items():
        heading = f"{comparison}, {where}\n" if where else ""
        layout = _with_modalities(LAYOUTS[comparison], found)
        texts.append(heading + _one_table(found, layout, reference))
    return "\n".join(texts)


def _with_modalities(layout: Layout, records: Sequence[Record]) -> Layout:
    """The layout, with a column for each hidden modality of a name that it does not know."""
    hidden = (name for record in records for name in record["scores"].get("held_out") or ())
    others = {name: ("scores", "held_out", name) for name in hidden if name not in layout.columns}
    return replace(layout, columns={**layout.columns, **others}) if others else layout


def _one_table(records: Sequence[Record], layout: Layout, reference: str | None) -> str:
    """Table of one comparison and setting."""
    grouped, columns = _by_method(records), layout.columns
    means = {
        (method, column): float(np.mean([_value(r, path) for r in found.values()]))
        for method, found in grouped.items()
        for column, path in columns.items()
    }
    shown = [c for c in columns if any(np.isfinite(means[method, c]) for method in grouped)]
    order = sorted(grouped, key=lambda method: _rank(method, means, shown, layout))
    marks = {method: _kind(grouped[method]) for method in order}
    names = {m: f"{m} ({marks[m]})" if marks[m] else m for m in order}
    rows = [["method", "seeds", *shown]]
    rows += [
        [
            names[method],
            str(len(grouped[method])),
            *(_text(c, means[method, c], layout) for c in shown),
        ]
        for method in order
    ]
    if reference is None or reference not in grouped:
        reference = "mosaicvi" if "mosaicvi" in grouped else order[0]
    text = _lines(rows) + "\n"
    text += "".join(f"({k}: {KINDS[k]})\n" for k in KINDS if k in marks.values())
    return text + _differences(grouped, order, reference, layout)


def _kind(records: dict[int, Record]) -> str:
    return str(next(iter(records.values())).get("kind", ""))


def _rank(
    method: str, means: dict[tuple[str, str], float], shown: list[str], layout: Layout
) -> tuple[bool, float]:
    """Sort key: by the first column of the layout's order that is shown; without a value last."""
    for column in layout.order:
        name = column.removeprefix("-")
        if name in shown:
            value = means[method, name]
            return not np.isfinite(value), -value if column.startswith("-") else value
    return True, 0.0


def _differences(
    grouped: dict[str, dict[int, Record]], order: list[str], reference: str, layout: Layout
) -> str:
    def values(method: str, column: str, seeds: list[int]) -> list[float]:
        return [_value(grouped[method][seed], layout.columns[column]) for seed in seeds]

    every = sorted(grouped[reference])
    held = [c for c in layout.differences if np.isfinite(values(reference, c, every)).all()]
    rows = [[f"{reference} minus", "seeds", *held]]
    for method in order:
        seeds = sorted(set(grouped[reference]) & set(grouped[method]))
        if method == reference or not seeds or not held:
            continue
        cells = []
        for column in held:
            found = paired_difference(
                values(reference, column, seeds), values(method, column, seeds)
            )
            text = f"{found.mean:+.3f}" if np.isfinite(found.mean) else "-"
            if len(seeds) >= 3 and np.isfinite(found.mean):
                mark = "*" if found.excludes_zero else ""
                text += f" [{found.low:+.3f}, {found.high:+.3f}]{mark}"
            cells.append(text)
        rows.append([method, str(len(seeds)), *cells])
    return "\n" + _lines(rows) + "\n" if len(rows) > 1 else ""
