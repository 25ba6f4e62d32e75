r"""Where an answer is read off if few cells or none hold both the evidence and what is asked.

A decoder of modality n has learnt from posteriors that n itself gave. Where few cells hold another
modality m as well, next to nothing has taught it how far a posterior from m is off: draws from
that are off as much, and too sure of it. So a draw for a cell is the place of a cell of n that lies
near it in the latent space: a state that the decoder knows, of which there are several wherever
alignment leaves a choice. Cell j is chosen with a probability in proportion to

.. math:: \exp(-d_j^2 / d_{(3)}^2),

where :math:`d_{(3)}` is the distance of the third nearest: a scale of the place, so that rare
cells are not outvoted by the cells around them. Where few links tie the modalities places are
known less well, and the scale is that of a cell farther away; where these links do not bear each
other out, some of the draws are of any cell of n. Where pairs alone align two modalities,
and are few, a third of the draws are counterparts and the others the cell's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mosaicvi.alignment import LEAST_PAIRS
from mosaicvi.model._ties import few_pairs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.alignment import Anchors
    from mosaicvi.data._mosaic_data import MosaicData
    from mosaicvi.model._cells import PreparedData
    from mosaicvi.module._mosaic_module import MosaicModule

Modalities = tuple[str, str]

MAX_CELLS = 4000
"""Cells of a modality that are kept."""

N_NEAREST, N_LOCAL = 200, 3
"""Nearest cells of which a draw takes one, and which of them at least sets the scale."""

WIDEST, FEWEST = 0.05, 5
"""With so few links or fewer the scale is that of this share of the cells; with more links the
share falls with the cube of their number."""

MOVED, MOVED_REACH = 0.7, 1.0
"""By how much of that scale places are moved together, and the square of the length over which
they are, per latent dimension."""

MAX_COMPARED = 1500
"""Places that are compared with their neighbours, for the directions in which they are moved."""

ANYWHERE = 0.3
"""Share of the counterparts that are any cell, where anchors are in full doubt."""

N_AVERAGED = 25
"""Draws over which an expected value is averaged where it is carried over."""

WITH_PAIRS = 1 / 3
"""Share of the draws that are counterparts where pairs alone align two modalities."""


@dataclass(frozen=True)
class Apart:
    """How an answer is carried over from a modality that shares few cells with the answer's.

    Attributes
    ----------
    share
        Share of the draws that are counterparts; the others are of the cell's own posterior.
    doubt
        How far anchors between the two are in doubt, from 0 to 1.
    spread
        Share of the cells that are nearer than the one that sets the scale, if more than
        :data:`N_LOCAL` are.
    """

    share: float = 1.0
    doubt: float = 0.0
    spread: float = 0.0


@dataclass(frozen=True)
class Counterparts:
    """Where training cells that hold a modality lie by it alone.

    Attributes
    ----------
    places
        Posterior means, ``(n_cells, n_latent)``. What their posteriors' widths would add to draws
        made intervals too wide.
    apart
        Modalities with which it shares few cells or none, to how answers are carried over.
    """

    places: np.ndarray
    apart: Mapping[str, Apart]

    @cached_property
    def directions(self) -> Tensor:
        """Where cells alike differ: what noise is multiplied with, ``(n_latent, n_latent)``.

        The symmetric root of the covariance of differences between a place and its third nearest,
        scaled so that noise is as long as before. Noise that is alike in all dimensions leaves the
        states that the decoder knows: latent spaces have dimensions in which cells hardly differ.
        """
        places = torch.as_tensor(self.places)
        some = places[:: max(math.ceil(len(places) / MAX_COMPARED), 1)]
        _, near = nearest(some, places, N_LOCAL + 1)
        apart = (some - places[near[:, -1]]).double()
        level, axes = torch.linalg.eigh(apart.T @ apart)
        if not float(level.sum()) > 0:
            return torch.eye(places.shape[1])
        level = level.clamp_min(0.0)
        root: Tensor = (axes * (level / level.mean()).sqrt()) @ axes.T
        return root.float()

    def carried_over(
        self,
        own: Tensor,
        asked: Tensor,
        held: Mapping[str, Tensor],
        uniform: Tensor,
        shared: Tensor,
    ) -> Tensor:
        """Draws, some or all of them of counterparts where all evidence is apart.

        Of evidence that shares cells with the answer, training has seen how far off it is.

        Parameters
        ----------
        own
            Draws of cells' own posteriors, ``(n_samples, n_cells, n_latent)``.
        asked
            Posterior means, ``(n_cells, n_latent)``.
        held
            Modality of the evidence to the cells that hold it, bool ``(n_cells,)``.
        uniform
            Noise on [0, 1), ``(n_samples, n_cells)``.
        shared
            Noise along :attr:`directions` that cells alike share,
            ``(n_samples, n_cells, n_latent)``.
        """
        some = torch.stack(list(held.values())).any(0)
        share, doubt, spread = torch.ones(3, len(some), device=some.device)
        for name, cells in held.items():
            if name in self.apart:
                each = self.apart[name]
                share = torch.where(cells, share.clamp_max(each.share), share)
                doubt = torch.where(cells, doubt.clamp_max(each.doubt), doubt)
                spread = torch.where(cells, spread.clamp_max(each.spread), spread)
            else:
                some = some & ~cells
        share = torch.where(some, share, 0.0)
        if not bool(some.any()):
            return own
        z = own.clone()
        within = (uniform[:, some] / share[some]).clamp_max(1.0)
        z[:, some] = self.draw(
            asked[some], within, ANYWHERE * doubt[some], spread[some], shared[:, some]
        )
        return torch.where((uniform < share).unsqueeze(-1), z, own)

    def draw(
        self, asked: Tensor, uniform: Tensor, anywhere: Tensor, spread: Tensor, shared: Tensor
    ) -> Tensor:
        """Places of cells near those that are asked about, ``(n_samples, n_asked, n_latent)``.

        Parameters
        ----------
        asked
            Posterior means of these, ``(n_asked, n_latent)``.
        uniform
            Noise on [0, 1), ``(n_samples, n_asked)``.
        anywhere
            Share of the draws that are of any cell, ``(n_asked,)``.
        spread
            Share of the cells within the scale, ``(n_asked,)``.
        shared
            What moves places of cells alike together, ``(n_samples, n_asked, n_latent)``.
        """
        places = torch.as_tensor(self.places, device=asked.device)
        squared, near = nearest(asked, places, N_NEAREST)
        n_local = (spread * len(places)).round().long().clamp_min(N_LOCAL)
        last = n_local.clamp_max(squared.shape[1]).unsqueeze(1) - 1
        local = squared.gather(1, last).clamp_min(1e-12)
        chance = torch.exp((squared[:, :1] - squared) / local).double().cumsum(1)
        # One uniform number says whether a draw is of any cell, and then of which.
        within = ((uniform - anywhere) / (1.0 - anywhere)).clamp(0.0, 1.0)
        point = (within.T.double() * chance[:, -1:]).contiguous()
        picks = torch.searchsorted(chance, point, right=True)
        cells = near.gather(1, picks.clamp_max(near.shape[1] - 1)).T
        any_cell = (uniform / anywhere.clamp_min(1e-12) * len(places)).long()
        any_cell = any_cell.clamp_max(len(places) - 1)
        moved = MOVED * (local / asked.shape[1]).sqrt() * shared
        return places[torch.where(uniform < anywhere, any_cell, cells)] + moved


def doubt_between(table: Mapping[str, Counterparts], first: str, second: str) -> float:
    """How far anchors between two modalities are in doubt, from 0 to 1."""
    how = table[first].apart.get(second) if first in table else None
    return 0.0 if how is None else how.doubt


def nearest(asked: Tensor, places: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Squared distances and numbers of the ``k`` nearest places, ascending, ``(n_asked, k)``."""
    # Not by a matrix product, whose last bits depend on how many are asked about at a time.
    distance = torch.cdist(asked, places, compute_mode="donot_use_mm_for_euclid_dist")
    found = distance.topk(min(k, len(places)), largest=False)
    return found.values.square(), found.indices


