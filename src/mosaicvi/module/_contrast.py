"""Contrastive terms: posteriors of one modality alone, against those of another."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mosaicvi._types import sent
from mosaicvi.alignment import infonce

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.data._pairs import PairBatch
    from mosaicvi.module._mosaic_module import MosaicModule
    from mosaicvi.module._told import Told


def of_pairs(
    module: MosaicModule,
    batch: MultiBatch,
    told: Told,
    temperature_range: tuple[float, float],
) -> Tensor:
    """InfoNCE over every pair of modalities, averaged over pairs of cells."""
    temperature = _temperature(module, temperature_range)
    heads = {name: module.contrastive_head(each.mean) for name, each in told.alone.items()}
    losses = []
    for left, right in combinations(heads, 2):
        both = np.flatnonzero(told.shared[left] & told.shared[right])
        if len(both) < 2:
            continue
        cells = sent(both, batch.indices.device)
        groups = _groups(batch, left)[cells]
        sides = heads[left][cells], heads[right][cells]
        losses.append(infonce(*sides, temperature=temperature, groups=groups).mean())
    if not losses:
        return torch.zeros((), device=batch.indices.device)
    return torch.stack(losses).mean()


def of_anchors(
    module: MosaicModule, pairs: Sequence[PairBatch], temperature_range: tuple[float, float]
) -> Tensor:
    """InfoNCE of anchor pairs, averaged over pairs of modalities."""
    temperature = _temperature(module, temperature_range)
    losses = []
    for drawn in pairs:
        sides = [
            module.unimodal(name, inputs).mean
            for name, inputs in zip(drawn.modalities, drawn.inputs, strict=True)
        ]
        losses.append(infonce(sides[0], sides[1], temperature=temperature).mean())
    return torch.stack(losses).mean()


def _temperature(module: MosaicModule, bounds: tuple[float, float]) -> Tensor:
    return module.log_temperature.exp().clamp(*bounds)


def _groups(batch: MultiBatch, name: str) -> Tensor:
    part = batch.modalities[name]
    groups = torch.full((batch.n_cells,), -1, dtype=torch.int64, device=batch.indices.device)
    groups[part.positions] = part.batch
    return groups
