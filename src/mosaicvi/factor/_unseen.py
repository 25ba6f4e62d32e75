r"""What a factor adds to the prediction of values that its cells' factors were not inferred from.

What factors explain of the values that they were inferred from is too kind: a factor of noise fits
the cell's own noise. Here the factors of a cell are inferred from one half of its values, without
the encoder, and predict the other half, with and without each factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mosaicvi._types import as_dense
from mosaicvi.factor._head_slope import (
    closed_slope,
    depth_variance,
    head_slope,
    shown_entries,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mosaicvi.data import MultiDataset
    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.factor._factor_module import FactorModule
    from mosaicvi.factor._weights import SparseWeights

N_STEPS, N_MORE = 12, 5
"""Quasi-Newton steps of the factors of a cell, and of those that are left without one of them."""

LARGEST_STEP = 2.0
"""A step moves a cell by no more than this, in standard deviations of a factor."""

LONGEST = 8.0
"""Steps grow to this multiple of a scoring step: the information is a feature's, not a cell's."""

SHARES = 0.3, 3.0
"""Bounds of a cell's share of the information."""

VALUES_AT_ONCE = 2_000_000
"""Values of cells that are predicted together."""


@dataclass(frozen=True)
class Halves:
    """Cells whose values are parted in two.

    Attributes
    ----------
    batch
        The cells.
    shown
        Modality to the entries that factors are inferred from, bool ``(n_rows, n_features)``.
    hidden
        Modality to the entries that are predicted.
    """

    batch: MultiBatch
    shown: dict[str, Tensor]
    hidden: dict[str, Tensor]

    @cached_property
    def dense(self) -> dict[str, Tensor]:
        """Modality to its values, dense."""
        return {name: as_dense(part.values) for name, part in self.batch.modalities.items()}

    def swapped(self) -> Halves:
        """The other half is shown."""
        return Halves(self.batch, self.hidden, self.shown)


def halve(module: FactorModule, batch: MultiBatch, rng: np.random.Generator) -> Halves:
    """Part the measured values of each cell at random."""
    shown, hidden = {}, {}
    for name, part in batch.modalities.items():
        decoder = module.decoders[name]
        shape = (len(part.positions), int(decoder.measured.shape[1]))
        chosen = torch.as_tensor(rng.random(shape) < 0.5, device=module.device)
        measured = shown_entries(decoder, part)
        measured = torch.ones_like(chosen) if measured is None else measured
        shown[name], hidden[name] = chosen & measured, ~chosen & measured
    return Halves(batch, shown, hidden)


def _information(weights: SparseWeights, n_train: int) -> Tensor:
    """Mean information of a cell about each feature's head, from what all say of its weights."""
    share = weights.inclusion
    precision = (-2 * weights.log_scale).exp()
    found: Tensor = (share * precision).sum(1) / share.sum(1).clamp_min(1e-3) / n_train
    return found.detach()


