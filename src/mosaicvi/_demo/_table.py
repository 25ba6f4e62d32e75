"""The demo's report, as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi._demo._methods import OURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from mosaicvi.bm._imputation_task import ImputationTask

COLUMNS = {
    "Pearson": ("pearson", "mean"),
    "within type": ("pearson", "within_type"),
    "RMSE": ("rmse_log1p", "mean"),
    "CRPS": ("crps_log1p", "mean"),
    "80 % interval holds": ("coverage_80%", "mean"),
}
N_SHOWN = 5


def data_lines(task: ImputationTask) -> str:
    """What the model is given, and what is hidden from it."""
    mdata, public = task.public.mdata, task.public
    source, target = (set(mdata.mod[m].obs_names) for m in (public.source, public.target))
    hidden = f"of which {len(public.query)} had their protein hidden"
    rows = [
        ("RNA and protein", len(source & target), ""),
        ("RNA only", len(source - target), hidden),
        ("protein only", len(target - source), ""),
    ]
    lines = [
        f"{mdata.n_obs:,} cells in {mdata.obs['batch'].nunique()} batches, "
        f"{mdata.mod[public.source].n_vars:,} genes, {mdata.mod[public.target].n_vars:,} proteins:"
    ]
    lines += [f"  {name:<16}{count:>6,}  {remark}".rstrip() for name, count, remark in rows]
    return "\n".join(lines) + "\n"


def score_lines(scores: Mapping[str, Mapping[str, Any]], n_hidden: int, n_features: int) -> str:
    """Scores of every method, a row each."""
    width = max(len(name) for name in scores) + 2
    title = f"Imputed: {n_features} proteins of {n_hidden} hidden cells, from their RNA alone"
    head = "".ljust(width) + "  ".join(name.rjust(len(name)) for name in COLUMNS)
    lines = [title, "-" * len(head), head]
    for method, found in scores.items():
        cells = []
        for name, (key, part) in COLUMNS.items():
            value = found[key][part]
            text = "-" if value is None else f"{value:.0%}" if "%" in name else f"{value:.3f}"
            cells.append(text.rjust(len(name)))
        lines.append(method.ljust(width) + "  ".join(cells))
    lines += [
        "-" * len(head),
        "Means over proteins, on log1p counts. Pearson: higher is better. RMSE and CRPS (the error",
        "of the whole predictive distribution): lower is better. * is told each cell's type.",
    ]
    return "\n".join(lines) + "\n"


def feature_lines(
    scores: Mapping[str, Mapping[str, Any]], features: Sequence[str], answer: AnnData
) -> str:
    """Best and worst proteins, and whether the model knew which could be imputed."""
    r = np.array([np.nan if v is None else v for v in scores[OURS]["pearson"]["per_feature"]])
    known = np.flatnonzero(np.isfinite(r))
    order = known[np.argsort(-r[known])]
    number = min(N_SHOWN, len(order) // 2)
    rows = [
        ("best", ", ".join(f"{features[i]} {r[i]:.2f}" for i in order[:number])),
        ("worst", ", ".join(f"{features[i]} {r[i]:.2f}" for i in order[::-1][:number])),
    ]
    lines = ["Pearson correlation of single proteins:"]
    lines += [f"  {name:<6}{text}" for name, text in rows]
    imputable = answer.var["imputable"].to_numpy()
    if answer.var["imputability"].notna().any():
        lines.append(
            f"MosaicVI itself calls {imputable.sum()} of {len(imputable)} proteins imputable from "
            f"RNA; on the hidden cells"
        )
        lines.append(
            f"their mean correlation is {_mean(r[imputable])}, that of the others "
            f"{_mean(r[~imputable])}."
        )
    return "\n".join(lines) + "\n"


def _mean(values: np.ndarray) -> str:
    return f"{np.nanmean(values):.2f}" if np.isfinite(values).any() else "-"
