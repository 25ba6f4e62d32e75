"""FactorVI on the factor comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from mosaicvi.bm._factor_input import FactorAnswer, FactorInput
from mosaicvi.bm._method import BaseMethod


class FactorVIMethod(BaseMethod[FactorInput, FactorAnswer]):
    """Our model; options ``train.KEY`` go to its training, others to its constructor."""

    name = "factorvi"
    packages = ("mosaicvi", "pyro-ppl", "torch")

    def fit(self) -> None:
        """Set up and train."""
        from mosaicvi.factor import FactorVI  # not at the top: the table of methods stays light

        options: dict[str, Any] = {"n_factors": self.task.n_factors, "seed": self.task.seed}
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        training: dict[str, Any] = {"accelerator": "cpu", **quiet}
        for key, value in self.task.options.items():
            (training if key.startswith("train.") else options)[key.removeprefix("train.")] = value
        FactorVI.setup_mudata(self.task.mdata, self.task.likelihoods)
        self._model = FactorVI(self.task.mdata, **options)
        self._result = self._model.train(**training)

    def predict(self) -> dict[str, FactorAnswer]:
        """Factors that are left, and where they act."""
        activity = self._model.get_activity()[list(self.task.mdata.mod)].to_numpy()
        factors = np.asarray(self._model.get_latent_representation(), dtype=np.float64)
        return {"": FactorAnswer(factors, activity)}

    def details(self) -> dict[str, Any]:
        """Epochs."""
        return {"epochs": self._result.n_epochs, "status": self._result.status}
