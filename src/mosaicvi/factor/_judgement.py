"""What factors add to the prediction of unseen values, and whether it is enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi.factor._reduce import free_factors, strengths
from mosaicvi.factor._unseen import unseen_nats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mosaicvi.data import MultiDataset
    from mosaicvi.factor._factor_module import FactorModule

LEAST_CELLS = 12.0
"""A factor adds, of unseen values, as much as all factors explain of so many training cells, in
some modality: those that add less are seldom those of other cells (decisions, "FactorVI: factors
that come back")."""

SHARES = 0.003, 0.0125
"""Bounds of that as a share of what all factors explain. The first is asked of named factors."""

ENOUGH_NATS, ENOUGH_IN_ALL = 1.0, 4500.0
"""Or it adds so many nats a cell, and so many in all: where a few factors explain very much, little
beside them is not little."""

N_ERRORS = 2.0
"""And that many standard errors."""

N_JUDGED = 6
"""Factors that are judged: those that are weakest by a quadratic estimate."""


@dataclass(frozen=True)
class Judgement:
    """What factors add to the prediction of unseen values.

    Attributes
    ----------
    factors
        Their numbers, weakest first.
    share
        What each adds, where it adds most, as a share of what all factors explain there; zero where
        no gain is beyond its error.
    margin
        What each adds, as a multiple of the least that it must.
    """

    factors: list[int]
    share: np.ndarray
    margin: np.ndarray

    def surplus(self) -> list[int]:
        """Those that add too little."""
        return [k for k, margin in zip(self.factors, self.margin, strict=True) if margin < 1]

    def without_weakest(self) -> Judgement:
        """The others, by the numbers that they have once the weakest of those is removed."""
        place = self.weakest()
        gone = self.factors[place]
        left = np.arange(len(self.factors)) != place
        factors = [k - (k > gone) for k, keep in zip(self.factors, left, strict=True) if keep]
        return Judgement(factors, self.share[left], self.margin[left])

    def weakest(self) -> int:
        """Place of the first that adds too little."""
        return self.factors.index(self.surplus()[0])

    def and_then(self, later: Judgement) -> Judgement:
        """The later judgement of those that it judges: what others add cannot have become less."""
        old = [n for n, k in enumerate(self.factors) if k not in later.factors]
        return Judgement(
            later.factors + [self.factors[n] for n in old],
            np.concatenate([later.share, self.share[old]]),
            np.concatenate([later.margin, self.margin[old]]),
        )


def judge(
    module: FactorModule,
    dataset: MultiDataset,
    indices: np.ndarray,
    n_train: int,
    *,
    seed: int,
    among: Sequence[int] | None = None,
    least_share: float | None = None,
) -> Judgement:
    """Judge the weakest factors by values that they were not inferred from.

    Parameters
    ----------
    module
        The network.
    dataset
        Cells.
    indices
        Which of them.
    n_train
        Number of training cells.
    seed
        Seed of the halves.
    among
        Judge these instead.
    least_share
        Share of what all explain that a factor must add; None: by the number of cells.
    """
    chosen = list(among or ())
    if among is None:
        strength = strengths(module, dataset.fetch(indices).to(module.device), n_train)
        chosen = np.argsort(strength, kind="stable")[:N_JUDGED].tolist()
    named = ~np.isin(chosen, free_factors(module))
    shares, rough, margins = [], [], []
    found = unseen_nats(module, dataset, indices, chosen, n_train=n_train, seed=seed)
    for table in found.values():
        own = table[np.isfinite(table[:, 0])]
        if not len(own):
            continue
        explained = float((own[:, 1] - own[:, 0]).mean())
        gain = own[:, 1:2] - own[:, 2:]
        if explained <= 0:
            rough.append(np.zeros(len(chosen)))
            shares.append(np.zeros(len(chosen)))
            margins.append(np.zeros(len(chosen)))
            continue
        error = gain.std(0) / np.sqrt(len(own))
        sure = gain.mean(0) > N_ERRORS * error
        rough.append(gain.mean(0) / explained)
        shares.append(np.where(sure, rough[-1], 0.0))
        n_cells = n_train * len(own) / len(indices)
        margin = _margin(rough[-1], gain.mean(0), named, n_cells, least_share)
        margins.append(np.where(sure | (least_share == 0), margin, 0.0))
    share, unsure = np.max(shares, axis=0), np.max(rough, axis=0)
    order = np.lexsort([unsure, share])
    margin = np.max(margins, axis=0)[order]
    return Judgement([chosen[place] for place in order], share[order], margin)


def _margin(
    share: np.ndarray,
    nats: np.ndarray,
    named: np.ndarray,
    n_cells: float,
    least_share: float | None,
) -> np.ndarray:
    """What factors add to a modality of so many cells, as a multiple of the least they must."""
    if least_share is not None:
        return np.asarray(np.where(least_share > 0, share / max(least_share, 1e-12), 1.0))
    least = np.where(named, SHARES[0], np.clip(LEAST_CELLS / n_cells, *SHARES))
    enough = max(ENOUGH_NATS, ENOUGH_IN_ALL / n_cells)
    return np.maximum(share / least, nats / enough)
