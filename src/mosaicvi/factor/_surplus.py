"""Remove factors that predict nothing, and those that a fit without them does better than."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mosaicvi.factor._judgement import N_ERRORS, Judgement, judge
from mosaicvi.factor._objective import FactorObjective
from mosaicvi.factor._reduce import bound_batch, free_factors, negative_bound
from mosaicvi.factor._unseen import unseen_nats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mosaicvi.data import MosaicDataModule
    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.factor._factor_module import FactorModule

MOST_CELLS, MOST_VALUES = 600, 2_400_000
"""Cells, and values of theirs, that factors are judged on."""

N_STEPS = 64
"""Steps of a trial fit."""

LEAST_BETTER = 0.1
"""Nats a cell by which the bound must be better without a factor: what draws make two bounds of one
fit differ by."""

DOUBTFUL_SHARE, N_TRIED = 0.01, 2
"""Factors that add less than this are tried without, weakest first, until so many are needed."""


def drop_surplus(
    module: FactorModule,
    datamodule: MosaicDataModule,
    *,
    learning_rate: float,
    seed: int,
    least_share: float | None = None,
    lost: Sequence[int] = (),
) -> list[int]:
    """Drop factors that are surplus, in place.

    First those that are known to be lost, and those that add nothing to the prediction of unseen
    values, where errors of cells' depths are given their chance: overdispersion of features with a
    large share of the counts looks like a factor else. Then the weakest, as long as a short fit
    without it ends with a better bound than one with it, and predicts unseen values no worse: bends
    of other factors, which their weights follow once the bend is gone.

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
    least_share
        Share of what all explain that a factor must add; None: by the number of cells.
    lost
        Numbers of factors that go whatever they add.

    Returns
    -------
    Numbers of the factors that are left, as they were before.
    """
    rng = np.random.default_rng(seed)
    cells = np.concatenate([datamodule.train_idx, datamodule.val_idx])
    n_features = sum(len(weights.loc) for weights in module.weights.values())
    n_cells = min(len(cells), MOST_CELLS, max(100, MOST_VALUES // n_features))
    cells = np.sort(rng.choice(cells, n_cells, replace=False))
    left, trial = list(range(module.n_latent)), _Trial(datamodule, cells, learning_rate, seed)
    for number in sorted(lost, reverse=True):
        _remove(module, number)
        del left[number]
    changed, found = bool(lost), None
    while found is None or changed:
        if changed:
            module.become(trial.refitted(module, None))
        found, gone = _judged(module, trial, least_share)
        for number in gone:
            del left[number]
        changed = bool(gone)
    free = free_factors(module)
    doubtful = [
        left[k]
        for k, share in zip(found.factors, found.share, strict=True)
        if share < DOUBTFUL_SHARE and k in free
    ]
    n_before = len(left)
    if doubtful:
        best, left = trial.reduce(module, left, doubtful)
        if len(left) < n_before:
            module.become(best)
    return left


def _judged(
    module: FactorModule, trial: _Trial, least_share: float | None
) -> tuple[Judgement, list[int]]:
    """Remove factors that add too little, weakest first, in place.

    Returns
    -------
    Judgement of others, and the number that each that went had at that time.
    """
    data, found, went = trial.datamodule, Judgement([], np.zeros(0), np.zeros(0)), []
    among: list[int] | None = None
    while module.n_latent > 1:
        again = judge(
            module,
            data.dataset,
            trial.cells,
            data.n_train,
            seed=trial.seed,
            among=among,
            least_share=least_share,
        )
        found = found.and_then(again)
        if not found.surplus():
            break
        went.append(found.factors[found.weakest()])
        _remove(module, went[-1])
        found = found.without_weakest()
        # Those that added enough are not judged again; once none is left, the next weakest are.
        among = found.surplus() or None
        if among is None and found.factors:
            break
    return found, went


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
