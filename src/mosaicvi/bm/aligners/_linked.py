"""Naive linked features."""

from __future__ import annotations

from mosaicvi.bm._alignment_input import Embedding
from mosaicvi.bm.aligners._base import Aligner
from mosaicvi.bm.aligners._features import linked_features, shared_components

N_NARROW = 15
N_WIDE = 128


class LinkedFeatures(Aligner):
    """Components of the linked features of both modalities, each standardised on its own.

    The answer keeps 15 components, the variant ``wide`` 128: on sparse data few are better, with
    few clean features all of them.
    """

    name = "linked"

    def fit(self) -> None:
        """Bring both modalities onto the linked features."""
        self._features = linked_features(self.task)

    def predict(self) -> dict[str, Embedding]:
        """Shared components."""
        return {
            "": Embedding(shared_components(self._features, N_NARROW)),
            "wide": Embedding(shared_components(self._features, N_WIDE)),
        }
