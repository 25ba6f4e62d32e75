"""The objective: Pyro's evidence lower bound, in nats per cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro.infer import TraceMeanField_ELBO

from mosaicvi.module import Losses

if TYPE_CHECKING:
    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.factor._factor_module import FactorModule


class _Terms(TraceMeanField_ELBO):
    """The bound, with the values of its sites kept for the log."""

    def _differentiable_loss_particle(self, model_trace: Any, guide_trace: Any) -> Any:
        self.traces = (model_trace, guide_trace)
        return super()._differentiable_loss_particle(model_trace, guide_trace)


@dataclass(frozen=True)
class FactorObjective:
    """Negative evidence lower bound of :class:`~mosaicvi.factor._factor_module.FactorModule`.

    Divergences are in closed form; one draw of factors and weights is taken a step.

    Attributes
    ----------
    n_train_cells
        Training cells, over which the weights' divergence is spread.
    """

    n_train_cells: int

    def __call__(
        self,
        module: FactorModule,
        batch: MultiBatch,
        *,
        progress: float = 1.0,
        guidance: object | None = None,
    ) -> Losses:
        """Loss terms of a minibatch."""
        del guidance
        training = torch.is_grad_enabled()
        if training:
            module.update(batch, self.n_train_cells, groups=progress > 0.1)
        bound = _Terms()
        # Shapes are known here: Pyro's checks of every site cost more than the mathematics.
        with pyro.validation_enabled(False):
            total = bound.differentiable_loss(module.model, module.guide, batch, self.n_train_cells)
        terms = {
            name: -site["fn"].log_factor.detach() / batch.n_cells
            for name, site in bound.traces[0].nodes.items()
            if name.startswith("reconstruction/")
        }
        return Losses(terms, total, total)