@torch.no_grad()
def find_counterparts(
    prepared: PreparedData,
    module: MosaicModule,
    anchors: Anchors | None,
    training: np.ndarray,
    *,
    seed: int,
) -> dict[str, Counterparts]:
    """Cells of every modality that shares few with some other.

    Parameters
    ----------
    prepared
        Registered data and encoder inputs.
    module
        Trained network.
    anchors
        What aligned the modalities; None: cells that hold two of them, or nothing.
    training
        Training cells, rows of the MuData.
    seed
        Seed of the cells that are kept.
    """
    data, rng = prepared.data, np.random.default_rng(seed)
    apart: dict[str, dict[str, Apart]] = {name: {} for name in data.modalities}
    for both in combinations(data.modalities, 2):
        if few_pairs(data, both) and (how := _carried(data, both, anchors)) is not None:
            for name, other in (both, both[::-1]):
                apart[name][other] = how
    found = {}
    for name, modality in data.modalities.items():
        rows = modality.rows[training]
        rows = rows[rows >= 0]
        if not apart[name] or not len(rows):
            continue
        kept = np.sort(rng.choice(rows, min(len(rows), MAX_CELLS), replace=False))
        inputs = torch.as_tensor(prepared.dataset.encoder_inputs[name][kept], device=module.device)
        places = module.unimodal(name, inputs).mean.cpu().numpy()
        found[name] = Counterparts(np.asarray(places, dtype=np.float32), apart[name])
    return found


def _carried(data: MosaicData, both: Modalities, anchors: Anchors | None) -> Apart | None:
    """How answers are carried over between two modalities that share few cells."""
    if anchors is None:
        shared = data.modalities[both[0]].present & data.modalities[both[1]].present
        return Apart(WITH_PAIRS) if int(shared.sum()) >= LEAST_PAIRS else None
    if both in anchors.pairs:
        few = [anchors.few[both]] if both in anchors.few else []
    else:  # Two that nothing ties but others are known as well as the worst of these.
        few = list(anchors.few.values())
    return Apart(
        doubt=max((each.doubt for each in few), default=0.0),
        spread=max((spread_of(each.number) for each in few), default=0.0),
    )


def spread_of(n_links: int) -> float:
    """Share of the cells within the scale of a place that so few links tell of."""
    return WIDEST * min(1.0, (FEWEST / max(n_links, 1)) ** 3)
