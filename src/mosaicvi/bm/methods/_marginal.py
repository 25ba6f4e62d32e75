"""The marginal distribution of the training cells."""

from __future__ import annotations

import numpy as np

from mosaicvi.bm._input import Prediction
from mosaicvi.bm.methods._base import Method


class Marginal(Method):
    """The target of training cells at random, whatever the query cell is.

    It covers as it should and knows nothing: what coverage and width must be held against.
    """

    name = "marginal"
    kind = "trivial"

    def fit(self) -> None:
        """Keep the training cells' target."""
        self._log1p = self.task.target_log1p(self.task.measured)

    def predict(self) -> dict[str, Prediction]:
        """Values of one training cell for all features of a draw."""
        rng = np.random.default_rng(self.task.seed)
        shape = self.task.n_draws, len(self.task.query)
        chosen = rng.integers(len(self._log1p), size=shape)
        mean = np.tile(self._log1p.mean(axis=0), (shape[1], 1))
        return {"": Prediction(np.expm1(self._log1p)[chosen].astype(np.float32), mean)}
