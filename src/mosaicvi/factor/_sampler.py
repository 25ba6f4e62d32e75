"""Answers of a factor model, from posteriors that its cells' values have refined."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from mosaicvi.factor._refine import VALUES_AT_ONCE, Refinement
from mosaicvi.model._posterior import MAX_CHUNK_CELLS, LatentChunk, PosteriorSampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from mosaicvi.factor._factor_module import FactorModule


class FactorSampler(PosteriorSampler):
    """A sampler whose posteriors are refined by some Newton steps.

    Parameters
    ----------
    *arguments, **named
        As of :class:`~mosaicvi.model._posterior.PosteriorSampler`.
    n_steps
        Newton steps of each cell; 0: the encoder's posteriors.
    """

    module: FactorModule

    def __init__(self, *arguments: Any, n_steps: int, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.n_steps = n_steps

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
        if not self.n_steps or exact:
            yield from super().latent(
                indices, from_modalities, n_cells=n_cells, with_values=with_values
            )
            return
        n_features = sum(self.n_features(name) for name in names)
        size = min(n_cells, max(32, VALUES_AT_ONCE // n_features))
        for chunk in super().latent(indices, names, n_cells=size, with_values=True):
            refinement = Refinement(self.module, chunk.batch, names)
            yield replace(chunk, posterior=refinement.run(chunk.posterior.mean, self.n_steps))
