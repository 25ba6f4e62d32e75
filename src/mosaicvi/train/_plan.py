"""What Lightning does in one step, one epoch and one validation pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from mosaicvi._errors import RequestError
from mosaicvi.module._objective_spec import check_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.data._pairs import PairSampler
    from mosaicvi.data._thinned import ThinnedInputs
    from mosaicvi.module import Losses, MultimodalModule


class LossTerms(Protocol):
    """What a plan asks of an objective."""

    def __call__(
        self, module: Any, batch: MultiBatch, *, progress: float = 1.0, guidance: Any = None
    ) -> Losses:
        """Loss terms of a minibatch at a fraction ``progress`` of training."""


VALIDATION_TOTAL = "validation_loss"
"""Logged name of the validation objective at end-of-schedule weights."""


@dataclass(frozen=True)
class OptimizerSpec:
    """AdamW with a one-cycle learning rate (Smith and Topin 2019).

    Attributes
    ----------
    learning_rate
        Peak learning rate.
    weight_decay
        Decoupled weight decay of the networks' weights; feature parameters have none.
    rise
        Fraction of all steps over which the learning rate rises.
    feature_rate
        Factor of the learning rate for the decoders' parameters that belong to one feature each:
        embeddings, biases, batch offsets, dispersions. A step moves a parameter by about the
        learning rate whatever its gradient, and these have farther to go than networks' weights.
        One number, or modality to its own; one that is not named has 1. Where ``plan_kwargs`` does
        not name it, :meth:`mosaicvi.MosaicVI.train` takes 4, and for ``poisson`` and ``bernoulli``
        modalities .1 to 1, the less the fewer counts there are of the average region.
    gradient_norm
        Gradients are clipped to this norm; 0 or None: not at all.
    averaging
        Epochs over which the weights that validate and are kept are averaged; 0: those of a step.
    n_threads
        torch's threads on a CPU while a fit runs; None: as many as its steps keep busy, see
        :func:`~mosaicvi.train._threads.threads_for`.
    """

    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    rise: float = 0.2
    feature_rate: float | Mapping[str, float] = 1.0
    gradient_norm: float | None = 100.0
    averaging: float = 2.0
    n_threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers with which no fit comes anywhere; NaN is none either."""
        if not 0 < self.learning_rate < math.inf:
            raise RequestError(
                f"found {self.learning_rate}", key="learning_rate", expected="a number above 0"
            )
        if not self.averaging >= 0:
            raise RequestError(
                f"found {self.averaging}", key="averaging", expected="0 epochs or more"
            )
        check_number("weight_decay", self.weight_decay)
        check_number("rise", self.rise, 0, 1)
        rates = self.feature_rate
        for rate in rates.values() if isinstance(rates, Mapping) else (rates,):
            check_number("feature_rate", rate)
        if self.gradient_norm is not None:
            check_number("gradient_norm", self.gradient_norm)
        if self.n_threads is not None:
            check_number("n_threads", self.n_threads, 1, whole=True)


