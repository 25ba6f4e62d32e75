"""What training is told of the alignment: anchor pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi.alignment import CellPairs
from mosaicvi.data._pairs import PairSampler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.alignment import Anchors
    from mosaicvi.data._mosaic_data import MosaicData
    from mosaicvi.model._cells import PreparedData


def guide(
    prepared: PreparedData,
    anchors: Anchors,
    training: np.ndarray,
    n_pairs: int,
    *,
    seed: int,
) -> PairSampler:
    """Draws anchor pairs of training cells.

    Parameters
    ----------
    prepared
        Registered data and encoder inputs.
    anchors
        Pairs of cells, as rows of the modalities.
    training
        Training cells, rows of the MuData.
    n_pairs
        Pairs of each two modalities that are drawn a step.
    seed
        Seed of the draws.
    """
    data = prepared.data
    pairs = among(data, anchors.pairs, training)
    return PairSampler(pairs, prepared.dataset.encoder_inputs, n_pairs=n_pairs, seed=seed)


def among(
    data: MosaicData, pairs: Mapping[tuple[str, str], CellPairs], cells: np.ndarray
) -> dict[tuple[str, str], CellPairs]:
    """Pairs of which both sides are some of the cells (rows of the MuData)."""
    chosen = np.zeros(data.n_cells, dtype=bool)
    chosen[cells] = True
    kept = {}
    for (first, second), found in pairs.items():
        left = chosen[data.modalities[first].cells[found.left]]
        both = left & chosen[data.modalities[second].cells[found.right]]
        kept[first, second] = CellPairs(found.left[both], found.right[both], found.weight[both])
    return kept
