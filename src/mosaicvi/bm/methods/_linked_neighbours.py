"""Neighbours between modalities in the features that the graph links."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from mosaicvi._errors import RequestError
from mosaicvi.bm._alignment_input import AlignmentInput
from mosaicvi.bm._input import Prediction
from mosaicvi.bm.aligners._smoothed import SmoothedFeatures
from mosaicvi.bm.methods._base import Method

N_NEIGHBOURS = 30


class LinkedNeighbours(Method):
    """The target of the 30 nearest cells that have it, in the linked features of both modalities.

    Features and distances are those of the alignment comparison's ``smoothed`` (variant ``wide``):
    counts summed over linked features, sparse ones averaged over 30 neighbours in their own
    modality, batch and depth regressed out, standardised in each modality, cosine. A draw is the
    target of one of the neighbours, the point prediction their mean log1p. It needs no pairs.
    """

    name = "linked_neighbours"
    packages = ("scikit-learn",)

    def fit(self) -> None:
        """Bring both modalities onto the linked features."""
        task = self.task
        if task.graph is None:
            raise RequestError("there is no feature graph", key="methods", remedy="--unpaired")
        self._n_neighbours = int(task.options.get("n_neighbours", N_NEIGHBOURS))
        names = task.source, task.target
        given = AlignmentInput(task.mdata, names, task.graph, task.likelihoods, task.seed)
        aligner = SmoothedFeatures(given)
        aligner.fit()
        self._places = aligner.predict()["wide"].latents

    def predict(self) -> dict[str, Prediction]:
        """Targets of neighbours."""
        task = self.task
        cells = task.mdata.mod[task.source].obs_names.get_indexer(list(task.query))
        log1p = task.target_log1p(task.measured)
        search = NearestNeighbors(n_neighbors=min(self._n_neighbours, len(log1p)))
        search.fit(self._places[task.target])
        near = search.kneighbors(self._places[task.source][cells], return_distance=False)
        rng = np.random.default_rng(task.seed)
        picks = rng.integers(near.shape[1], size=(task.n_draws, len(cells)))
        chosen = near[np.arange(len(cells)), picks]
        draws = np.expm1(log1p)[chosen].astype(np.float32)
        return {"": Prediction(draws, log1p[near].mean(axis=1))}

    def details(self) -> dict[str, Any]:
        """Neighbours."""
        return {"n_neighbours": self._n_neighbours}
