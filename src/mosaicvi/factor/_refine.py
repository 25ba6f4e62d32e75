r"""Posteriors of cells at answer time, closer to the best than what the encoder says.

The encoder sees a frozen projection of a cell's values, and says in one pass what it takes their
factors to be. Here the values themselves are asked: Newton steps, from where the encoder ends, with
the weights as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mosaicvi.factor._exact_expert import exact_expert
from mosaicvi.factor._head_slope import head_slope, mean_slope, shown_entries
from mosaicvi.fusion import FullGaussian
from mosaicvi.likelihoods._composition import SMALLEST_LIBRARY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mosaicvi.data._batch import ModalityBatch, MultiBatch
    from mosaicvi.factor._factor_module import FactorModule

LARGEST_STEP = 2.0
"""A step moves a cell by no more than this, in prior standard deviations."""

ROUNDING = 1e-3
"""Nats by which a step may seem to make a cell worse: sums of densities round to that."""

VALUES_AT_ONCE = 1_000_000
"""Values of cells that are looked at together."""


class Refinement:
    r"""Laplace's approximation of the factors of cells, given weights.

    The mode of

    .. math:: \log p(x_S \mid \bar W z) - \tfrac12 z^\top (S^{-1} + V) z,

    with the mean weights :math:`\bar W`, prior variances S and what the weights do not know,
    :math:`V_{kk} = \sum_f I_f \operatorname{Var}(w_{fk})`, as the closed form for normal values
    has it; the precision is the expected information there. Where a likelihood has no short
    formula for it (``zinb``, ``nb_mixture``), the precision that the encoder gives stands for it.
    Steps that make a cell worse are shortened.

    Parameters
    ----------
    module
        The network.
    batch
        Cells, with values.
    names
        Modalities that are evidence.
    """

    def __init__(self, module: FactorModule, batch: MultiBatch, names: Iterable[str]) -> None:
        self.module, self.batch = module, batch
        self.names = [name for name in names if name in batch.modalities]
        self.prior = module.prior_variance(batch)
        self.weights = {name: module.weights[name].mean() for name in self.names}
        self.spread = {
            name: module.weights[name].posterior().variance.clamp_min(0) for name in self.names
        }
        self.pairs = {
            name: torch.einsum("fi,fj->fij", w, w).flatten(1) for name, w in self.weights.items()
        }
        self.design = module.design(batch)
        self.encoded = dict(zip(module.modalities, module.experts(batch).precisions, strict=True))
        self.exact: dict[str, tuple[Tensor, Tensor]] = {}
        for name in self.names:
            decoder = module.decoders[name]
            if decoder.likelihood.is_normal:
                part = batch.modalities[name]
                self.exact[name] = exact_expert(
                    part, decoder, module.weights[name], self._covariates(part)
                )
        self.penalty = 1 / self.prior

    def _covariates(self, part: ModalityBatch) -> Tensor | None:
        return None if self.design is None else self.design[part.positions]

    @torch.no_grad()
    def run(self, point: Tensor, n_steps: int) -> FullGaussian:
        """Posteriors of cells, from the means ``(n_cells, n_factors)`` that an encoder gave."""
        self.penalty = 1 / self.prior + self._unknown(point)
        value, gradient, information = self._slopes(point)
        length = torch.ones(len(point), device=point.device)
        for _ in range(n_steps):
            step = torch.linalg.solve(information, gradient)
            size = (step / self.prior.sqrt()).norm(dim=1) * length
            shorter = length * (LARGEST_STEP / size.clamp_min(1e-9)).clamp_max(1.0)
            tried = point + step * shorter.unsqueeze(-1)
            now = self._slopes(tried)
            better = now[0] >= value - ROUNDING
            rows = better.unsqueeze(-1)
            point, value = torch.where(rows, tried, point), torch.where(better, now[0], value)
            gradient = torch.where(rows, now[1], gradient)
            information = torch.where(rows.unsqueeze(-1), now[2], information)
            length = torch.where(better, 1.0, 0.3 * length)
        pull = torch.einsum("cij,cj->ci", information, point)
        return FullGaussian(information, pull)

    def _unknown(self, point: Tensor) -> Tensor:
        """Information about cells that is lost to what the weights do not know."""
        found = torch.zeros_like(point)
        for name in self.names:
            if name in self.exact:
                continue
            part = self.batch.modalities[name]
            entries = self._entries(name, part, point[part.positions])[3]
            if entries is not None:
                found = found.index_add(0, part.positions, entries @ self.spread[name])
        return found

    def _entries(
        self, name: str, part: ModalityBatch, z: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Log-probability of rows, gradient and information by their factors, and by entries."""
        decoder, table = self.module.decoders[name], self.weights[name]
        covariates = self._covariates(part)
        shown = shown_entries(decoder, part)
        found = mean_slope(decoder, part, z, table, covariates=covariates, log_depth=None)
        n_factors = table.shape[1]
        if found is None:
            own = head_slope(decoder, part, z, table, covariates=covariates, observed=shown)
            return own.nats, own.heads @ table, self.encoded[name][part.positions], None
        parameters, mean = found
        one = torch.ones_like(mean.slope) if shown is None else shown.to(mean.slope.dtype)
        slope, entries = mean.slope * one, mean.information * one
        counted = parameters["mean"].sum(-1, keepdim=True).clamp_min(SMALLEST_LIBRARY)
        # Shares add up to one: what a factor does to a feature is relative to what it does to all.
        centre = (parameters["mean"] / counted) @ table
        gradient = slope @ table - slope.sum(-1, keepdim=True) * centre
        gram = (entries @ self.pairs[name]).view(-1, n_factors, n_factors)
        cross = torch.einsum("ci,cj->cij", centre, entries @ table)
        both = torch.einsum("ci,cj->cij", centre, centre)
        gram = gram - cross - cross.mT + entries.sum(-1).view(-1, 1, 1) * both
        return (mean.entries * one).sum(-1), gradient, gram, entries

    def _slopes(self, point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log posterior of cells, its gradient, and its information."""
        value = -0.5 * (point.square() * self.penalty).sum(-1)
        gradient, information = -point * self.penalty, torch.diag_embed(self.penalty)
        for name in self.names:
            part = self.batch.modalities[name]
            own = point[part.positions]
            if name in self.exact:
                precision, pull = self.exact[name]
                pulled = torch.einsum("cij,cj->ci", precision, own)
                nats, slope, gram = ((pull - 0.5 * pulled) * own).sum(-1), pull - pulled, precision
            else:
                nats, slope, gram, _entries = self._entries(name, part, own)
            value = value.index_add(0, part.positions, nats)
            gradient = gradient.index_add(0, part.positions, slope)
            information = information.index_add(0, part.positions, gram)
        return value, gradient, information
