"""The answers that the demo compares, each scored on the hidden cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi import MosaicVI
from mosaicvi.bm import methods
from mosaicvi.bm._input import Prediction
from mosaicvi.bm._score import score

if TYPE_CHECKING:
    from anndata import AnnData

    from mosaicvi.bm._imputation_task import ImputationTask

PEERS = {"knn": "k nearest neighbours", "type_means": "cell-type means *"}
"""Methods of :mod:`mosaicvi.bm` that stand beside the model, and what the table calls them."""

OURS = "MosaicVI"
N_DRAWS = 100
LAYER_DRAW = "draw"


@dataclass(frozen=True)
class Fitted:
    """The model, and its answer for the hidden cells.

    Attributes
    ----------
    model
        The fitted model.
    epochs
        How many epochs it took, and how they ended.
    rows
        Rows of the hidden cells, in the order of the scores.
    draws
        Posterior predictive draws ``(n_draws, n_hidden, n_features)``, counts.
    answer
        Imputed protein of all cells with RNA: layers of :meth:`mosaicvi.MosaicVI.impute`, and one
        draw a cell.
    """

    model: MosaicVI
    epochs: str
    rows: np.ndarray
    draws: np.ndarray
    answer: AnnData


def fit(task: ImputationTask, *, seed: int, train_kwargs: dict[str, Any]) -> Fitted:
    """Train MosaicVI on all cells, without the hidden protein, and impute it from RNA."""
    public = task.public
    mdata = public.mdata
    MosaicVI.setup_mudata(mdata, public.likelihoods, batch_key="batch")
    model = MosaicVI(mdata, seed=seed)
    result = model.train(**train_kwargs)
    with_source = np.flatnonzero(mdata.obs_names.isin(mdata.mod[public.source].obs_names))
    answer = model.impute(public.target, [public.source], indices=with_source, n_samples=N_DRAWS)
    rows = mdata.obs_names.get_indexer(list(public.query))
    draws = model.posterior_predictive_sample(
        public.target, [public.source], indices=rows, n_samples=N_DRAWS
    )
    one = model.posterior_predictive_sample(public.target, [public.source], indices=with_source)
    answer.layers[LAYER_DRAW] = one[0]
    answer.obs["held_out"] = answer.obs_names.isin(list(public.query))
    epochs = f"{result.n_epochs} epochs ({result.status})"
    return Fitted(model, epochs, rows, draws, answer)


def compare(task: ImputationTask, fitted: Fitted) -> dict[str, dict[str, Any]]:
    """Scores of every method on the same hidden cells, by its name in the table."""
    scores = {OURS: score(Prediction(fitted.draws), task.truth)}
    for name, title in PEERS.items():
        method = methods.get(name)(task.public)
        method.fit()
        scores[title] = score(method.predict()[""], task.truth)
    return scores
