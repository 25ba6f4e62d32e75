"""Regression of log1p target on source, with the one predictive distribution that all share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from mosaicvi.bm._input import Prediction
from mosaicvi.bm.methods._base import Method
from mosaicvi.bm.methods._features import Components

Floats = NDArray[np.float64]
Predictor = Callable[[Floats], Floats]
N_FOLDS = 5


class Regression(Method):
    """A point prediction of log1p, made a distribution by its own out-of-fold residuals.

    The training cells are predicted in five folds by a fit that has not seen them. A draw for a
    query cell is its prediction plus the residual of a training cell chosen at random (one cell for
    all features of a draw), cut off at 0. Every baseline has this distribution and no other, so
    that differences in CRPS and coverage are differences of the regressions.
    """

    packages: ClassVar[tuple[str, ...]] = ("scikit-learn",)

    def inputs(self, cells: tuple[str, ...]) -> Floats:
        """Regressors of some cells, ``(n_cells, n_inputs)``: 64 principal components."""
        return self._components.transform(self.task.counts(self.task.source, cells))

    def tune(self, inputs: Floats, outcome: Floats) -> None:
        """Choose settings on the training cells, once, before the folds."""

    @abstractmethod
    def learn(self, inputs: Floats, outcome: Floats) -> Predictor:
        """Fit ``outcome (n_cells, n_features)`` on ``inputs`` and return the prediction."""

    def fit(self) -> None:
        """Fit to all paired training cells, and to four fifths of them five times."""
        cells = self.task.paired
        self._components = Components.fit(self.task.counts(self.task.source, cells))
        inputs, outcome = self.inputs(cells), self.task.target_log1p(cells)
        self.tune(inputs, outcome)
        self._residuals = np.empty_like(outcome)
        folds = KFold(N_FOLDS, shuffle=True, random_state=self.task.seed)
        for seen, held_out in folds.split(inputs):
            predictor = self.learn(inputs[seen], outcome[seen])
            self._residuals[held_out] = outcome[held_out] - predictor(inputs[held_out])
        self._predictor = self.learn(inputs, outcome)

    def predict(self) -> dict[str, Prediction]:
        """Point prediction plus residuals."""
        mean = self._predictor(self.inputs(self.task.query))
        rng = np.random.default_rng(self.task.seed)
        shape = (self.task.n_draws, mean.shape[0], mean.shape[1])
        draws = np.empty(shape, dtype=np.float32)
        for number in range(self.task.n_draws):
            chosen = rng.integers(self._residuals.shape[0], size=mean.shape[0])
            draws[number] = np.expm1(np.maximum(mean + self._residuals[chosen], 0.0))
        return {"": Prediction(draws, mean)}
