"""One sampler for every answer: latent space, parameters and counts, in bounded memory.

Cells are visited in the order of their names, in chunks whose draws fit a memory budget, and their
noise is keyed by seed and name, but for a part that belongs to their places. So the order in which
cells are asked for changes no bit of an answer, and memory is that of the answer plus one chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mosaicvi._errors import RequestError
from mosaicvi._noise import CellNoise
from mosaicvi._scvi import progress
from mosaicvi.model._answered_batches import AnsweredBatches
from mosaicvi.model._chunks import LatentChunk, PredictiveChunk, PredictiveRequest
from mosaicvi.model._counterparts import MOVED_REACH
from mosaicvi.model._shared_noise import SharedNoise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mosaicvi.data._dataset import MultiDataset
    from mosaicvi.data._mosaic_data import MosaicData
    from mosaicvi.model._counterparts import Counterparts
    from mosaicvi.model._library_pool import LibraryPool, LibraryRule
    from mosaicvi.module import MultimodalModule

CHUNK_BYTES = 128 * 2**20
"""Memory that the draws of one chunk of cells may take, in bytes."""

MAX_CHUNK_CELLS = 2048

LONG_ANSWER = 40
"""Chunks of cells from which an answer shows a progress bar, in the style of scvi-tools' setting
``scvi.settings.progress_bar_style``; its verbosity above ``INFO`` turns bars off."""


class PosteriorSampler:
    """Draws from the posterior of a fitted module for the cells of one MuData.

    Parameters
    ----------
    module
        Fitted network.
    data
        Cells to answer for.
    dataset
        Their minibatches.
    library_pool
        Modality to library sizes of measured cells, and what other modalities tell of them.
    counterparts
        Modality to cells that hold it, where some other modality shares few with it.
    seed
        Seed of every draw.
    """

    def __init__(
        self,
        module: MultimodalModule,
        data: MosaicData,
        dataset: MultiDataset,
        *,
        library_pool: Mapping[str, LibraryPool],
        counterparts: Mapping[str, Counterparts],
        seed: int,
    ) -> None:
        self.module, self.data, self.dataset = module, data, dataset
        self.counterparts = counterparts
        self.library_pool, self.seed = library_pool, seed

    def chunks(self, indices: np.ndarray, n_cells: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places and rows of cells, in the order of their names, ``n_cells`` at a time."""
        order = np.argsort(self.data.obs_names[indices].astype(str), kind="stable")
        starts = range(0, len(order), n_cells)
        for start in progress(starts, disable=len(starts) < LONG_ANSWER):
            places = order[start : start + n_cells]
            yield places, indices[places]

    @torch.no_grad()
    def latent(
        self,
        indices: np.ndarray,
        from_modalities: Sequence[str] | None,
        *,
        n_cells: int = MAX_CHUNK_CELLS,
        with_values: bool = False,
    ) -> Iterator[LatentChunk]:
        """Posterior of each cell given a subset of its modalities (None: all it has).

        Encoders read projections: values are gathered, or read from disk, only where asked for.
        """
        names = self.module.modalities if from_modalities is None else tuple(from_modalities)
        subset = self.module.subset_of(names)
        needed = with_values or self.module.reads_values
        for places, rows in self.chunks(indices, n_cells):
            batch = self.dataset.fetch(rows, with_values=needed).to(self.module.device)
            experts = self.module.experts(batch)
            evidence = (experts.present & subset).any(0).cpu().numpy()
            yield LatentChunk(places, batch, self.module.posterior(experts, subset), evidence)

    def chunk_size(self, n_samples: int, n_features: int) -> int:
        """Cells a chunk so that a few arrays of draws fit the memory budget."""
        per_cell = 8 * 4 * n_samples * n_features
        return int(np.clip(CHUNK_BYTES // per_cell, 1, MAX_CHUNK_CELLS))

    @torch.no_grad()
    def predictive(
        self, indices: np.ndarray, request: PredictiveRequest
    ) -> Iterator[PredictiveChunk]:
        """Draw latent points, batch offsets and library sizes; leave count noise to the caller."""
        decoder = self.module.decoders[request.modality]
        linked = self.module.draw_feature_embeddings(request.n_samples, self.seed).get(
            request.modality
        )
        size = self.chunk_size(request.n_samples, self.n_features(request.modality))
        sizes = request.n_samples, self.module.n_latent
        shared = SharedNoise(self.seed, *sizes)
        moved = SharedNoise(self.seed, *sizes, reach=MOVED_REACH, purpose="counterparts/shared")
        if request.modality in self.counterparts:
            moved = moved.along(self.counterparts[request.modality].directions)
        answered = AnsweredBatches(self.module, self.data, request, self.seed)
        answered.announce(indices)
        for chunk in self.latent(indices, request.from_modalities, n_cells=size):
            rows = chunk.batch.indices.cpu().numpy()
            names = self.data.obs_names[rows]
            own = self.draw_latent(chunk, request.n_samples, shared)
            z = self._carried_over(chunk, request, own, moved)
            offsets, batch = answered.offsets(rows)
            design = self.module.design(chunk.batch)
            library = None
            if decoder.likelihood.uses_library_size:
                library, source = self._libraries(request, chunk, (own, z), answered)
                library = self._complete(
                    request, library, source, (z, batch, offsets, design, linked)
                )
            parameters = decoder.distribution(
                z, batch, library, offsets=offsets, covariates=design, linked=linked
            )
            noise = CellNoise(self.seed, names, purpose=f"counts/{request.modality}")
            yield PredictiveChunk(
                chunk.places, chunk.evidence, decoder.likelihood, parameters, noise
            )

    def draw_latent(
        self, chunk: LatentChunk, n_samples: int, shared: SharedNoise | None = None
    ) -> Tensor:
        """Latent draws of a chunk's cells, shape ``(n_samples, n_cells, n_latent)``.

        Independent from cell to cell, but for what the noise that is given shares between them.
        """
        names = self.data.obs_names[chunk.batch.indices.cpu().numpy()]
        noise = CellNoise(self.seed, names, purpose="latent")
        normal = noise.normal(n_samples, len(names), self.module.n_latent)
        uniform = noise.uniform(n_samples, len(names), 1).squeeze(-1)
        device = self.module.device
        normal = normal.to(device)
        if shared is not None:
            normal = shared.mixed(normal, chunk.posterior.mean)
        return chunk.posterior.rsample(normal, uniform.to(device))

    def _carried_over(
        self, chunk: LatentChunk, request: PredictiveRequest, z: Tensor, shared: SharedNoise
    ) -> Tensor:
        """Latent draws; of counterparts where evidence shares few cells with the answer."""
        found = self.counterparts.get(request.modality)
        if found is None:
            return z
        rows = chunk.batch.indices.cpu().numpy()
        held = {
            name: torch.as_tensor(self.data.modalities[name].rows[rows] >= 0, device=z.device)
            for name in request.from_modalities
            if name in self.data.modalities
        }
        if not held:
            return z
        noise = CellNoise(self.seed, self.data.obs_names[rows], purpose="counterparts")
        uniform = noise.uniform(len(z), len(rows), 1).squeeze(-1).to(z.device)
        asked = chunk.posterior.mean
        return found.carried_over(z, asked, held, uniform, shared.field(asked))

    def n_features(self, modality: str) -> int:
        """Number of features of a modality."""
        return int(self.module.decoders[modality].measured.shape[1])

    def _libraries(
        self,
        request: PredictiveRequest,
        chunk: LatentChunk,
        draws: tuple[Tensor, Tensor],
        answered: AnsweredBatches,
    ) -> tuple[Tensor, Tensor | None]:
        """Library sizes ``(n_samples or 1, n_cells)``, and the batch each comes from.

        ``draws`` are latent ones of cells' own posteriors, and those that the answer is read at.
        Sizes that the user gives come from no batch: None.
        """
        device = self.module.device
        rows = chunk.batch.indices.cpu().numpy()
        if request.library_size is not None and not isinstance(request.library_size, str):
            given = torch.full((1, len(rows)), float(request.library_size), device=device)
            return given, None
        modality = self.data.modalities[request.modality]
        if request.library_size == "observed":
            places = modality.rows[rows]
            if (places < 0).any():
                raise RequestError(
                    f"{int((places < 0).sum())} of the cells were not measured by it",
                    modality=request.modality,
                    key="library_size",
                    expected="cells that hold the modality for library_size='observed'",
                    remedy="give a number, or None to draw from cells that measured it",
                )
            own = torch.as_tensor(modality.library_size[places], device=device).unsqueeze(0)
            codes = torch.as_tensor(modality.cell_batch[rows], device=device)
            return own, codes.unsqueeze(0)
        pool = self.library_pool[request.modality]
        names = self.data.obs_names[rows]
        noise = CellNoise(self.seed, names, purpose=f"library/{request.modality}")
        uniform = noise.uniform(request.n_samples, len(rows), 1).squeeze(-1).numpy()
        told = 0.0 if pool.rule is None else self._told(pool.rule, request, chunk, draws)
        drawn, source = pool.draw(answered.codes(rows), uniform, told)
        return torch.as_tensor(drawn, device=device), torch.as_tensor(source, device=device)

    def _told(
        self,
        rule: LibraryRule,
        request: PredictiveRequest,
        chunk: LatentChunk,
        draws: tuple[Tensor, Tensor],
    ) -> np.ndarray:
        """What evidence tells of the log of library sizes; NaN where it tells nothing."""
        rows, evidence = chunk.batch.indices.cpu().numpy(), request.from_modalities
        places, known = chunk.posterior.mean, chunk.evidence
        if rule.at_draws:
            # Those carried over are places of cells; a cell's own are wider than its place.
            own, z = draws
            places = torch.where((own == z).all(-1, keepdim=True), places, z)
        elif request.modality in evidence:
            # The rule is of places that other modalities give.
            without = (request.modality, *self.module.muted)
            evidence = tuple(each for each in evidence if each not in without)
            if not evidence:
                return np.full(len(rows), np.nan, dtype=np.float32)
            (other,) = self.latent(rows, evidence, n_cells=len(rows))
            places, known = other.posterior.mean, other.evidence
        told = rule.told(places.cpu().numpy(), self.data, rows, evidence)
        return np.where(known, told, np.float32(np.nan))

    def _complete(
        self,
        request: PredictiveRequest,
        library: Tensor,
        source: Tensor | None,
        inputs: tuple[Tensor, Tensor, dict[str, Tensor], Tensor | None, Tensor | None],
    ) -> Tensor:
        """Raise library sizes counted on a part of the features to all that are answered for.

        A size counted on a panel is divided by the share of the cell's composition that the panel
        holds.
        """
        decoder = self.module.decoders[request.modality]
        panels = decoder.panels()
        if source is None or panels is None:
            return library
        z, batch, offsets, design, linked = inputs
        one = torch.ones_like(library)
        unit = decoder.distribution(
            z, batch, one, offsets=offsets, covariates=design, linked=linked
        )
        composition = decoder.likelihood.composition(unit, dict(decoder.feature_parameters.items()))
        shares = composition @ panels.to(composition.dtype).T
        places = source.clamp_min(0)
        share = torch.gather(shares, -1, places.expand(shares.shape[:-1]).unsqueeze(-1)).squeeze(-1)
        share = torch.where(source >= 0, share, 1.0).clamp_min(1e-6)
        n_features = int(panels.shape[1])
        n_counted = torch.where(source >= 0, panels.sum(-1)[places], n_features)
        return decoder.likelihood.complete_library(library, share, n_counted, n_features)
