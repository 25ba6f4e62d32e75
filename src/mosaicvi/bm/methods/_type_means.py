"""The mean of the training cells of the same type."""

from __future__ import annotations

import numpy as np

from mosaicvi.bm._input import TYPE
from mosaicvi.bm.methods._regression import Floats, Predictor, Regression


class TypeMeans(Regression):
    """Mean log1p of the type; of all cells for a type without training cells.

    Query cells come with their type (the data's own labels where there are labels), which no other
    method is told: what correlation within types must be held against.
    """

    name = "type_means"

    def inputs(self, cells: tuple[str, ...]) -> Floats:
        """Number of the type of each cell, shape ``(n_cells, 1)``."""
        names = np.unique(self.task.mdata.obs[TYPE].to_numpy().astype(str))
        return np.searchsorted(names, self.task.labels(TYPE, cells)).astype(np.float64)[:, None]

    def learn(self, inputs: Floats, outcome: Floats) -> Predictor:
        """Average by type."""
        codes = inputs[:, 0]
        means = {code: outcome[codes == code].mean(axis=0) for code in np.unique(codes)}
        overall = outcome.mean(axis=0)
        return lambda cells: np.stack([means.get(code, overall) for code in cells[:, 0]])
