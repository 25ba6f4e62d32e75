"""Ridge regression on principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import Ridge, RidgeCV

from mosaicvi.bm.methods._regression import Floats, Predictor, Regression

PENALTIES = np.logspace(-1, 5, 13)


class RidgeRegression(Regression):
    """Linear in 64 principal components; penalty by leave-one-out on the training cells."""

    name = "ridge"

    def tune(self, inputs: Floats, outcome: Floats) -> None:
        """Choose the penalty."""
        self._penalty = float(RidgeCV(PENALTIES).fit(inputs, outcome).alpha_)

    def learn(self, inputs: Floats, outcome: Floats) -> Predictor:
        """Fit."""
        predictor: Predictor = Ridge(self._penalty).fit(inputs, outcome).predict
        return predictor

    def details(self) -> dict[str, Any]:
        """Penalty chosen."""
        return {"penalty": self._penalty}
