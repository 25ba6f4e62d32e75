"""k nearest neighbours on principal components."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import KNeighborsRegressor, NearestNeighbors

from mosaicvi.bm._input import Prediction
from mosaicvi.bm.methods._regression import Floats, Predictor, Regression

N_NEIGHBOURS = 30
N_COMPONENTS = 30


class NearestNeighbours(Regression):
    """Mean log1p of the 30 nearest training cells (Euclidean, first 30 principal components).

    Unlike the other regressions it cannot weigh components down, and with all 64 it is worse.

    The variant ``values`` states the same mean, and draws what one of these cells shows: of counts
    that are mostly zero this is a far better distribution than a residual.
    """

    name = "knn"

    def learn(self, inputs: Floats, outcome: Floats) -> Predictor:
        """Store the training cells."""
        model = KNeighborsRegressor(min(N_NEIGHBOURS, inputs.shape[0]))
        model.fit(inputs[:, :N_COMPONENTS], outcome)

        def predictor(cells: Floats) -> Floats:
            neighbours: Floats = model.predict(cells[:, :N_COMPONENTS])
            return neighbours

        return predictor

    def predict(self) -> dict[str, Prediction]:
        """Point prediction plus residuals, and values of neighbours as a variant."""
        answers = super().predict()
        shown = self.inputs(self.task.paired)[:, :N_COMPONENTS]
        asked = self.inputs(self.task.query)[:, :N_COMPONENTS]
        search = NearestNeighbors(n_neighbors=min(N_NEIGHBOURS, len(shown))).fit(shown)
        places = search.kneighbors(asked, return_distance=False)
        values = np.expm1(self.task.target_log1p(self.task.paired)).astype(np.float32)
        rng = np.random.default_rng(self.task.seed)
        cells = np.arange(len(places))
        chosen = rng.integers(places.shape[1], size=(self.task.n_draws, len(places)))
        draws = values[places[cells, chosen]]
        return answers | {"values": Prediction(draws, answers[""].log1p_mean)}
