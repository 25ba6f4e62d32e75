"""Files that the demo leaves: a MuData with the answers, and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mosaicvi import _keys, pl, tl
from mosaicvi._demo._methods import LAYER_DRAW, OURS
from mosaicvi.datasets._assemble import assemble

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from matplotlib.axes import Axes

    from mosaicvi._demo._methods import Fitted
    from mosaicvi.bm._imputation_task import ImputationTask

FILE = "mosaic.h5mu"
DOTS_PER_INCH = 150
N_PANELS = 6
SEEN = 0.2
"""Figures show proteins that are seen in this share of cells: others have nothing to show."""

KNOWN_GATES = (("cd4.1", "cd8"), ("cd3", "cd20"))


def write_mudata(task: ImputationTask, fitted: Fitted, folder: Path) -> Path:
    """Write cells, latent representation and imputed protein.

    The file holds the demo's MuData, ``obsm["X_mosaicvi"]``, and a further modality
    ``protein_imputed`` of all cells with RNA, whose layers are those of
    :meth:`mosaicvi.MosaicVI.impute`.
    """
    source = task.public.mdata
    imputed = fitted.answer.copy()
    del imputed.layers[LAYER_DRAW]
    imputed.var["feature"] = imputed.var_names
    imputed.var_names = [f"imputed:{name}" for name in imputed.var_names]
    name = f"{task.public.target}_imputed"
    parts = {key: part.copy() for key, part in source.mod.items()}
    mdata = assemble({**parts, name: imputed}, source.obs)
    mdata.obs["held_out"] = mdata.obs_names.isin(list(task.public.query))
    latent = pd.DataFrame(fitted.model.get_latent_representation(), index=source.obs_names)
    mdata.obsm[_keys.OBSM_LATENT] = latent.loc[mdata.obs_names].to_numpy()
    path = folder / FILE
    mdata.write_h5mu(path)
    return path


def write_figures(
    task: ImputationTask, fitted: Fitted, scores: dict[str, Any], folder: Path
) -> list[Path]:
    """Draw every figure into a PNG."""
    from matplotlib import pyplot as plt

    target, features = task.public.target, list(task.truth.features)
    measured = pd.DataFrame(task.truth.measured, index=list(task.public.query), columns=features)
    hidden = fitted.answer[list(task.public.query)].copy()
    correlation = scores[OURS]["pearson"]["per_feature"]
    seen = (task.truth.measured > 0).mean(axis=0) >= SEEN
    chosen = _spread_of_features(_finite(correlation), seen)
    names = [features[i] for i in chosen]
    level = tl.protein_background(fitted.model, target, [task.public.source], indices=fitted.rows)
    paths = []

    def keep(drawn: Axes | np.ndarray, name: str, title: str) -> None:
        figure = np.ravel(np.asarray(drawn, dtype=object))[0].figure
        figure.suptitle(title, fontsize="medium")
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=DOTS_PER_INCH)
        plt.close(figure)
        paths.append(path)

    pair = _gate_pair(measured, [features[i] for i in np.argsort(-_finite(correlation))])
    keep(pl.history(fitted.model), "history", "Training")
    keep(
        pl.imputation(hidden, measured, names),
        "scatter",
        "Hidden cells: protein imputed from RNA, best to worst",
    )
    keep(
        pl.imputation(hidden, measured, names, kind="violin", background=level),
        "violins",
        "Hidden cells: distribution over cells, best to worst",
    )
    keep(pl.imputation(hidden, measured, pair, kind="gate"), "gate", "Hidden cells: two proteins")
    keep(pl.calibration(fitted.draws, measured), "calibration", "Hidden cells: intervals")
    return paths


def _finite(values: list[float | None]) -> np.ndarray:
    return np.array([-1.0 if value is None else value for value in values])


def _spread_of_features(correlation: np.ndarray, seen: np.ndarray) -> list[int]:
    """Features from the best imputed to the worst, evenly through the ranks."""
    order = np.argsort(-correlation)
    order = order[seen[order]] if seen.any() else order
    number = min(N_PANELS, len(order))
    return [int(order[i]) for i in np.linspace(0, len(order) - 1, number).round().astype(int)]


def _gate_pair(measured: pd.DataFrame, ranked: list[str]) -> list[str]:
    """A pair that biologists know, else the least correlated of the well imputed features."""
    by_name = {name.lower(): name for name in measured.columns}
    for pair in KNOWN_GATES:
        if all(name in by_name for name in pair):
            return [by_name[name] for name in pair]
    candidates = ranked[: max(2, min(20, len(ranked)))]
    table = np.nan_to_num(np.corrcoef(np.log1p(measured[candidates].to_numpy()).T), nan=1.0)
    first, second = np.unravel_index(int(np.argmin(table)), table.shape)
    return [candidates[int(first)], candidates[int(second)]]
