"""Linked features smoothed over each modality's own neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from sklearn.neighbors import NearestNeighbors

from mosaicvi.bm.aligners._features import linked_features, representation, without_technical
from mosaicvi.bm.aligners._linked import LinkedFeatures

if TYPE_CHECKING:
    from mosaicvi.bm._alignment_input import Floats

N_NEIGHBOURS = 30
DENSE = ("nb_mixture",)
"""Likelihoods of modalities that are not smoothed: an antibody has enough counts in each cell."""


def smooth(values: Floats, representation: Floats, n_neighbours: int) -> Floats:
    """Mean over each cell's nearest cells, itself included, ``(n_cells, n_features)``."""
    n_cells = len(values)
    k = min(n_neighbours, n_cells)
    search = NearestNeighbors(n_neighbors=k).fit(representation)
    nearest = search.kneighbors(representation, return_distance=False)
    ends = np.arange(0, n_cells * k + 1, k)
    weights = sp.csr_matrix((np.full(n_cells * k, 1.0 / k), nearest.ravel(), ends))
    return np.asarray(sp.csr_matrix(weights, shape=(n_cells, n_cells)) @ values)


class SmoothedFeatures(LinkedFeatures):
    """Linked features, each cell's averaged over its 30 neighbours in its own modality.

    Batch and log depth are regressed out of the components in which neighbours are searched, and
    out of the smoothed features. The strong baseline: what the graph says, without a model.
    """

    name = "smoothed"

    def fit(self) -> None:
        """Smooth within each modality."""
        task = self.task
        self._n_neighbours = int(task.options.get("n_neighbours", N_NEIGHBOURS))
        self._features = {}
        for name, values in linked_features(task).items():
            if task.likelihoods[name] not in DENSE:
                own = without_technical(task, name, representation(task, name))
                smoothed = smooth(values, own, self._n_neighbours)
            else:
                smoothed = values
            self._features[name] = without_technical(task, name, smoothed)

    def details(self) -> dict[str, Any]:
        """Neighbours, and how many features are linked."""
        n_features = next(iter(self._features.values())).shape[1]
        return {"n_neighbours": self._n_neighbours, "n_linked": n_features}
