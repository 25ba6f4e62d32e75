"""One fit from start to the factors that are left, and the best of several."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi._errors import RequestError, check_whole
from mosaicvi._settings import logger
from mosaicvi.data import MosaicDataModule
from mosaicvi.factor._gene_sets import informed_members
from mosaicvi.factor._level import level_factors
from mosaicvi.factor._objective import FactorObjective
from mosaicvi.factor._reduce import bound_batch, negative_bound, reduce_factors
from mosaicvi.factor._stability import stability
from mosaicvi.factor._start import start_module
from mosaicvi.factor._surplus import drop_surplus
from mosaicvi.factor._sweeps import sweep_weights
from mosaicvi.model import _training
from mosaicvi.train import FitResult, MosaicTrainingPlan, OptimizerSpec, run_fit
from mosaicvi.train._runner import callbacks_of

if TYPE_CHECKING:
    from mosaicvi.factor._factor_module import FactorModule

START_SHARE = 0.5
"""Share of the training cells that a restart starts from."""

JUDGE_SEED = 0
"""Seed of the cells, halves and draws that factors and fits are compared by, the same for all."""

TRIAL_RATE = 1 / 12
"""Learning rate of short fits without a factor, as a share of the peak."""

HALF_STEPS = 150
"""Steps of a fit to half of the cells, or as many epochs as the whole takes if that is fewer: which
factors come back is seen as well after 150 as after 600."""

HALF_BATCH = 32
"""Cells of a minibatch there, an eighth of the half, but at least so many."""


def check_fit(restarts: int, earlier: FitResult | None, **shares: float | None) -> None:
    """Refuse restarts of a trained model, and shares and correlations that are none.

    Raises
    ------
    RequestError
        Says which.
    """
    for key, value in shares.items():
        if value is not None and not 0 <= value < 1:
            raise RequestError(f"found {value}", key=key, expected="from 0 to below 1")
    check_whole(restarts, "restarts")
    if restarts > 1 and earlier is not None:
        raise RequestError(
            f"found {restarts} for a model that is trained",
            key="restarts",
            expected="1 or more fits of a new model",
            remedy="make a new model, or leave restarts out to train this one on",
        )


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
        Negative bound, nats a cell, on the validation cells, or training cells if there are none;
        infinite without an epoch.
    """

    module: FactorModule
    result: FitResult
    left: list[int]
    loss: float

    @property
    def begun(self) -> bool:
        """Whether an epoch ended: none does where ``max_time`` is over, or training interrupted."""
        return self.result.n_epochs > 0


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
    least_share
        Factors that add less to the prediction of unseen values are dropped; None: by the number
        of cells.
    least_stability
        Factors that fits of half of the cells find less well are dropped; None: there are none.
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
    least_share: float | None
    least_stability: float | None
    trainer: dict[str, Any]

    def run(
        self,
        module: FactorModule,
        number: int,
        *,
        start: bool,
        halves: HalfFits | None = None,
    ) -> Fitted:
        """Fit a network, and see which of its factors are left.

        Interrupted in its first epoch, it is no fit; while factors are judged, all of them are
        left.

        Parameters
        ----------
        module
            The network, which is trained in place.
        number
            Number of the restart, from 0. Those after the first start from the components of a
            random half of the training cells.
        start
            Whether it starts anew; else training goes on.
        halves
            Fits of half of the cells that are to find its factors.
        """
        data, seed = self.datamodule, self.seed + number
        with _training.seeded(seed):
            if start:
                self.start(module, self._first(number), number)
            patience = max(5, self.epochs // 5) if self.early_stopping else None
            result = self.fit(module, data, self.epochs, patience=patience, trainer=self.trainer)
            everything = list(range(module.n_latent))
            fitted = Fitted(module, result, everything, math.inf)
            if not fitted.begun:
                return fitted
            try:
                # On a copy: halfway through, its factors are not known by number.
                module, left = self._judged(copy.deepcopy(module), result, halves)
            except KeyboardInterrupt:
                logger.warning(
                    "Training was interrupted while factors were judged; the model keeps all %d "
                    "and can be used. Call train() on a new model for a full fit.",
                    len(everything),
                )
                result, left = replace(result, status="interrupted"), everything
        return Fitted(module, result, left, self._loss(module))

    def _judged(
        self, module: FactorModule, result: FitResult, halves: HalfFits | None
    ) -> tuple[FactorModule, list[int]]:
        """A trained network and the numbers of its factors, without those that are surplus."""
        data, dataset = self.datamodule, self.datamodule.dataset
        level_factors(module, dataset, data.train_idx, seed=JUDGE_SEED)
        left = reduce_factors(module, dataset, data.train_idx, seed=JUDGE_SEED)
        if result.status != "interrupted":
            kept = drop_surplus(
                module,
                data,
                learning_rate=TRIAL_RATE * self.learning_rate,
                seed=JUDGE_SEED,
                least_share=self.least_share,
                lost=[] if halves is None else halves.lost(module),
            )
            left = [left[place] for place in kept]
        sweep_weights(module, dataset, data.train_idx)
        return module, left

    def start(self, module: FactorModule, cells: np.ndarray, seed: int) -> None:
        """Put a network where training starts, in place."""
        members = informed_members(module, self.informed)
        start_module(module, self.datamodule.dataset, cells, members=members, seed=seed)

    def fit(
        self,
        module: FactorModule,
        data: MosaicDataModule,
        epochs: int,
        *,
        patience: int | None,
        trainer: dict[str, Any],
    ) -> FitResult:
        """Train a network, in place."""
        plan = MosaicTrainingPlan(
            module,
            FactorObjective(data.n_train),
            OptimizerSpec(learning_rate=self.learning_rate, averaging=0.0),
            n_steps=epochs * len(data.train_dataloader()),
        )
        return run_fit(plan, data, max_epochs=epochs, patience=patience, trainer_kwargs=trainer)

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


@dataclass(frozen=True)
class HalfFits:
    """Fits of either half of the training cells, made when they are first asked for.

    A factor that half of the cells do not show is one that other cells may not show either. Each
    half is fitted on its own from its own start; both belong to the data, as all seeds are fixed.

    Attributes
    ----------
    plan
        The fit of all cells.
    blank
        The network as it was before training.
    """

    plan: FitPlan
    blank: FactorModule

    @cached_property
    def networks(self) -> tuple[FactorModule, ...]:
        """The two networks; none if training was interrupted, or a half has no cell."""
        plan, data = self.plan, self.plan.datamodule
        dataset = data.dataset
        cells = _training.split(dataset.data, data.train_idx, 0.5, None, JUDGE_SEED)[:2]
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        trainer = {key: plan.trainer[key] for key in ("accelerator", "devices")} | quiet
        found = []
        for own in cells:
            if not len(own):
                return ()
            part = MosaicDataModule(
                dataset.data,
                dataset.encoder_inputs,
                batch_size=min(data.batch_size, max(HALF_BATCH, len(own) // 8)),
                seed=JUDGE_SEED,
                external_indexing=(own, data.val_idx),
                groups=dataset.groups,
            )
            module = copy.deepcopy(self.blank)
            epochs = max(1, min(plan.epochs, round(HALF_STEPS / len(part.train_dataloader()))))
            with _training.seeded(JUDGE_SEED):
                plan.start(module, own, JUDGE_SEED)
                result = plan.fit(module, part, epochs, patience=None, trainer=trainer)
                if result.status == "interrupted":
                    return ()
                level_factors(module, dataset, own, seed=JUDGE_SEED)
                reduce_factors(module, dataset, own, seed=JUDGE_SEED)
            found.append(module)
        return tuple(found)

    def lost(self, module: FactorModule) -> list[int]:
        """Factors of a network that they do not find, but never all."""
        if not self.networks:
            return []
        found = np.mean(stability(module, self.networks), axis=1)
        lost = found < min(self.plan.least_stability or 0.0, float(found.max()))
        return [int(number) for number in np.flatnonzero(lost)]


def fit_best(
    module: FactorModule, plan: FitPlan, restarts: int, *, start: bool
) -> tuple[Fitted, list[FactorModule], tuple[FactorModule, ...]]:
    """Fit some times, and keep the fit with the best bound.

    Parameters
    ----------
    module
        The network, which is trained in place.
    plan
        What to do.
    restarts
        How many fits.
    start
        Whether the first starts anew.

    Returns
    -------
    The best fit, the networks of the others, and those of half of the cells each.
    """
    halves = None
    if start and plan.least_stability is not None:
        halves = HalfFits(plan, copy.deepcopy(module))
    fresh = [copy.deepcopy(module) for _ in range(restarts - 1)]
    # One that stopped the first fit would stop the others at once.
    callbacks = callbacks_of(plan.trainer)
    states = [copy.deepcopy(each.state_dict()) for each in callbacks]
    fits = [plan.run(module, 0, start=start, halves=halves)]
    for number, each in enumerate(fresh, start=1):
        if fits[-1].result.status == "interrupted":
            break
        for callback, state in zip(callbacks, states, strict=True):
            callback.load_state_dict(copy.deepcopy(state))
        fits.append(plan.run(each.to(module.device), number, start=True, halves=halves))
    best = min(fits, key=lambda fit: fit.loss)
    known = halves is not None and best.result.status != "interrupted"
    others = [fit.module for fit in fits if fit is not best and fit.begun]
    return best, others, halves.networks if halves is not None and known else ()
