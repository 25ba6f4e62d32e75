"""The package's own model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi import likelihoods
from mosaicvi.bm._input import BATCH, TYPE, ImputationInput, Prediction
from mosaicvi.bm._load import combine
from mosaicvi.bm.methods._base import Method
from mosaicvi.metrics import batch_mixing

if TYPE_CHECKING:
    from mudata import MuData

PLACES = ("model", "train", "setup", "predict")


def sort_options(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Options by the call they belong to: ``train.max_epochs`` to train, no prefix to the model."""
    placed: dict[str, dict[str, Any]] = {place: {} for place in PLACES}
    for key, value in options.items():
        place, _, rest = key.partition(".")
        if rest and place in PLACES:
            placed[place][rest] = value
        else:
            placed["model"][key] = value
    return placed


class MosaicVIMethod(Method):
    """MosaicVI at its defaults, or with ``--option``.

    Where cells are unpaired it is given the feature graph; the variant ``as_trained`` then leaves
    out of its draws how far the two modalities disagree.

    The model trains on every cell it is given, the query's source-only cells included; with the
    option ``query_cells=False`` it trains without them and meets them at prediction.
    """

    name = "mosaicvi"
    packages = ("scvi-tools", "torch")

    def __init__(self, task: ImputationInput) -> None:
        super().__init__(task)
        options = dict(task.options)
        self._with_query = bool(options.pop("query_cells", True))
        self._options = sort_options(options)

    def _arguments(self, place: str) -> dict[str, Any]:
        """Arguments of one call: the comparison's, overruled by the options."""
        ours: dict[str, dict[str, Any]] = {
            "setup": {"modalities": self.task.likelihoods, "batch_key": BATCH},
            "model": {"graph": self.task.graph, "seed": self.task.seed},
            "predict": {"n_samples": self.task.n_draws, "seed": self.task.seed},
        }
        return {**ours.get(place, {}), **self._options[place]}

    def _training_cells(self) -> MuData:
        if self._with_query:
            return self.task.mdata
        query, mdata = set(self.task.query), self.task.mdata
        tables = {
            name: table[[cell not in query for cell in table.obs_names]].copy()
            for name, table in mdata.mod.items()
        }
        return combine(tables, mdata.obs)

    def fit(self) -> None:
        """Set up and train."""
        from mosaicvi.model import MosaicVI  # not at the top: the table of methods stays light

        mdata = self._training_cells()
        MosaicVI.setup_mudata(mdata, **self._arguments("setup"))
        self._model = MosaicVI(mdata, **self._arguments("model"))
        self._fit_result = self._model.train(**self._arguments("train"))

    def predict(self) -> dict[str, Prediction]:
        """Posterior predictive draws, count noise included."""
        answers = {"": self._draws()}
        if self._model.counterparts:
            self._model.counterparts = {}
            answers["as_trained"] = self._draws()
        return answers

    def _draws(self) -> Prediction:
        mdata = self.task.mdata
        asked = {
            "modality": self.task.target,
            "from_modalities": [name for name in mdata.mod if name != self.task.target],
            "adata": None if self._with_query else mdata,
            "indices": mdata.obs_names.get_indexer(list(self.task.query)),
            **self._arguments("predict"),
        }
        draws = self._model.posterior_predictive_sample(**asked)
        if not likelihoods.get(self.task.likelihoods[self.task.target]).is_count:
            return Prediction(np.asarray(draws, dtype=np.float32))
        # The point that users get. Baselines state theirs without noise, too.
        mean = self._model.impute(**asked, quantiles=(), scale="log1p").X
        return Prediction(np.asarray(draws, dtype=np.float32), np.asarray(mean, dtype=np.float64))

    def _mixing(self) -> float | None:
        """Mixing of batches in the latent space of the source, within types."""
        mdata, source = self._model.adata, self.task.source
        rows = mdata.obs_names.get_indexer(mdata.mod[source].obs_names)
        latent = self._model.get_latent_representation(indices=rows, from_modalities=[source])
        obs = mdata.obs.iloc[rows]
        mixing = batch_mixing(latent, obs[BATCH].astype(str), obs[TYPE].astype(str))
        return mixing if np.isfinite(mixing) else None

    def details(self) -> dict[str, Any]:
        """Epochs trained, on which cells, ELBO of the validation cells, and mixing of batches."""
        result = self._fit_result
        held_out = self._model.validation_indices
        return {
            "elbo": self._model.get_elbo(indices=held_out) if len(held_out) else None,
            "batch_mixing": self._mixing(),
            "epochs": result.n_epochs,
            "best_epoch": result.best_epoch,
            "status": result.status,
            "query_cells_in_training": self._with_query,
        }


class PairedMosaicVI(MosaicVIMethod):
    """MosaicVI as a ceiling of unpaired comparisons: the cells with the target have the source too.

    So both see the same cells and the same values of the target; pairs take the place of the graph.
    """

    name = "mosaicvi_paired"
