"""Linked features smoothed over each modality's own neighbours."""

from __future__ import annotations

from typing import Any

from mosaicvi.alignment import smooth
from mosaicvi.bm.aligners._features import linked_features, representation, without_technical
from mosaicvi.bm.aligners._linked import LinkedFeatures

N_NEIGHBOURS = 30
DENSE = ("nb_mixture",)
"""Likelihoods of modalities that are not smoothed: an antibody has enough counts in each cell."""


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
