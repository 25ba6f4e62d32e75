"""k nearest neighbours on principal components."""

from __future__ import annotations

from sklearn.neighbors import KNeighborsRegressor

from mosaicvi.bm.methods._regression import Floats, Predictor, Regression

N_NEIGHBOURS = 30
N_COMPONENTS = 30


class NearestNeighbours(Regression):
    """Mean log1p of the 30 nearest training cells (Euclidean, first 30 principal components).

    Unlike the other regressions it cannot weigh components down, and with all 64 it is worse.
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
