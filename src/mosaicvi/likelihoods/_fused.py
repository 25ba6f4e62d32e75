"""Compiled densities of cells as functions that torch can differentiate.

They take part where their conditions hold, which is every step of training on a processor:
single precision, and parameters that belong to features. Elsewhere the same densities are written
with tensors (:mod:`~mosaicvi.likelihoods._rows`), and tests hold one against the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mosaicvi import _compiled
from mosaicvi._types import Bool, Float, Shaped, SparseCounts
from mosaicvi.likelihoods._small_counts import log_factorials, negative_binomial_table

Others = tuple[Float[Tensor, "..."], ...]
"""Tensors, as many as a density has parameters."""
NO_ROWS = torch.empty(0, 0)
NO_MASK = torch.empty(0, 0, dtype=torch.bool)


@dataclass(frozen=True)
class Task:
    """What a density is computed from.

    Attributes
    ----------
    values
        Counts, shape ``(n_cells, n_features)``.
    observed
        Bool of the same shape; without rows: all are observed.
    weights
        Number of features each one stands for, shape ``(n_features,)``.
    library
        Library size of each row, shape ``(n_rows,)``; rows are draws of all cells.
    logits
        Shape ``(n_rows, n_features)``.
    others
        Further parameters.
    """

    values: Float[SparseCounts, "cells features"]
    observed: Bool[Tensor, "..."]
    weights: Float[Tensor, " features"]
    library: Float[Tensor, " rows"]
    logits: Float[Tensor, "rows features"]
    others: tuple[Float[Tensor, "..."], ...]

    @cached_property
    def arrays(self) -> tuple[Shaped[np.ndarray, "..."], ...]:
        """What every compiled function takes after its rows."""
        parts = (self.values.indptr, self.values.indices, self.values.values)
        given = (*parts, self.observed, self.weights, self.library, self.logits)
        return tuple(each.numpy() for each in given)

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """Runs of rows."""
        return _compiled.row_blocks(len(self.logits))


class CompiledDensity(ABC):
    """A density that is compiled, by its logits and further parameters."""

    @abstractmethod
    def takes(self, logits: Float[Tensor, "*draws cells features"], others: Others) -> bool:
        """Whether further parameters have the shapes that it is compiled for."""

    @abstractmethod
    def value(self, task: Task) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows kept"]]:
        """Log density of each row, ``(n_rows,)``, float64, and what its gradient needs."""

    @abstractmethod
    def slopes(
        self, task: Task, kept: Float[Tensor, "rows kept"], gradient: Float[Tensor, " rows"]
    ) -> Others:
        """Gradients by logits and by each of the others."""


class CompiledCounts(CompiledDensity):
    """Negative binomial; zero-inflated if dropout logits follow the dispersions."""

    def takes(self, logits: Float[Tensor, "*draws cells features"], others: Others) -> bool:
        """Dispersions of features, and dropout of entries."""
        theta, *dropout = others
        return theta.shape == logits.shape[-1:] and all(d.shape == logits.shape for d in dropout)

    @staticmethod
    def _parameters(
        task: Task, table: Float[Tensor, "counts features"]
    ) -> tuple[Float[np.ndarray, "..."], ...]:
        theta, *dropout = task.others
        given = (theta, table, *(dropout or (NO_ROWS,)))
        return tuple(each.numpy() for each in given)

    def value(self, task: Task) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows kept"]]:
        """Log density and normaliser of each row."""
        table, _ = negative_binomial_table(task.others[0], gradients=False)
        arrays, parameters = task.arrays, self._parameters(task, table)
        value, kept = np.empty(len(task.logits)), np.empty((len(task.logits), 2))

        def work(_: int, rows: tuple[int, int]) -> None:
            _compiled.counts_forward(rows, *arrays, *parameters, value, kept)

        _compiled.each_block(task.blocks, work)
        return torch.from_numpy(value), torch.from_numpy(kept)

    def slopes(
        self, task: Task, kept: Float[Tensor, "rows kept"], gradient: Float[Tensor, " rows"]
    ) -> Others:
        """Gradients by logits, dispersions and dropout."""
        theta, *dropout = task.others
        _, table = negative_binomial_table(theta, gradients=True)
        assert table is not None
        arrays, parameters = task.arrays, self._parameters(task, table)
        by_logits = torch.empty_like(task.logits)
        by_dropout = [torch.empty_like(each) for each in dropout]
        by_theta = torch.zeros(len(task.blocks), len(theta))
        given = kept.numpy(), gradient.numpy(), by_logits.numpy()
        out = (by_dropout[0] if by_dropout else NO_ROWS).numpy()

        def work(number: int, rows: tuple[int, int]) -> None:
            sums = by_theta[number].numpy()
            _compiled.counts_backward(rows, *arrays, *parameters, *given, out, sums)

        _compiled.each_block(task.blocks, work)
        return by_logits, by_theta.sum(0), *by_dropout


@dataclass(frozen=True)
class CompiledRates(CompiledDensity):
    """Poisson counts or, if ``binary``, whether there are any; logs of factors may follow."""

    binary: bool

    def takes(self, logits: Float[Tensor, "*draws cells features"], others: Others) -> bool:
        """Factors of features."""
        return all(each.shape == logits.shape[-1:] for each in others)

    def _parameters(self, task: Task) -> tuple[Any, ...]:
        factor = task.others[0] if task.others else torch.zeros(task.logits.shape[-1])
        given = factor, factor.exp(), log_factorials(factor)
        return *(each.numpy() for each in given), self.binary

    def value(self, task: Task) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows kept"]]:
        """Log density of each row; its normaliser, and the sum of slopes by log rates."""
        arrays, parameters = task.arrays, self._parameters(task)
        value, kept = np.empty(len(task.logits)), np.empty((len(task.logits), 3))

        def work(_: int, rows: tuple[int, int]) -> None:
            _compiled.rates_forward(rows, *arrays, *parameters, value, kept)

        _compiled.each_block(task.blocks, work)
        return torch.from_numpy(value), torch.from_numpy(kept)

    def slopes(
        self, task: Task, kept: Float[Tensor, "rows kept"], gradient: Float[Tensor, " rows"]
    ) -> Others:
        """Gradients by logits and by the logs of factors."""
        arrays, parameters = task.arrays, self._parameters(task)
        by_logits = torch.empty_like(task.logits)
        by_factor = torch.zeros(len(task.blocks), task.logits.shape[-1] if task.others else 0)
        given = kept.numpy(), gradient.numpy(), by_logits.numpy()

        def work(number: int, rows: tuple[int, int]) -> None:
            sums = by_factor[number].numpy()
            _compiled.rates_backward(rows, *arrays, *parameters, *given, sums)

        _compiled.each_block(task.blocks, work)
        return (by_logits, by_factor.sum(0)) if task.others else (by_logits,)


class _Fused(torch.autograd.Function):
    """Log density of each row."""

    @staticmethod
    def forward(
        ctx: Any,
        density: CompiledDensity,
        values: Float[SparseCounts, "cells features"],
        observed: Bool[Tensor, "..."],
        weights: Float[Tensor, " features"],
        library: Float[Tensor, " rows"],
        logits: Float[Tensor, "rows features"],
        *others: Float[Tensor, "..."],
    ) -> Float[Tensor, " rows"]:
        task = Task(values, observed, weights, library, logits, others)
        value, kept = density.value(task)
        ctx.save_for_backward(observed, weights, library, logits, kept, *others)
        ctx.density, ctx.values = density, values
        return value.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "..."] | None, ...]:
        observed, weights, library, logits, kept, *others = ctx.saved_tensors
        task = Task(ctx.values, observed, weights, library, logits, tuple(others))
        return *(None,) * 5, *ctx.density.slopes(task, kept, gradient.contiguous())


def fused_rows(
    density: CompiledDensity,
    values: Float[SparseCounts, "cells features"],
    observed: Bool[Tensor, "cells features"] | None,
    library: Float[Tensor, "*#draws #cells"],
    logits: Float[Tensor, "*draws cells features"],
    *others: Float[Tensor, "*#entries"],
    weights: Float[Tensor, " features"] | None = None,
) -> Float[Tensor, "*draws cells"] | None:
    """:func:`~mosaicvi.likelihoods._rows.rows_from_logits`, compiled; None where it cannot be."""
    parts = (values.values, library, logits, *others, *(() if weights is None else (weights,)))
    if any(each.device.type != "cpu" or each.dtype != torch.float32 for each in parts):
        return None
    wrong = logits.shape[-2:] != values.shape or not density.takes(logits, others)
    if wrong or not logits.numel():
        return None
    *leading, n_cells, n_features = logits.shape
    masked = observed is not None and observed.shape == values.shape
    if observed is not None and not masked:
        return None
    value: Tensor = _Fused.apply(
        density,
        values,
        observed.contiguous() if observed is not None else NO_MASK,
        torch.ones(n_features) if weights is None else weights.contiguous(),
        library.expand(*leading, n_cells).reshape(-1).contiguous(),
        logits.reshape(-1, n_features).contiguous(),
        *(
            each.contiguous() if each.dim() == 1 else each.reshape(-1, n_features).contiguous()
            for each in others
        ),
    )
    return value.view(*leading, n_cells)
