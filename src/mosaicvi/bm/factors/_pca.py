"""Principal components of all modalities side by side."""

from __future__ import annotations

import itertools

import numpy as np
from sklearn.decomposition import PCA

from mosaicvi.bm._factor_input import FactorAnswer, FactorInput
from mosaicvi.bm._method import BaseMethod
from mosaicvi.bm.factors import ACTIVE
from mosaicvi.bm.factors._values import real_values


class PrincipalComponents(BaseMethod[FactorInput, FactorAnswer]):
    """Centred values, each modality of the same total variance, zeros where one is absent."""

    name = "pca"
    packages = ("scikit-learn",)
    kind = "trivial"

    def fit(self) -> None:
        """Decompose."""
        mdata, blocks = self.task.mdata, []
        for name, part in mdata.mod.items():
            values = real_values(self.task, name)
            values = values - values.mean(0)
            block = np.zeros((mdata.n_obs, part.n_vars))
            rows = mdata.obs_names.get_indexer(part.obs_names)
            block[rows] = values / np.sqrt((values**2).sum(1).mean())
            blocks.append(block)
        pca = PCA(self.task.n_factors, svd_solver="full")
        scores = pca.fit_transform(np.concatenate(blocks, 1))
        starts = np.cumsum([0, *(block.shape[1] for block in blocks)])
        share = np.stack(
            [
                (pca.components_[:, low:high] ** 2).sum(1) * pca.explained_variance_
                for low, high in itertools.pairwise(starts)
            ],
            axis=1,
        )
        self._answer = FactorAnswer(scores, share >= ACTIVE)

    def predict(self) -> dict[str, FactorAnswer]:
        """The scores."""
        return {"": self._answer}
