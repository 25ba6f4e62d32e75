"""Records as a table of plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi.metrics import paired_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

Record = dict[str, Any]
COLUMNS = {
    "CRPS": ("scores", "crps_log1p", "mean"),
    "RMSE": ("scores", "rmse_log1p", "pooled"),
    "RMSE type": ("scores", "rmse_log1p", "within_type"),
    "Pearson": ("scores", "pearson", "mean"),
    "in type": ("scores", "pearson", "within_type"),
    "Spearman": ("scores", "spearman", "mean"),
    "gates": ("scores", "gate_precision", "mean"),
    "CRPS cnt": ("scores", "crps_counts", "mean"),
    "miscov": ("scores", "miscoverage", "mean"),
    "cov80": ("scores", "coverage_80%", "mean"),
    "width80": ("scores", "width_80%", "mean"),
    "ELBO": ("details", "elbo"),
    "mixing": ("details", "batch_mixing"),
    "fit s": ("seconds", "fit"),
    "pred s": ("seconds", "predict"),
    "MiB": ("peak_memory_mib",),
}
DIFFERENCES = ("CRPS", "RMSE", "Pearson", "in type")


def _value(record: Record, path: Sequence[str]) -> float:
    found: Any = record
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return float("nan") if found is None else float(found)


def _text(column: str, value: float) -> str:
    if not np.isfinite(value):
        return "-"
    if column in ("fit s", "pred s", "CRPS cnt", "ELBO"):
        return f"{value:.1f}"
    return f"{value:.0f}" if column == "MiB" else f"{value:.3f}"


def _layout(rows: list[list[str]]) -> str:
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
    """Means over seeds, best CRPS first, and differences from a method, paired by seed.

    Parameters
    ----------
    records
        Of one comparison.
    reference
        Method whose differences from the others are shown; default: ``mosaicvi`` where it is
        among them, else the one with the best CRPS.

    Returns
    -------
    Text with line ends. ELBO (nats a cell, of the validation cells, at weight one) and mixing of
    batches (1: as expected by chance) are there for methods that have them. Differences carry a
    95 % bootstrap interval over the shared seeds, an asterisk where it excludes zero, and none
    where fewer than three seeds are shared.
    """
    grouped = _by_method(records)
    if not grouped:
        return "no records\n"

    def mean(method: str, column: str) -> float:
        return float(np.mean([_value(r, COLUMNS[column]) for r in grouped[method].values()]))

    order = sorted(grouped, key=lambda method: mean(method, "CRPS"))
    means = {(method, column): mean(method, column) for method in order for column in COLUMNS}
    shown = [c for c in COLUMNS if any(np.isfinite(means[method, c]) for method in order)]
    rows = [["method", "seeds", *shown]]
    rows += [
        [method, str(len(grouped[method])), *(_text(c, means[method, c]) for c in shown)]
        for method in order
    ]
    if reference is None:
        reference = "mosaicvi" if "mosaicvi" in grouped else order[0]
    return _layout(rows) + "\n" + _differences(grouped, order, reference)


def _differences(grouped: dict[str, dict[int, Record]], order: list[str], reference: str) -> str:
    rows = [[f"{reference} minus", "seeds", *DIFFERENCES]]
    for method in order:
        seeds = sorted(set(grouped[reference]) & set(grouped[method]))
        if method == reference or not seeds:
            continue
        cells = []
        for column in DIFFERENCES:
            ours, theirs = (
                [_value(grouped[name][seed], COLUMNS[column]) for seed in seeds]
                for name in (reference, method)
            )
            found = paired_difference(ours, theirs)
            text = f"{found.mean:+.3f}"
            if len(seeds) >= 3:
                mark = "*" if found.excludes_zero else ""
                text += f" [{found.low:+.3f}, {found.high:+.3f}]{mark}"
            cells.append(text)
        rows.append([method, str(len(seeds)), *cells])
    return "\n" + _layout(rows) + "\n" if len(rows) > 1 else ""
