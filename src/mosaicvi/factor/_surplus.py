"""Remove factors that predict nothing, and those that a fit without them does better than."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mosaicvi.factor._objective import FactorObjective
from mosaicvi.factor._reduce import bound_batch, free_factors, negative_bound, strengths
from mosaicvi.factor._unseen import unseen_nats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mosaicvi.data import MosaicDataModule, MultiDataset
    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.factor._factor_module import FactorModule

MOST_CELLS, MOST_VALUES = 600, 2_400_000
"""Cells, and values of theirs, that factors are judged on."""

LEAST_SHARE = 0.003
"""A factor adds at least this share of what all explain of unseen values, in some modality."""

ENOUGH_NATS = 1.0
"""Or this, in nats a cell: where a few factors explain very much, little beside them is not
little."""

N_ERRORS = 2.0
"""And that many standard errors."""

N_STEPS = 64
"""Steps of a trial fit."""

N_JUDGED = 6
"""Factors that are judged: those that are weakest by a quadratic estimate."""

LEAST_BETTER = 0.1
"""Nats a cell by which the bound must be better without a factor: what draws make two bounds of one
fit differ by."""

DOUBTFUL_SHARE, N_TRIED = 0.01, 2
"""Factors that add less than this are tried without, weakest first, until so many are needed."""


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
    nats
        The same in nats a cell, the most of all modalities.
    """

    factors: list[int]
    share: np.ndarray
    nats: np.ndarray

    def surplus(self) -> list[int]:
        """Those that add too little."""
        little = (self.share < LEAST_SHARE) & (self.nats < ENOUGH_NATS)
        return [k for k, gone in zip(self.factors, little, strict=True) if gone]

    def without_weakest(self) -> Judgement:
        """The others, by the numbers that they have once the weakest of those is removed."""
        place = self.weakest()
        gone = self.factors[place]
        left = np.arange(len(self.factors)) != place
        factors = [k - (k > gone) for k, keep in zip(self.factors, left, strict=True) if keep]
        return Judgement(factors, self.share[left], self.nats[left])

    def weakest(self) -> int:
        """Place of the first that adds too little."""
        return self.factors.index(self.surplus()[0])

    def and_then(self, later: Judgement) -> Judgement:
        """The later judgement of those that it judges: what others add cannot have become less."""
        old = [n for n, k in enumerate(self.factors) if k not in later.factors]
        return Judgement(
            later.factors + [self.factors[n] for n in old],
            np.concatenate([later.share, self.share[old]]),
            np.concatenate([later.nats, self.nats[old]]),
        )


def judge(
    module: FactorModule,
    dataset: MultiDataset,
    indices: np.ndarray,
    n_train: int,
    *,
    seed: int,
    among: Sequence[int] | None = None,
) -> Judgement:
    """Judge the weakest unnamed factors by values that they were not inferred from.

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
    """
    chosen = list(among or ())
    if among is None:
        strength = strengths(module, dataset.fetch(indices).to(module.device), n_train)
        chosen = sorted(free_factors(module), key=lambda number: strength[number])[:N_JUDGED]
    if not chosen:
        return Judgement([], np.zeros(0), np.zeros(0))
    shares, rough, nats = [], [], []
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
            nats.append(np.zeros(len(chosen)))
            continue
        error = gain.std(0) / np.sqrt(len(own))
        sure = gain.mean(0) > N_ERRORS * error
        rough.append(gain.mean(0) / explained)
        shares.append(np.where(sure, rough[-1], 0.0))
        nats.append(np.where(sure, gain.mean(0), 0.0))
    share, unsure = np.max(shares, axis=0), np.max(rough, axis=0)
    order = np.lexsort([unsure, share])
    return Judgement([chosen[place] for place in order], share[order], np.max(nats, axis=0)[order])


