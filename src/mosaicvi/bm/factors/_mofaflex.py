"""MOFA-FLEX, with its preset for MOFA, on real values or on counts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData

from mosaicvi.bm._factor_input import FactorAnswer, FactorInput
from mosaicvi.bm._load import quiet_mudata
from mosaicvi.bm._method import BaseMethod
from mosaicvi.bm._worker import peak_memory
from mosaicvi.bm.factors import ACTIVE, imported
from mosaicvi.bm.factors._values import linear_answer, real_mudata, real_values

if TYPE_CHECKING:
    from pandas import DataFrame


class MofaFlex(BaseMethod[FactorInput, FactorAnswer]):
    """``mofaflex.MOFAFLEX`` with ``presets.MOFA``: normal likelihoods, horseshoe weights.

    Counts as log1p of shares, cells without a modality as such. Options go to its ``ModelOptions``
    or ``TrainingOptions``, whichever has them.
    """

    name = "mofaflex"
    packages = ("mofaflex",)

    def fit(self) -> None:
        """Fit."""
        import torch

        mofaflex = imported("mofaflex")
        logging.getLogger("mofaflex").setLevel(logging.ERROR)
        model, training = mofaflex.presets.MOFA
        model.n_factors, model.likelihoods = self.task.n_factors, self._likelihoods()
        training.seed, training.device = self.task.seed, torch.device("cpu")
        training.save_path = False  # it would leave a file in the folder that it is run from
        for key, value in self.task.options.items():
            setattr(model if hasattr(model, key) else training, key, value)
        self._model = mofaflex.MOFAFLEX(
            self._values(), mofaflex.DataOptions(plot_data_overview=False), model, training
        )
        self._peak = peak_memory()

    def _likelihoods(self) -> dict[str, str]:
        return dict.fromkeys(self.task.mdata.mod, "Normal")

    def _values(self) -> MuData:
        return real_mudata(self.task, np.float32)

    def _factors(self) -> np.ndarray:
        """Of all cells, ``(n_cells, n_factors)``."""
        (group,) = self._model.group_names
        table = self._model.get_factors()[group].loc[self.task.mdata.obs_names]
        return np.asarray(table, dtype=np.float64)

    def _weights(self, modality: str) -> DataFrame:
        """Features by factors; it drops constant features, which have zeros here."""
        features = self.task.mdata.mod[modality].var_names
        table: DataFrame = self._model.get_weights()[modality].T
        return table.reindex(features)

    def predict(self) -> dict[str, FactorAnswer]:
        """Factors that act somewhere; predictions are those of all factors."""
        source, factors = self.task.mdata, self._factors()
        weights, shares = {}, []
        for name, part in source.mod.items():
            table, values = self._weights(name), real_values(self.task, name)
            kept = table.notna().all(axis=1).to_numpy()
            # The model sees a view divided by the standard deviation of all its values.
            scale = float(np.sqrt(values[:, kept].var(0).mean()))
            weights[name] = scale * table.fillna(0.0).to_numpy()
            own = factors[source.obs_names.get_indexer(part.obs_names)]
            shares.append(own.var(0) * (weights[name] ** 2).sum(0) / values.var(0).sum())
        return {"": linear_answer(self.task, factors, weights, np.stack(shares, axis=1))}

    def details(self) -> dict[str, Any]:
        """Epochs, and the largest memory of the fit."""
        return {"epochs": len(self._model.training_loss), "fit_peak_mib": self._peak}


class MofaFlexCounts(MofaFlex):
    """The same with counts as they are and its likelihood for them, ``NegativeBinomial``.

    A cell's mean is its mean count times what its factors and the weights make, where that is above
    zero; there is no intercept.
    """

    name = "mofaflex_counts"

    def _likelihoods(self) -> dict[str, str]:
        given = self.task.likelihoods
        return {
            name: "Normal" if given[name] == "normal" else "NegativeBinomial"
            for name in self.task.mdata.mod
        }

    def _values(self) -> MuData:
        parts = {}
        for name, part in self.task.mdata.mod.items():
            dense = part.X.toarray() if sp.issparse(part.X) else part.X
            parts[name] = AnnData(
                np.asarray(dense, np.float32), part.obs[[]].copy(), part.var[[]].copy()
            )
        with quiet_mudata():
            return MuData(parts)

    def predict(self) -> dict[str, FactorAnswer]:
        """Factors that explain something by its own measure; counts are predicted as shares."""
        factors, names = self._factors(), list(self.task.mdata.mod)
        weights = {name: self._weights(name).fillna(0.0).to_numpy() for name in names}
        (explained,) = self._model.get_r2().values()
        active = explained[names].to_numpy() >= ACTIVE
        kept = active.any(1) if active.any() else np.ones(len(active), dtype=bool)
        predictions = {
            name: np.maximum(factors[self.task.rows(name)] @ weights[name].T, 0.0)
            for name in self.task.wanted
        }
        shown = {name: table[:, kept] for name, table in weights.items()}
        return {"": FactorAnswer(factors[:, kept], active[kept], shown, predictions)}
