"""One fit from start to the factors that are left, and the best of several."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi.factor._gene_sets import informed_members
from mosaicvi.factor._objective import FactorObjective
from mosaicvi.factor._reduce import bound_batch, negative_bound, reduce_factors
from mosaicvi.factor._start import start_module
from mosaicvi.factor._surplus import drop_surplus
from mosaicvi.factor._sweeps import sweep_weights
from mosaicvi.model import _training
from mosaicvi.train import FitResult, MosaicTrainingPlan, OptimizerSpec, run_fit

if TYPE_CHECKING:
    from mosaicvi.data import MosaicDataModule
    from mosaicvi.factor._factor_module import FactorModule

START_SHARE = 0.5
"""Share of the training cells that a restart starts from."""

JUDGE_SEED = 0
"""Seed of the cells, halves and draws that factors and fits are compared by, the same for all."""

TRIAL_RATE = 1 / 12
"""Learning rate of short fits without a factor, as a share of the peak."""


@dataclass(frozen=True)
class Fitted:
    """A fit that ended.

    Attributes
    ----------
    module
        The network.
    result
        How training went.
    left
        Numbers of the factors that are left.
    loss
        Negative bound, nats a cell, on the validation cells, or training cells if there are none.
    """

    module: FactorModule
    result: FitResult
    left: list[int]
    loss: float


@dataclass(frozen=True)
class FitPlan:
    """What all restarts of a fit share.

    Attributes
    ----------
    datamodule
        Minibatches.
    epochs
        Epochs of the schedule.
    early_stopping
        Whether training stops when the validation bound stops improving.
    learning_rate
        Peak learning rate.
    informed
        Factors with a gene set.
    seed
        Seed of the order of cells and of the noise of the first fit.
    restart_seed
        Seed of the cells that restarts start from.
    trainer
        Passed on to :func:`~mosaicvi.train.run_fit`.
    """

    datamodule: MosaicDataModule
    epochs: int
    early_stopping: bool
    learning_rate: float
    informed: tuple[str, ...]
    seed: int
    restart_seed: int
    trainer: dict[str, Any]

    def run(self, module: FactorModule, number: int, *, start: bool) -> Fitted:
        """Fit a network, in place.

        Parameters
        ----------
        module
            The network.
        number
            Number of the restart, from 0. Those after the first start from the components of a
            random half of the training cells.
        start
            Whether it starts anew; else training goes on.
        """
        data, dataset, seed = self.datamodule, self.datamodule.dataset, self.seed + number
        n_batches = len(data.train_dataloader())
        with _training.seeded(seed):
            if start:
                members = informed_members(module, self.informed)
                start_module(module, dataset, self._first(number), members=members, seed=number)
            plan = MosaicTrainingPlan(
                module,
                FactorObjective(data.n_train),
                OptimizerSpec(learning_rate=self.learning_rate),
                n_steps=self.epochs * n_batches,
            )
            result = run_fit(
                plan,
                data,
                max_epochs=self.epochs,
                patience=max(5, self.epochs // 5) if self.early_stopping else None,
                **self.trainer,
            )
            left = reduce_factors(module, dataset, data.train_idx, seed=JUDGE_SEED)
            if result.status != "interrupted":
                rate = TRIAL_RATE * self.learning_rate
                kept = drop_surplus(module, data, learning_rate=rate, seed=JUDGE_SEED)
                left = [left[place] for place in kept]
            sweep_weights(module, dataset, data.train_idx)
        return Fitted(module, result, left, self._loss(module))

    def _first(self, number: int) -> np.ndarray:
        """Cells that a restart starts from."""
        cells = self.datamodule.train_idx
        if number == 0:
            return cells
        rng = np.random.default_rng([self.restart_seed, number])
        return np.sort(rng.choice(cells, max(1, round(START_SHARE * len(cells))), replace=False))

    def _loss(self, module: FactorModule) -> float:
        data = self.datamodule
        cells = data.val_idx if len(data.val_idx) else data.train_idx
        batch = bound_batch(module, data.dataset, cells, JUDGE_SEED)
        return negative_bound(module, batch, data.n_train, JUDGE_SEED)


def fit_best(
    module: FactorModule, plan: FitPlan, restarts: int, *, start: bool
) -> tuple[Fitted, list[FactorModule]]:
    """Fit some times, and keep the fit with the best bound.

    Parameters
    ----------
    module
        The network, which becomes the best.
    plan
        What to do.
    restarts
        How many fits.
    start
        Whether the first starts anew.

    Returns
    -------
    The best fit, and the networks of the others.
    """
    fresh = [copy.deepcopy(module) for _ in range(restarts - 1)]
    fits = [plan.run(module, 0, start=start)]
    for number, each in enumerate(fresh, start=1):
        if fits[-1].result.status == "interrupted":
            break
        fits.append(plan.run(each.to(module.device), number, start=True))
    best = min(fits, key=lambda fit: fit.loss)
    return best, [fit.module for fit in fits if fit is not best]
