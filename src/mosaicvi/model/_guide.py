"""What training is told of the alignment: anchor pairs, and how to balance kinds of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi.alignment import CellPairs, balancing_weights, group_cells, unit
from mosaicvi.data._pairs import AlignmentGuide, PairSampler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.alignment import Anchors
    from mosaicvi.data._mosaic_data import MosaicData
    from mosaicvi.model._cells import PreparedData
    from mosaicvi.module._mosaic_module import MosaicModule


def guide(
    prepared: PreparedData,
    module: MosaicModule,
    anchors: Anchors,
    training: np.ndarray,
    n_pairs: int,
    *,
    seed: int,
) -> AlignmentGuide:
    """Guide of a fit.

    Parameters
    ----------
    prepared
        Registered data and encoder inputs, whose last columns are shared between modalities.
    module
        The network.
    anchors
        Pairs of cells, as rows of the modalities.
    training
        Training cells, rows of the MuData.
    n_pairs
        Pairs of each two modalities that are drawn a step.
    seed
        Seed of the draws and of the groups of cells.
    """
    data, inputs = prepared.data, prepared.dataset.encoder_inputs
    pairs = PairSampler(among(data, anchors.pairs, training), inputs, n_pairs=n_pairs, seed=seed)
    shared = [
        unit(inputs[name][:, inputs[name].shape[1] - module.aligned[name].n_directions :])
        for name in data.modalities
    ]
    weights = balancing_weights(group_cells(shared, seed=seed))
    balance = {}
    for (name, modality), weight in zip(data.modalities.items(), weights, strict=True):
        balance[name] = np.zeros(data.n_cells, dtype=np.float32)
        balance[name][modality.cells] = weight
    return AlignmentGuide(pairs, balance)


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
