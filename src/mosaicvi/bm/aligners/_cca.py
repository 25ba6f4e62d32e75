"""Canonical correlation of the true pairs: the ceiling of what is linear."""

from __future__ import annotations

from typing import Any

import numpy as np

from mosaicvi._errors import RequestError
from mosaicvi.bm._alignment_input import Embedding, Floats
from mosaicvi.bm.aligners._base import Aligner
from mosaicvi.bm.aligners._features import representation, turned, without_technical

N_CANONICAL = 20


def canonical(left: Floats, right: Floats) -> tuple[Floats, Floats, Floats]:
    """Weights of canonical correlation analysis.

    With thin decompositions ``X = U S V'`` of both centred tables, the singular vectors of
    ``U1' U2`` are the canonical directions and its singular values the correlations (Bjorck & Golub
    1973).

    Parameters
    ----------
    left, right
        Tables of the same cells, ``(n_cells, n_features)`` each, centred.

    Returns
    -------
    Weights of both sides, ``(n_features, n_canonical)``, whose scores have variance one over the
    cells, and correlations, ``(n_canonical,)``.
    """
    (u1, s1, v1), (u2, s2, v2) = (
        np.linalg.svd(side, full_matrices=False) for side in (left, right)
    )
    a, correlation, b = np.linalg.svd(u1.T @ u2)
    scale = np.sqrt(len(left))
    kept = slice(min(N_CANONICAL, len(correlation)))
    first = v1.T @ (a / np.maximum(s1, 1e-12)[:, None])[:, kept] * scale
    second = v2.T @ (b.T / np.maximum(s2, 1e-12)[:, None])[:, kept] * scale
    return first, second, correlation[kept]


class CorrelationOfAllPairs(Aligner):
    """CCA of 50 components of each modality, trained on every true pair, those scored included.

    No method that has to find the pairs is told as much. 20 canonical variates, weighted by their
    correlations. Batch and depth are regressed out first; the variant ``with_batch`` keeps them.

    With ``--option cca_all_pairs.pairs=given`` it is trained on the pairs that every method is
    given, and so scored on others: what that many pairs can say to a linear method.
    """

    name = "cca_all_pairs"
    kind = "ceiling"

    def fit(self) -> None:
        """Fit with and without batch and depth."""
        task = self.task
        which = task.options.get("pairs", "all")
        if which not in ("all", "given"):
            raise RequestError(f"{which!r}", key="cca_all_pairs.pairs", expected="all or given")
        self._pairs = task.true_pairs
        if which == "given":
            self.kind = ""
            first, second = (task.mdata.mod[name].obs_names for name in task.modalities)
            self._pairs = tuple((cell, cell) for cell in first.intersection(second))
        if not self._pairs:
            raise RequestError(
                "the data have no true pairs", key="cca_all_pairs", expected="paired data"
            )
        raw = {name: representation(task, name) for name in task.modalities}
        clean = {name: without_technical(task, name, raw[name]) for name in task.modalities}
        self._latents, self._correlation = self._fitted(clean)
        self._with_batch, _ = self._fitted(raw)

    def _fitted(self, values: dict[str, Floats]) -> tuple[dict[str, Floats], Floats]:
        centred, paired = [], []
        for position, name in enumerate(self.task.modalities):
            cells = self.task.mdata.mod[name].obs_names
            rows = cells.get_indexer([pair[position] for pair in self._pairs])
            centred.append(values[name] - values[name][rows].mean(axis=0))
            paired.append(centred[-1][rows])
        *weights, correlation = canonical(paired[0], paired[1])
        latents = {
            name: turned(table @ weight * correlation)
            for name, table, weight in zip(self.task.modalities, centred, weights, strict=True)
        }
        return latents, correlation

    def predict(self) -> dict[str, Embedding]:
        """Canonical variates of both modalities."""
        return {"": Embedding(self._latents), "with_batch": Embedding(self._with_batch)}

    def details(self) -> dict[str, Any]:
        """Canonical correlations on the training pairs."""
        return {"canonical_correlation": [float(value) for value in self._correlation]}
