"""A feature graph of which some edges are wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np

from mosaicvi import metrics
from mosaicvi.bm._alignment_input import EDGES
from mosaicvi.bm.controls._base import Control
from mosaicvi.graph import FeatureGraph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mosaicvi.bm._alignment import AlignmentTask
    from mosaicvi.bm._alignment_input import Embedding
    from mosaicvi.bm._alignment_score import AlignmentTruth, Scores

ENDS = ["source_modality", "source", "target_modality", "target"]


@dataclass(frozen=True)
class Rewired(Control):
    """A share of the edges exchange their second ends, so every feature keeps its degree.

    An edge that comes to lie on a true one counts as true, and of two that come to lie on each
    other one is left.

    Parameters
    ----------
    share
        Share of the edges, from 0 to 1.
    """

    share: float

    name = "rewired"
    usage = "rewired:SHARE"

    @property
    def text(self) -> str:
        """Such as ``rewired:0.3``."""
        return f"{self.name}:{self.share:g}"

    @classmethod
    def parse(cls, argument: str) -> Self:
        """Read the share."""
        try:
            found = cls(float(argument))
        except ValueError as error:
            raise cls.refuse(argument) from error
        if not 0.0 <= found.share <= 1.0:
            raise cls.refuse(argument)
        return found

    def apply(self, task: AlignmentTask, rng: np.random.Generator) -> AlignmentTask:
        """Rewire the graph, and ask for the confidence of its edges."""
        before = task.public.graph
        edges = before.to_pandas()
        true = set(edges[ENDS].itertuples(index=False, name=None))
        chosen = rng.permutation(len(edges))[: round(self.share * len(edges))]
        target = edges["target"].to_numpy().copy()
        target[chosen] = target[np.roll(chosen, 1)]
        edges = edges.assign(target=target).drop_duplicates(ENDS)
        features = {name: before.names(name) for name in before.modalities}
        graph = FeatureGraph.from_pandas(edges, features)
        found = graph.to_pandas()[ENDS].itertuples(index=False, name=None)
        right = np.array([edge in true for edge in found])
        changed = task.with_public(graph=graph, wanted=(EDGES,))
        return replace(changed, also=partial(edge_scores, right=right))


def edge_scores(answer: Embedding, truth: AlignmentTruth, *, right: NDArray[np.bool_]) -> Scores:
    """How well confidence tells true from rewired edges, of a method that has one.

    Parameters
    ----------
    answer
        The answer of a method.
    truth
        Not needed.
    right
        Whether each edge of the graph is a true one, ``(n_edges,)``.
    """
    found: dict[str, float | int | None] = {"n_true": int(right.sum()), "n_wrong": int(sum(~right))}
    confidence = answer.wanted.get(EDGES)
    if confidence is not None and right.any() and not right.all():
        found["auc"] = metrics.auc(confidence, right)
        found["mean_true"] = float(confidence[right].mean())
        found["mean_wrong"] = float(confidence[~right].mean())
    return {"edges": found}
