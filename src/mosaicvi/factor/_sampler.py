"""Answers of a factor model, from posteriors that its cells' values have refined."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from mosaicvi.factor._refine import VALUES_AT_ONCE, Refinement
from mosaicvi.fusion import FullGaussian
from mosaicvi.model._posterior import MAX_CHUNK_CELLS, PosteriorSampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from mosaicvi.factor._factor_module import FactorModule
    from mosaicvi.model._chunks import LatentChunk

N_STEPS = 2
"""Newton steps where they pay: one gets most of what there is, more than two nothing."""


class FactorSampler(PosteriorSampler):
    """A sampler whose posteriors are refined by some Newton steps.

    Parameters
    ----------
    *arguments, **named
        As of :class:`~mosaicvi.model._posterior.PosteriorSampler`.
    n_steps
        Newton steps of each cell; 0: the encoder's posteriors. None: two for cells of whose
        modalities ``gains`` add up to more than nothing.
    gains
        Nats that refinement adds to what a modality says of the others.
    """

    module: FactorModule

    def __init__(
        self,
        *arguments: Any,
        n_steps: int | None,
        gains: Mapping[str, float] | None = None,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self.n_steps, self.gains = n_steps, gains or {}

    def with_steps(self, n_steps: int) -> FactorSampler:
        """The same answers from posteriors that take so many steps."""
        other = copy.copy(self)
        other.n_steps = n_steps
        return other

    @torch.no_grad()
    def latent(
        self,
        indices: np.ndarray,
        from_modalities: Sequence[str] | None,
        *,
        n_cells: int = MAX_CHUNK_CELLS,
        with_values: bool = False,
    ) -> Iterator[LatentChunk]:
        """Posterior of each cell given a subset of its modalities (None: all it has)."""
        names = self.module.modalities if from_modalities is None else tuple(from_modalities)
        exact = all(self.module.decoders[name].likelihood.is_normal for name in names)
        pays = self.n_steps or (
            self.n_steps is None and any(self.gains.get(name, 0.0) > 0 for name in names)
        )
        if not pays or exact:
            yield from super().latent(
                indices, from_modalities, n_cells=n_cells, with_values=with_values
            )
            return
        n_features = sum(self.n_features(name) for name in names)
        size = min(n_cells, max(32, VALUES_AT_ONCE // n_features))
        for chunk in super().latent(indices, names, n_cells=size, with_values=True):
            yield replace(chunk, posterior=self._refined(chunk, names))

    def _refined(self, chunk: LatentChunk, names: Sequence[str]) -> FullGaussian:
        """Posteriors of the cells that it pays for; those of the others as they were."""
        own = chunk.gaussian
        if self.n_steps is not None:
            return Refinement(self.module, chunk.batch, names).run(own.mean, self.n_steps)
        gain = own.pull.new_zeros(len(own.pull))
        for name, part in chunk.batch.modalities.items():
            if name in names:
                gain[part.positions] += self.gains.get(name, 0.0)
        if not bool((gain > 0).any()):
            return own
        found, rows = Refinement(self.module, chunk.batch, names).run(own.mean, N_STEPS), gain > 0
        return FullGaussian(
            torch.where(rows[:, None, None], found.precision, own.precision),
            torch.where(rows[:, None], found.pull, own.pull),
        )
