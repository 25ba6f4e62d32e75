"""Principal components of all modalities side by side."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

from mosaicvi.bm._factor_input import FactorAnswer, FactorInput
from mosaicvi.bm._method import BaseMethod
from mosaicvi.bm.factors import ACTIVE
from mosaicvi.bm.factors._values import predicted, real_values

EXACT = 2000
"""Up to so many cells or features the decomposition is exact."""


class PrincipalComponents(BaseMethod[FactorInput, FactorAnswer]):
    """Centred values, each modality of the same total variance.

    Components are those of the cells that have every modality. Scores of all cells are the means
    given what they have, of the Gaussian model whose components these are (Tipping and Bishop
    1999), so that a modality that is absent counts as unknown, not as average.
    """

    name = "pca"
    packages = ("scikit-learn",)
    kind = "trivial"

    def fit(self) -> None:
        """Decompose."""
        mdata, blocks, scales = self.task.mdata, {}, {}
        present = {}
        for name, part in mdata.mod.items():
            values = real_values(self.task, name)
            values = values - values.mean(0)
            scales[name] = np.sqrt((values**2).sum(1).mean())
            blocks[name] = np.zeros((mdata.n_obs, part.n_vars))
            rows = mdata.obs_names.get_indexer(part.obs_names)
            blocks[name][rows] = values / scales[name]
            present[name] = np.isin(np.arange(mdata.n_obs), rows)
        complete = np.logical_and.reduce(list(present.values()))
        table = np.concatenate([block[complete] for block in blocks.values()], 1)
        solver = "full" if min(table.shape) <= EXACT else "randomized"
        pca = PCA(self.task.n_factors, svd_solver=solver, random_state=self.task.seed)
        pca.fit(table)
        # Spread of the components above the noise that all directions share.
        spread = np.maximum(pca.explained_variance_ - pca.noise_variance_, 1e-9)
        loadings = pca.components_ * np.sqrt(spread)[:, None]
        starts = np.cumsum([0, *(block.shape[1] for block in blocks.values())])
        scaled = {
            name: loadings[:, low:high].T
            for name, low, high in zip(blocks, starts[:-1], starts[1:], strict=True)
        }
        noise = max(float(pca.noise_variance_), 1e-9)
        pull = sum(block @ scaled[name] for name, block in blocks.items()) / noise
        codes = np.stack(list(present.values()), axis=1)
        scores = np.zeros((mdata.n_obs, self.task.n_factors))
        for pattern in np.unique(codes, axis=0):
            rows = np.flatnonzero((codes == pattern).all(1))
            precision = np.eye(self.task.n_factors)
            for name, shown in zip(blocks, pattern, strict=True):
                if shown:
                    precision += scaled[name].T @ scaled[name] / noise
            scores[rows] = np.linalg.solve(precision, pull[rows].T).T
        share = np.stack([(weights**2).sum(0) for weights in scaled.values()], axis=1)
        weights = {name: scaled[name] * scales[name] for name in scaled}
        self._answer = FactorAnswer(
            scores, share >= ACTIVE, weights, predicted(self.task, scores, weights)
        )

    def predict(self) -> dict[str, FactorAnswer]:
        """The scores, and what they predict."""
        return {"": self._answer}
