"""An ensemble of multilayer perceptrons on principal components."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from mosaicvi.bm.methods._regression import Floats, Predictor, Regression

N_NETWORKS = 5
HIDDEN = (128, 128)


class PerceptronEnsemble(Regression):
    """Mean of five perceptrons (two layers of 128) on 64 principal components.

    Adam, early stopping on a tenth of the training cells, drawn anew for each network. Inputs share
    one scale, the standard deviation of the first component, so that noise components stay small;
    outcomes are standardised a feature, so that each counts alike.
    """

    name = "mlp"

    def learn(self, inputs: Floats, outcome: Floats) -> Predictor:
        """Train five networks."""
        unit = float(inputs.std(axis=0).max())
        centre, spread = outcome.mean(axis=0), np.maximum(outcome.std(axis=0), 1e-6)
        networks = []
        for number in range(N_NETWORKS):
            network = MLPRegressor(
                hidden_layer_sizes=HIDDEN,
                early_stopping=True,
                n_iter_no_change=10,
                max_iter=300,
                alpha=1e-3,
                random_state=N_NETWORKS * self.task.seed + number,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                networks.append(network.fit(inputs / unit, (outcome - centre) / spread))
        self._epochs = [int(network.n_iter_) for network in networks]

        def predictor(cells: Floats) -> Floats:
            outputs = [np.asarray(n.predict(cells / unit)) for n in networks]
            return np.asarray(centre + spread * np.mean(outputs, axis=0).reshape(-1, centre.size))

        return predictor

    def details(self) -> dict[str, Any]:
        """Epochs of the final networks."""
        return {"epochs": self._epochs}