class CellFit:
    r"""Most likely factors of cells, and errors of their depths, given the shown values.

    Scoring steps, :math:`u \leftarrow u + (J^\top I J + S^{-1})^{-1} (J^\top g - S^{-1} u)`, with
    the slope g of the log-probability by the head, and the information I of each feature that its
    weights' posterior precision tells, in proportion to what the cell's own values say. A step that
    makes a cell worse is shortened, and steps that keep making it better grow.

    Parameters
    ----------
    module
        The network.
    weights
        Modality to weights ``(n_features, n_factors)``.
    kept
        Which factors there are, bool ``(n_factors,)``; the others are zero.
    n_train
        Number of cells that the weights were trained on.
    """

    def __init__(
        self, module: FactorModule, weights: dict[str, Tensor], kept: Tensor, n_train: int
    ) -> None:
        self.module, self.kept = module, kept
        self.information = {
            name: _information(each, n_train) for name, each in module.weights.items()
        }
        self.weights = {name: table * kept for name, table in weights.items()}
        depths = {name: depth_variance(module.decoders[name]) for name in module.modalities}
        self.depths = {name: value for name, value in depths.items() if value is not None}

    @torch.no_grad()
    def infer(self, halves: Halves, start: Tensor | None = None) -> Tensor:
        """Factors, and what is added to log library sizes, ``(n_cells, n_factors + n_depths)``.

        Starts from the answer of another fit to the same half, or from zero.
        """
        prior = self.module.prior_variance(halves.batch)
        extra = prior.new_tensor(list(self.depths.values())).expand(len(prior), -1)
        variance = torch.cat([prior, extra], 1)
        point = torch.zeros_like(variance)
        if start is not None:
            point = start.clone()
            point[:, : len(self.kept)] *= self.kept
        value, gradient, information = self._slopes(halves, point, variance)
        length = torch.ones(len(point), device=point.device)
        for _ in range(N_STEPS if start is None else N_MORE):
            step = torch.linalg.solve(information, gradient)
            size = (step / variance.sqrt()).norm(dim=1) * length
            shorter = length * (LARGEST_STEP / size.clamp_min(1e-9)).clamp_max(1.0)
            tried = point + step * shorter.unsqueeze(-1)
            now = self._slopes(halves, tried, variance)
            better = now[0] >= value
            rows = better.unsqueeze(-1)
            point, value = torch.where(rows, tried, point), torch.where(better, now[0], value)
            gradient = torch.where(rows, now[1], gradient)
            information = torch.where(rows.unsqueeze(-1), now[2], information)
            length = torch.where(better, (1.7 * length).clamp_max(LONGEST), 0.3 * length)
        return point

    def _split(self, point: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        n_factors = len(self.kept)
        depths = {name: point[:, n_factors + i] for i, name in enumerate(self.depths)}
        return point[:, :n_factors] * self.kept, depths

    def _slopes(
        self, halves: Halves, point: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log posterior of cells, its gradient, and its information."""
        z, depths = self._split(point)
        n_factors = z.shape[1]
        value = -0.5 * (point.square() / variance).sum(-1)
        gradient, information = -point / variance, torch.diag_embed(1 / variance)
        design = self.module.design(halves.batch)
        for name, part in halves.batch.modalities.items():
            rows, table = part.positions, self.weights[name]
            given: dict[str, Any] = {
                "covariates": None if design is None else design[rows],
                "observed": halves.shown[name],
                "log_depth": depths[name][rows] if name in depths else None,
            }
            decoder, own = self.module.decoders[name], z[rows]
            dense = halves.dense[name]
            slope = closed_slope(decoder, part, own, table, values=dense, **given)
            slope = slope or head_slope(decoder, part, own, table, **given)
            square = slope.heads.square()
            # A cell's share of the information: deep cells, and cells with more values, have more.
            share = (square.sum(1) / square.sum(1).mean().clamp_min(1e-12)).clamp(*SHARES)
            seen = halves.shown[name].float().mean()
            gram = seen * table.T @ (self.information[name].unsqueeze(-1) * table)
            value = value.index_add(0, rows, slope.nats)
            gradient[rows, :n_factors] += slope.heads @ table
            information[rows, :n_factors, :n_factors] += share.view(-1, 1, 1) * gram
            if name in depths:
                column = n_factors + list(depths).index(name)
                gradient[rows, column] += slope.depth
                information[rows, column, column] += slope.depth_information
        return value, gradient, information

    @torch.no_grad()
    def predict(self, halves: Halves, point: Tensor) -> dict[str, Tensor]:
        """Log-probability of the hidden values of each row in nats, modality to ``(n_rows,)``.

        In full, with what factors do not change: networks are compared whose dispersions differ.
        """
        z, depths = self._split(point)
        design, found = self.module.design(halves.batch), {}
        for name, part in halves.batch.modalities.items():
            decoder, values, library = self.module.decoders[name], part.values, part.library_size
            if name in depths:
                library = library * depths[name][part.positions].exp()
            found[name] = decoder.log_prob(
                values,
                z[part.positions],
                part.batch,
                library if decoder.likelihood.uses_library_size else None,
                covariates=None if design is None else design[part.positions],
                panel=part.measured(decoder.panel(part.batch)),
                linked=self.weights[name],
                observed=halves.hidden[name],
            )
        return found


@torch.no_grad()
def unseen_nats(
    module: FactorModule,
    dataset: MultiDataset,
    indices: np.ndarray,
    factors: Sequence[int],
    *,
    n_train: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Log-probability of each cell's values when its factors are inferred from the others.

    Every value is predicted once, from the half that it is not in.

    Parameters
    ----------
    module
        The network.
    dataset
        Cells.
    indices
        Which of them.
    factors
        Numbers of the factors to leave out, one at a time.
    n_train
        Number of training cells.
    seed
        Seed of the halves.

    Returns
    -------
    Modality to array ``(n_cells, 2 + len(factors))`` in nats: without factors, with all, without
    each one; NaN where the modality is absent.
    """
    rng = np.random.default_rng(seed)
    weights = module.feature_embeddings()
    everything = torch.ones(module.n_latent, dtype=torch.bool, device=module.device)
    numbers = torch.arange(module.n_latent, device=module.device)
    kept = [~everything, everything, *(numbers != number for number in factors)]
    fits = [CellFit(module, weights, each, n_train) for each in kept]
    found = {n: np.full((len(indices), len(fits)), np.nan) for n in module.modalities}
    n_features = sum(len(table) for table in weights.values())
    at_once = max(32, VALUES_AT_ONCE // n_features)
    for first in range(0, len(indices), at_once):
        places = np.arange(first, min(first + at_once, len(indices)))
        halves = halve(module, dataset.fetch(indices[places]).to(module.device), rng)
        for half in (halves, halves.swapped()):
            start = fits[1].infer(half)
            for column, fit in enumerate(fits):
                # All go on from there, the whole as well: more steps alone predict better.
                for name, nats in fit.predict(half, fit.infer(half, start)).items():
                    rows = places[half.batch.modalities[name].positions.cpu().numpy()]
                    before = np.nan_to_num(found[name][rows, column])
                    found[name][rows, column] = before + nats.cpu().numpy()
    return found
