"""Training cells that lose their pairing: what methods see, and what a ceiling is told besides."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi.bm._graphs import build_graph
from mosaicvi.bm._input import NO_TYPE, TYPE, ImputationInput
from mosaicvi.bm._load import combine
from mosaicvi.bm._tables import without

if TYPE_CHECKING:
    from collections.abc import Sequence


def halves(cells: Sequence[str], seed: int) -> tuple[frozenset[str], frozenset[str]]:
    """Two disjoint halves of some cells, drawn by the seed; of an odd number the second is larger.

    Taking different cells for the two modalities, and not the same cells under two names, leaves
    no cell whose values in both modalities could be found to agree.
    """
    order = np.random.default_rng((seed, 4)).permutation(len(cells))
    first = frozenset(cells[number] for number in order[: len(cells) // 2])
    return first, frozenset(cells) - first


def take_apart(told: ImputationInput, *, data: str) -> ImputationInput:
    """Cells without their pairing, and the feature graph in its place.

    Parameters
    ----------
    told
        What a ceiling is told: cells with source and target, and cells with the source alone.
    data
        Name of the data, which says the assembly of the package's own.

    Returns
    -------
    The same task in which the paired cells have the target alone, and no type.
    """
    names = told.source, told.target
    tables = {told.source: without(told.mdata.mod[told.source], told.paired)}
    tables[told.target] = told.mdata.mod[told.target].copy()
    mdata = combine(tables, told.mdata.obs)
    # Types of paired cells may come from the modality that is no longer theirs.
    unknown = mdata.obs_names.isin(list(told.paired))
    mdata.obs[TYPE] = np.where(unknown, NO_TYPE, mdata.obs[TYPE].astype(str))
    graph = build_graph(mdata, names, data=data)
    return replace(told, mdata=mdata, graph=graph, ceiling=False)
