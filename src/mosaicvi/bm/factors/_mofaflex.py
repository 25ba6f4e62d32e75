"""MOFA-FLEX, with its preset for MOFA."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from mosaicvi.bm._factor_input import FactorAnswer, FactorInput
from mosaicvi.bm._method import BaseMethod
from mosaicvi.bm._worker import peak_memory
from mosaicvi.bm.factors._values import linear_answer, real_mudata, real_values


class MofaFlex(BaseMethod[FactorInput, FactorAnswer]):
    """``mofaflex.MOFAFLEX`` with ``presets.MOFA``: normal likelihoods, horseshoe weights.

    Counts as log1p of shares, cells without a modality as such. Options go to its
    ``TrainingOptions``.
    """

    name = "mofaflex"
    packages = ("mofaflex",)

    def fit(self) -> None:
        """Fit on real values."""
        import mofaflex
        import torch

        logging.getLogger("mofaflex").setLevel(logging.ERROR)
        mdata = real_mudata(self.task, np.float32)
        model, training = mofaflex.presets.MOFA
        model.n_factors = self.task.n_factors
        training.seed, training.device = self.task.seed, torch.device("cpu")
        for key, value in self.task.options.items():
            setattr(training, key, value)
        self._model = mofaflex.MOFAFLEX(
            mdata, mofaflex.DataOptions(plot_data_overview=False), model, training
        )
        self._peak = peak_memory()

    def predict(self) -> dict[str, FactorAnswer]:
        """Factors that act somewhere; predictions are those of all factors."""
        model, source = self._model, self.task.mdata
        (group,) = model.group_names
        factors = model.get_factors()[group].loc[source.obs_names].to_numpy(dtype=np.float64)
        weights, shares = {}, []
        for name, part in source.mod.items():
            table = model.get_weights()[name].T
            values = real_values(self.task, name)
            kept = part.var_names.isin(table.index)  # it drops constant features
            # The model sees a view divided by the standard deviation of all its values.
            scale = float(np.sqrt(values[:, kept].var(0).mean()))
            weights[name] = scale * table.reindex(part.var_names).fillna(0.0).to_numpy()
            own = factors[source.obs_names.get_indexer(part.obs_names)]
            shares.append(own.var(0) * (weights[name] ** 2).sum(0) / values.var(0).sum())
        return {"": linear_answer(self.task, factors, weights, np.stack(shares, axis=1))}

    def details(self) -> dict[str, Any]:
        """Epochs, and the largest memory of the fit."""
        return {"epochs": len(self._model.training_loss), "fit_peak_mib": self._peak}
