"""Kernel ridge regression with a Gaussian kernel on principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from sklearn.model_selection import KFold

from mosaicvi.bm.methods._regression import Floats, Predictor, Regression

BANDWIDTHS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
MAX_TUNING_CELLS = 2_000


def _kernel(left: Floats, right: Floats, bandwidth: float) -> Floats:
    return np.asarray(np.exp(-0.5 * cdist(left, right, "sqeuclidean") / bandwidth**2))


class KernelRidge(Regression):
    """``(K + penalty I)^-1`` on centred log1p, Gaussian kernel on 64 principal components.

    Bandwidth (in units of the median distance between training cells) and penalty are chosen
    together by three-fold cross-validation inside the training cells, at most 2,000 of them.
    """

    name = "kernel_ridge"

    def tune(self, inputs: Floats, outcome: Floats) -> None:
        """Choose bandwidth and penalty."""
        rng = np.random.default_rng(self.task.seed)
        chosen = rng.permutation(inputs.shape[0])[:MAX_TUNING_CELLS]
        inputs, outcome = inputs[chosen], outcome[chosen]
        distances = cdist(inputs, inputs[:500])
        self._unit = float(np.median(distances[distances > 0]))
        error = np.zeros((len(BANDWIDTHS), len(PENALTIES)))
        for seen, held_out in KFold(3).split(inputs):
            centre = outcome[seen].mean(axis=0)
            for row, bandwidth in enumerate(BANDWIDTHS):
                width = bandwidth * self._unit
                roots, vectors = np.linalg.eigh(_kernel(inputs[seen], inputs[seen], width))
                projected = vectors.T @ (outcome[seen] - centre)
                across = _kernel(inputs[held_out], inputs[seen], width) @ vectors
                for col, penalty in enumerate(PENALTIES):
                    fitted = centre + across @ (projected / (roots + penalty)[:, None])
                    error[row, col] += float(np.square(fitted - outcome[held_out]).sum())
        best = divmod(int(np.argmin(error)), len(PENALTIES))
        self._bandwidth, self._penalty = BANDWIDTHS[best[0]], PENALTIES[best[1]]

    def learn(self, inputs: Floats, outcome: Floats) -> Predictor:
        """Solve the regularised system."""
        width, centre = self._bandwidth * self._unit, outcome.mean(axis=0)
        system = _kernel(inputs, inputs, width)
        system[np.diag_indices_from(system)] += self._penalty
        weights = cho_solve(cho_factor(system, overwrite_a=True), outcome - centre)
        return lambda cells: centre + _kernel(cells, inputs, width) @ weights

    def details(self) -> dict[str, Any]:
        """Settings chosen."""
        return {"bandwidth": self._bandwidth, "unit": self._unit, "penalty": self._penalty}