def drop_surplus(
    module: FactorModule,
    datamodule: MosaicDataModule,
    *,
    learning_rate: float,
    seed: int,
) -> list[int]:
    """Drop unnamed factors that are surplus, in place.

    First those that add nothing to the prediction of unseen values, where errors of cells' depths
    are given their chance: overdispersion of features with a large share of the counts looks like a
    factor else. Then the weakest, as long as a short fit without it ends with a better bound than
    one with it, and predicts unseen values no worse: bends of other factors, which their weights
    follow once the bend is gone.

    Parameters
    ----------
    module
        The network.
    datamodule
        Minibatches, training and validation cells.
    learning_rate
        Of the trial fits.
    seed
        Seed of cells, halves and draws.

    Returns
    -------
    Numbers of the factors that are left, as they were before.
    """
    dataset, rng = datamodule.dataset, np.random.default_rng(seed)
    cells = np.concatenate([datamodule.train_idx, datamodule.val_idx])
    n_features = sum(len(weights.loc) for weights in module.weights.values())
    n_cells = min(len(cells), MOST_CELLS, max(100, MOST_VALUES // n_features))
    cells = np.sort(rng.choice(cells, n_cells, replace=False))
    left, found = list(range(module.n_latent)), Judgement([], np.zeros(0), np.zeros(0))
    n_before = len(left)
    while module.n_latent > 1:
        again = found.surplus() if found.factors else None
        if again == []:
            break
        found = found.and_then(
            judge(module, dataset, cells, datamodule.n_train, seed=seed, among=again)
        )
        if not found.surplus():
            break
        gone = found.factors[found.weakest()]
        _remove(module, gone)
        del left[gone]
        found = found.without_weakest()
    doubtful = [
        left[k] for k, s in zip(found.factors, found.share, strict=True) if s < DOUBTFUL_SHARE
    ]
    if doubtful or len(left) < n_before:
        best, left = _Trial(datamodule, cells, learning_rate, seed).reduce(module, left, doubtful)
    if len(left) < n_before:
        module.become(best)
    return left


def _remove(module: FactorModule, number: int) -> None:
    kept = [k for k in range(module.n_latent) if k != number]
    module.keep(torch.as_tensor(kept, device=module.device))


@dataclass(frozen=True)
class _Trial:
    """Short fits without a factor."""

    datamodule: MosaicDataModule
    cells: np.ndarray
    learning_rate: float
    seed: int

    def reduce(
        self, module: FactorModule, left: list[int], order: list[int]
    ) -> tuple[FactorModule, list[int]]:
        """Drop the weakest as long as a short fit without it is better.

        Better is one with the better bound, if it predicts unseen values no worse beyond errors.

        Parameters
        ----------
        module
            The network, which stays as it is.
        left
            Names of its factors.
        order
            Names of those to try, weakest first.

        Returns
        -------
        Another network, and the names of its factors.
        """
        data, left = self.datamodule, list(left)
        batch = bound_batch(module, data.dataset, data.train_idx, self.seed)
        best = self.refitted(module, None)
        loss = negative_bound(best, batch, data.n_train, self.seed)
        nats: np.ndarray | None = None
        waiting = order[:N_TRIED]
        while waiting and best.n_latent > 1:
            name = waiting.pop(0)
            tried = self.refitted(best, left.index(name))
            after = negative_bound(tried, batch, data.n_train, self.seed)
            if after > loss - LEAST_BETTER:
                continue
            nats = self._unseen(best) if nats is None else nats
            without = self._unseen(tried)
            gain = nats - without
            if gain.mean() <= N_ERRORS * gain.std() / np.sqrt(len(gain)):
                best, loss, nats = tried, after, without
                left.remove(name)
                order = [each for each in order if each != name]
                waiting = order[:N_TRIED]
        return best, left

    def _unseen(self, module: FactorModule) -> np.ndarray:
        """Log-probability of each cell's values from its other values, in nats, ``(n_cells,)``."""
        data = self.datamodule
        found = unseen_nats(
            module, data.dataset, self.cells, [], n_train=data.n_train, seed=self.seed
        )
        nats = np.stack([table[:, 1] for table in found.values()])
        return np.asarray(np.nansum(nats, axis=0))

    def refitted(self, module: FactorModule, without: int | None) -> FactorModule:
        """Copy of the network after some more steps, without a factor."""
        after = copy.deepcopy(module)
        if without is not None:
            _remove(after, without)
        objective = FactorObjective(self.datamodule.n_train)
        optimizer = torch.optim.Adam(after.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, N_STEPS)
        devices = [module.device] if module.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            torch.manual_seed(self.seed)
            for batch in _minibatches(self.datamodule):
                optimizer.zero_grad()
                objective(after, batch.to(module.device)).total.backward()
                optimizer.step()
                schedule.step()
        for parameter in after.parameters():
            parameter.grad = None
        return after.eval()


def _minibatches(datamodule: MosaicDataModule) -> Iterator[MultiBatch]:
    count = 0
    while True:
        for batch in datamodule.train_dataloader():
            yield batch
            count += 1
            if count == N_STEPS:
                return
