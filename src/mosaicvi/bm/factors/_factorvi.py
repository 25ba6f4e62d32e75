"""FactorVI on the factor comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from mosaicvi.bm._factor_input import FactorAnswer, FactorInput
from mosaicvi.bm._method import BaseMethod
from mosaicvi.bm._worker import peak_memory

N_DRAWS = 50
"""Draws of factors and weights that a predicted mean averages: few add noise of their own."""

STEPS = {"": None, "encoder": 0, "refined": 2}
"""Newton steps of each row's answers; None: where the model finds that they pay."""


class FactorVIMethod(BaseMethod[FactorInput, FactorAnswer]):
    """Our model; options ``train.KEY`` go to its training, others to its constructor."""

    name = "factorvi"
    packages = ("mosaicvi", "pyro-ppl", "torch")

    def fit(self) -> None:
        """Set up and train."""
        from mosaicvi.factor import FactorVI  # not at the top: the table of methods stays light

        options: dict[str, Any] = {"n_factors": self.task.n_factors, "seed": self.task.seed}
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        # Fits of one seed and another are to differ by all that a fit leaves to chance.
        training: dict[str, Any] = {"accelerator": "cpu", "seed": self.task.seed, **quiet}
        for key, value in self.task.options.items():
            (training if key.startswith("train.") else options)[key.removeprefix("train.")] = value
        FactorVI.setup_mudata(self.task.mdata, self.task.likelihoods)
        self._model = FactorVI(self.task.mdata, **options)
        self._result = self._model.train(**training)
        self._peak = peak_memory()

    def predict(self) -> dict[str, FactorAnswer]:
        """Answers as they come, without refinement (``encoder``), and with it (``refined``)."""
        given = self._model.refine
        answers = {}
        for variant, steps in STEPS.items():
            self._model.refine = given if variant == "" else steps
            answers[variant] = self._answer()
        self._model.refine = given
        return answers

    def _answer(self) -> FactorAnswer:
        """Factors that are left, where they act, and means of the wanted cells."""
        model, names = self._model, list(self.task.mdata.mod)
        return FactorAnswer(
            np.asarray(model.get_latent_representation(), dtype=np.float64),
            model.get_activity()[names].to_numpy(),
            {name: model.get_weights(name).to_numpy() for name in names},
            {name: self._means(name) for name in self.task.wanted},
        )

    def _means(self, modality: str) -> np.ndarray:
        """Expected shares of counts, or expected values, given all that a cell has."""
        table = self._model.get_normalized_expression(
            modality, indices=self.task.rows(modality), n_samples=N_DRAWS
        )
        return table.to_numpy(dtype=np.float32)

    def details(self) -> dict[str, Any]:
        """Epochs, and the largest memory of the fit."""
        result = self._result
        return {
            "epochs": result.n_epochs,
            "status": result.status,
            "fit_peak_mib": self._peak,
            "refinement_gains": dict(self._model.module_spec.gains),
        }