class MosaicTrainingPlan(pl.LightningModule):
    """Training plan: the objective, its logging, and the optimiser.

    Parameters
    ----------
    module
        The network.
    objective
        Computes the loss terms.
    optimizer
        Settings of the optimiser.
    n_steps
        Steps of the whole schedule. Where the trainer takes others, as it accumulates gradients or
        leaves minibatches out, the schedule is of as many as it takes.
    guide
        Draws anchor pairs for each step; None: modalities are not aligned by anchors.
    thinned
        Exchanges encoder inputs of some cells in each step; None: no cell's.
    """

    def __init__(
        self,
        module: MultimodalModule,
        objective: LossTerms,
        optimizer: OptimizerSpec,
        n_steps: int,
        guide: PairSampler | None = None,
        thinned: ThinnedInputs | None = None,
    ) -> None:
        super().__init__()
        self.module, self.objective = module, objective
        self.optimizer_spec, self.n_steps = optimizer, max(n_steps, 1)
        self.guide, self.thinned = guide, thinned
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._validated: list[Tensor] = []

    def training_step(self, batch: MultiBatch, batch_idx: int) -> Tensor:
        """Loss of one minibatch."""
        guidance = None if self.guide is None else self.guide.draw(batch.indices.device)
        progress = self.global_step / self.n_steps
        if self.thinned is not None:
            batch = self.thinned.into(batch)
        losses = self.objective(self.module, batch, progress=progress, guidance=guidance)
        self._add("train", losses, batch)
        return losses.total

    def validation_step(self, batch: MultiBatch, batch_idx: int) -> None:
        """Objective at end-of-schedule weights, with the same noise at every epoch."""
        devices = [batch.indices.device] if batch.indices.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(batch_idx)
            losses = self.objective(self.module, batch, progress=1.0)
        self._add("validation", losses, batch)
        if losses.by_cell is not None:
            self._validated.append(losses.by_cell)

    def validated(self) -> Tensor | None:
        """What each validation cell lost in the last pass, in one order; None: not known."""
        found, self._validated = self._validated, []
        return torch.cat(found).cpu() if found else None

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of modalities without trust apart: they must not shorten others'."""
        if not gradient_clip_val or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        apart = self.module.muted_parameters()
        numbers = {id(parameter) for parameter in apart}
        # In the optimiser's order, as Lightning clips: a norm depends on it in its last bit.
        ordered = [each for group in optimizer.param_groups for each in group["params"]]
        rest = [each for each in ordered if id(each) not in numbers]
        for group in (rest, apart):
            _clip(group, gradient_clip_val)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means; one call an epoch, since each costs a synchronisation."""
        self._log("train")

    def on_validation_epoch_end(self) -> None:
        """Log the validation means."""
        self._log("validation")

    def _add(self, split: str, losses: Losses, batch: MultiBatch) -> None:
        values = {f"{name}_{split}": value for name, value in losses.terms.items()}
        values[f"{split}_loss"] = losses.score
        for name, value in values.items():
            # A term is absent from minibatches that it does not concern, so each has its count.
            self._sums[name] = self._sums.get(name, 0.0) + value.detach() * batch.n_cells
            self._counts[name] = self._counts.get(name, 0) + batch.n_cells

    def _log(self, split: str) -> None:
        names = [name for name in self._sums if name.endswith((f"_{split}", f"{split}_loss"))]
        means: dict[str, Any] = {n: self._sums.pop(n) / self._counts.pop(n) for n in names}
        if not means:
            return
        how: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": 1}
        # Processes of a distributed fit agree on the best epoch by this one. Other terms may be
        # absent from some of them, and a mean over processes would wait for these.
        total = f"{split}_loss"
        value = means.pop(total)
        self.log_dict(means, **how)
        self.log(total, value, sync_dist=True, prog_bar=True, **how)

    def _steps_taken(self) -> int:
        """Steps that the trainer will take; those that were planned where it cannot tell."""
        try:
            taken = self.trainer.estimated_stepping_batches
        except MisconfigurationException:  # accumulation that changes between epochs
            return self.n_steps
        return int(taken) if 0 < taken < math.inf else self.n_steps

    def configure_optimizers(self) -> Any:
        """AdamW under a one-cycle schedule that moves every step."""
        spec = self.optimizer_spec
        given = spec.feature_rate
        modalities = self.module.decoders
        rates = given if isinstance(given, Mapping) else dict.fromkeys(modalities, given)
        owner = {
            id(parameter): rates.get(modality, 1.0)
            for modality, decoder in modalities.items()
            for name, parameter in decoder.named_parameters()
            if "trunk" not in name
        }
        decayed: list[torch.nn.Parameter] = []
        free: list[torch.nn.Parameter] = []
        features: dict[float, list[torch.nn.Parameter]] = {}
        for name, parameter in self.module.named_parameters():
            if id(parameter) in owner:
                features.setdefault(owner[id(parameter)], []).append(parameter)
            else:
                networks = parameter.ndim > 1 and ("encoder" in name or "trunk" in name)
                (decayed if networks else free).append(parameter)
        groups = [(decayed, spec.weight_decay, 1.0), (free, 0.0, 1.0)]
        groups += [(parameters, 0.0, rate) for rate, parameters in features.items()]
        optimizer = torch.optim.AdamW(
            [{"params": each, "weight_decay": decay} for each, decay, _ in groups],
            lr=spec.learning_rate,
            # One kernel for all parameters: a network of many small tensors else waits for calls.
            # Lightning's mixed precision refuses to clip the gradients of such an optimiser.
            fused="mixed" not in str(self.trainer.precision)
            and all(p.device.type in {"cpu", "cuda"} for p in self.module.parameters()),
        )
        self.n_steps = self._steps_taken()
        total_steps = self.n_steps + 1
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[spec.learning_rate * rate for *_, rate in groups],
            total_steps=total_steps,
            # The rise takes a step or more: torch divides by its length.
            pct_start=min(1.0, max(spec.rise, 2 / total_steps)),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def _clip(parameters: Sequence[torch.nn.Parameter], largest: float) -> None:
    """Scale gradients to a norm of at most ``largest``.

    torch multiplies all of them by one where the norm is smaller, lest it read the norm back from
    an accelerator; on a processor that is a pass over every gradient for nothing.
    """
    gradients = [each.grad for each in parameters if each.grad is not None]
    if not gradients:
        return
    norm = torch.nn.utils.get_total_norm(gradients)
    if norm.device.type == "cpu" and norm <= largest:
        return
    torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)
