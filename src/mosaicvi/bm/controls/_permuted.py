"""Given pairs that are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from mosaicvi import metrics
from mosaicvi._errors import RequestError
from mosaicvi.bm._alignment_score import BATCH, DEPTH, PAIR, SCORED
from mosaicvi.bm.controls._base import Control
from mosaicvi.graph import FeatureGraph

if TYPE_CHECKING:
    from mosaicvi.bm._alignment import AlignmentTask

GRAPH = "graph"


@dataclass(frozen=True)
class Permuted(Control):
    """The given pairs permuted within batch and quintile of depth of the first modality.

    Without the graph nothing is left to align by, so the score within the same strata must be that
    of chance. With it, the difference from no pairs is the harm that wrong pairs do.

    Parameters
    ----------
    with_graph
        Whether methods have the feature graph.
    """

    with_graph: bool = False

    name = "permuted"
    usage = "permuted, or permuted:graph"
    needs_pairs = True

    @property
    def text(self) -> str:
        """``permuted`` or ``permuted:graph``."""
        return f"{self.name}:{GRAPH}" if self.with_graph else self.name

    @classmethod
    def parse(cls, argument: str) -> Self:
        """Read whether there is a graph."""
        if argument not in ("", GRAPH):
            raise cls.refuse(argument)
        return cls(argument == GRAPH)

    def apply(self, task: AlignmentTask, rng: np.random.Generator) -> AlignmentTask:
        """Give the second modality's paired cells the names of others of their stratum."""
        if not task.public.n_pairs:
            raise RequestError("no pairs are given", key="pairs", expected="a share above 0")
        first, second = task.public.modalities
        cells = dict(task.truth.cells)
        given = [self._given(cells[name]) for name in (first, second)]
        stratum = metrics.depth_strata(given[0][DEPTH], given[0][BATCH].astype(str))
        names = given[0].index.to_numpy().copy()
        for group in np.unique(stratum):
            order = rng.permutation(np.flatnonzero(stratum == group))
            names[order] = names[np.roll(order, 1)]  # nobody keeps its own, unless it is alone
        renamed = dict(zip(given[1].index, names, strict=True))
        index = pd.Index([renamed.get(name, name) for name in cells[second].index])
        cells[second] = cells[second].set_axis(index)
        tables = {name: task.public.mdata.mod[name].copy() for name in (first, second)}
        tables[second].obs_names = index
        found = task.with_cells(tables, cells)
        if self.with_graph:
            return found
        features = {name: table.var_names for name, table in tables.items()}
        return found.with_public(graph=FeatureGraph(features))

    @staticmethod
    def _given(cells: pd.DataFrame) -> pd.DataFrame:
        """Cells of the given pairs, in the order of pairs."""
        return cells[(cells[PAIR] >= 0) & ~cells[SCORED]].sort_values(PAIR)
