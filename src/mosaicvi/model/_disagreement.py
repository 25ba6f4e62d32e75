"""How far apart two modalities place cells of one kind, where no cell has both.

A decoder of modality n has learnt from posteriors that modality n itself gave. Where no cell holds
another modality m as well, nothing has taught it how far the posterior from m is off, and intervals
across would be those of the latent state that n would have given. What anchors know of that is how
much the two posterior means of a pair differ, and for which cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mosaicvi.model._guide import among

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mosaicvi.alignment import Anchors
    from mosaicvi.model._cells import PreparedData
    from mosaicvi.module._mosaic_module import MosaicModule

Modalities = tuple[str, str]

MAX_ANCHORS = 4000
"""Anchor pairs kept of each two modalities."""

N_NEAREST = 50
"""Anchors nearest to a cell, of which each draw takes one."""


@dataclass(frozen=True)
class Disagreement:
    """What a posterior from one modality does not know of that from another.

    Attributes
    ----------
    place
        Posterior mean of the first modality's cell of each anchor pair, ``(n_anchors, n_latent)``.
    shift
        That of the second modality's cell minus ``place``, ``(n_anchors, n_latent)``.
    """

    place: np.ndarray
    shift: np.ndarray

    def draw(self, mean: Tensor, uniform: Tensor) -> Tensor:
        """Shifts of anchors near some cells, ``(n_samples, n_cells, n_latent)``, about their mean.

        The mean is left out: a shift that all anchors of a place share moves the answer, and where
        that was tried it moved it for the better in one data set and for the worse in another.

        Parameters
        ----------
        mean
            Posterior means, ``(n_cells, n_latent)``.
        uniform
            Noise on [0, 1), shape ``(n_samples, n_cells)``.
        """
        place = torch.as_tensor(self.place, device=mean.device)
        near = nearest(mean, place, N_NEAREST)
        picks = (uniform * near.shape[1]).long().clamp_max(near.shape[1] - 1)
        rows = torch.arange(len(near), device=mean.device)
        shift = torch.as_tensor(self.shift, device=mean.device)[near]
        return shift[rows, picks] - shift.mean(1)


def nearest(queries: Tensor, references: Tensor, k: int) -> Tensor:
    """The ``k`` nearest references of each query, nearest first, ``(n_queries, k)``."""
    # Not by a matrix product, whose last bits depend on how many queries are asked at a time.
    distance = torch.cdist(queries, references, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.topk(min(k, len(references)), largest=False).indices


def find_disagreements(
    prepared: PreparedData,
    module: MosaicModule,
    anchors: Anchors,
    training: np.ndarray,
    *,
    seed: int,
) -> dict[Modalities, Disagreement]:
    """Disagreement of every two modalities that no cell shares, in both directions.

    Modalities without anchors between them are compared through a third: from a pair's second cell
    on to a pair that begins near it.

    Parameters
    ----------
    prepared
        Registered data and encoder inputs.
    module
        Trained network.
    anchors
        Pairs of cells, as rows of the modalities.
    training
        Training cells, rows of the MuData.
    seed
        Seed of the anchors that are kept, and of those that are joined.
    """
    data, rng = prepared.data, np.random.default_rng(seed)
    found: dict[Modalities, Disagreement] = {}
    for (first, second), pairs in among(data, anchors.pairs, training).items():
        if not len(pairs):
            continue
        chance = pairs.weight / pairs.weight.sum()
        kept = rng.choice(len(pairs), min(len(pairs), MAX_ANCHORS), p=chance)
        left = _means(prepared, module, first, pairs.left[kept])
        right = _means(prepared, module, second, pairs.right[kept])
        found[first, second] = Disagreement(left, right - left)
        found[second, first] = Disagreement(right, left - right)
    _join(found, data.modalities, rng)
    shared = {
        both
        for both in found
        if ((data.modalities[both[0]].rows >= 0) & (data.modalities[both[1]].rows >= 0)).any()
    }
    return {both: each for both, each in found.items() if both not in shared}


@torch.no_grad()
def _means(prepared: PreparedData, module: MosaicModule, name: str, rows: np.ndarray) -> np.ndarray:
    """Posterior means of some rows of a modality from that modality alone."""
    inputs = torch.as_tensor(prepared.dataset.encoder_inputs[name][rows], device=module.device)
    return np.asarray(module.unimodal(name, inputs).mean.cpu().numpy(), dtype=np.float32)


def _join(
    found: dict[Modalities, Disagreement], names: Iterable[str], rng: np.random.Generator
) -> None:
    """Add modalities that are compared through others, the shortest ways first."""
    while True:
        longer = {
            (first, last): _through(found[first, middle], found[middle, last], rng)
            for first, middle, last in permutations(names, 3)
            if (first, last) not in found and (first, middle) in found and (middle, last) in found
        }
        if not longer:
            return
        found.update(longer)


def _through(one: Disagreement, two: Disagreement, rng: np.random.Generator) -> Disagreement:
    """One disagreement after the other."""
    arrived = torch.as_tensor(one.place + one.shift)
    near = nearest(arrived, torch.as_tensor(two.place), N_NEAREST).numpy()
    picks = near[np.arange(len(near)), rng.integers(near.shape[1], size=len(near))]
    return Disagreement(one.place, one.shift + two.shift[picks])


def draw_shifts(
    table: Mapping[Modalities, Disagreement],
    held: Mapping[str, Tensor],
    target: str,
    mean: Tensor,
    uniform: Tensor,
) -> Tensor:
    """What to add to latent draws, broadcastable to ``(n_samples, n_cells, n_latent)``.

    A cell of which any evidence shares cells with the target (or is the target) is left alone:
    training has seen how far off that evidence is. A cell with several modalities that share none
    is shifted as by the first of them.

    Parameters
    ----------
    table
        Disagreements.
    held
        Modality of the evidence to the cells that hold it, bool ``(n_cells,)``.
    target
        Modality of the answer.
    mean
        Posterior means, ``(n_cells, n_latent)``.
    uniform
        Noise on [0, 1), shape ``(n_samples, n_cells)``.
    """
    total = torch.zeros((), device=mean.device)
    done = torch.zeros(len(mean), dtype=torch.bool, device=mean.device)
    for name, present in held.items():
        if (name, target) not in table:
            done |= present
    for name, present in held.items():
        if (name, target) in table:
            shift = table[name, target].draw(mean, uniform)
            total = total + torch.where((present & ~done).unsqueeze(-1), shift, 0.0)
            done |= present
    return total
