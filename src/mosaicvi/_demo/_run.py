"""The demo from end to end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mosaicvi._demo._cells import choose
from mosaicvi._demo._methods import compare, fit
from mosaicvi._demo._output import write_figures, write_mudata
from mosaicvi._demo._table import data_lines, feature_lines, score_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run(
    out: Path,
    *,
    data: str = "auto",
    seed: int = 0,
    say: Callable[[str], object],
    train_kwargs: dict[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Hide protein, train, impute, compare, and write what came out.

    Parameters
    ----------
    out
        Folder to write to; made if it is not there.
    data
        ``"auto"``, ``"pbmc_mosaic"`` or ``"simulated"``.
    seed
        Chooses the hidden cells, and is the model's seed.
    say
        Called with every piece of text.
    train_kwargs
        Passed to :meth:`mosaicvi.MosaicVI.train`.

    Returns
    -------
    Scores by method.
    """
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    cells = choose(data, seed)
    task = cells.task
    say(f"Data: {cells.source}.\n{data_lines(task)}\nTraining MosaicVI\n")
    begin = time.perf_counter()
    fitted = fit(task, seed=seed, train_kwargs=train_kwargs or {})
    say(
        f"{fitted.epochs} and imputation of {fitted.answer.n_obs:,} cells took "
        f"{time.perf_counter() - begin:.0f} s\n\n"
    )
    scores = compare(task, fitted)
    say(score_lines(scores, len(task.public.query), len(task.truth.features)) + "\n")
    say(feature_lines(scores, task.truth.features, fitted.answer) + "\n")
    paths = [write_mudata(task, fitted, out), *write_figures(task, fitted, scores, out)]
    say("Written:\n" + "".join(f"  {path}\n" for path in paths))
    say(f"The demo took {time.perf_counter() - start:.0f} s.\n")
    return scores
