"""What every network over several modalities has: decoders, and how values arise from them."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.nn._decoder import Decoder
    from mosaicvi.nn._feature_sample import FeatureSample
    from mosaicvi.nn._named_modules import NamedModules
    from mosaicvi.nn._projection import Projection


class MultimodalModule(nn.Module):
    """Base of the networks: everything that does not depend on how latent points are inferred.

    A subclass sets ``modalities``, ``projections``, ``decoders``, ``n_latent`` and
    ``n_categories``, and says how the latent posterior follows from a minibatch.
    """

    modalities: tuple[str, ...]
    projections: NamedModules[Projection]
    decoders: NamedModules[Decoder]
    n_latent: int
    n_categories: tuple[int, ...]
    muted: tuple[str, ...] = ()
    """Modalities without trust, which change nothing in the answers to others."""

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    @property
    def reads_values(self) -> bool:
        """Whether :meth:`experts` reads values, not only their projections."""
        return False

    @abstractmethod
    def experts(self, batch: MultiBatch) -> Any:
        """What each modality says about the cells of a minibatch; has the field ``present``."""

    @abstractmethod
    def posterior(self, experts: Any, subset: Tensor | None = None) -> Any:
        """Latent posterior given a subset of the observed modalities (None: all of them)."""

    @abstractmethod
    def feature_embeddings(self) -> dict[str, Tensor]:
        """What decoders read of features from outside, modality to ``(n_features, n_latent)``."""

    def muted_parameters(self) -> list[nn.Parameter]:
        """Parameters of modalities that must not shape what others learn; none by default."""
        return []

    def draw_feature_embeddings(self, n_samples: int, seed: int) -> dict[str, Tensor]:
        """Return :meth:`feature_embeddings` as a posterior predictive needs them.

        Where they are uncertain, ``(n_samples, n_features, n_latent)``, one set a draw.
        """
        del n_samples, seed
        return self.feature_embeddings()

    def subset_of(self, names: Sequence[str]) -> Tensor:
        """Bool mask ``(n_modalities, 1)`` of the named modalities."""
        mask = [[name in names] for name in self.modalities]
        return torch.tensor(mask, device=self.device)

    def design(self, batch: MultiBatch) -> Tensor | None:
        """Covariate design matrix, shape ``(n_cells, n_covariates)``; None without covariates."""
        parts = []
        if batch.categorical is not None:
            for column, n_levels in enumerate(self.n_categories):
                codes = batch.categorical[:, column]
                one_hot = nn.functional.one_hot(codes.clamp_min(0), n_levels).float()
                parts.append(one_hot * (codes >= 0).unsqueeze(-1))
        if batch.continuous is not None:
            parts.append(batch.continuous)
        return torch.cat(parts, -1) if parts else None

    def reconstruct(
        self, name: str, z: Tensor, batch: MultiBatch, *, linked: Tensor | None = None
    ) -> Tensor:
        """Log-probability of one modality's values given latent draws, in nats.

        Parameters
        ----------
        name
            Modality.
        z
            Latent draws of the minibatch's cells, shape ``(..., n_cells, n_latent)``.
        batch
            The minibatch.
        linked
            The modality's part of :meth:`feature_embeddings`.

        Returns
        -------
        Shape ``(..., n_rows)``, one number for each cell that holds the modality.
        """
        return self.score(name, z[..., batch.modalities[name].positions, :], batch, linked=linked)

    def score(
        self,
        name: str,
        z: Tensor,
        batch: MultiBatch,
        rows: Tensor | None = None,
        *,
        linked: Tensor | None = None,
        sample: FeatureSample | None = None,
    ) -> Tensor:
        """Log-probability of rows of one modality, each at latent points of its own, in nats.

        Parameters
        ----------
        name
            Modality.
        z
            Latent points of the rows, shape ``(..., n_rows, n_latent)``.
        batch
            The minibatch.
        rows
            Numbers into the modality's rows, of which one may appear several times; None: all.
        linked
            The modality's part of :meth:`feature_embeddings`.
        sample
            Features from which it is estimated; None: it is computed from all.

        Returns
        -------
        Shape ``(..., n_rows)``.
        """
        part = batch.modalities[name]
        decoder = self.decoders[name]
        positions, codes, library = part.positions, part.batch, part.library_size
        values, observed = part.values, part.observed
        panel = part.measured(decoder.panel(codes))
        if sample is not None and not isinstance(values, Tensor):
            values = values.select(sample.features)
        if rows is not None:
            positions, codes, library = positions[rows], codes[rows], library[rows]
            values = values[rows] if isinstance(values, Tensor) else values.take(rows)
            observed = None if observed is None else observed[rows]
            panel = None if panel is None else panel[rows]
        if panel is not None:
            observed = panel if observed is None else observed & panel
        design = self.design(batch)
        log_prob: Tensor = decoder.log_prob(
            values,
            z,
            codes,
            library if decoder.likelihood.uses_library_size else None,
            covariates=None if design is None else design[positions],
            panel=panel,
            linked=linked,
            observed=observed,
            sample=sample,
        )
        return log_prob

    def negative_log_prior(self, name: str) -> Tensor:
        """Negative log prior of one modality's hierarchical parameters, in nats, a scalar."""
        nats: Tensor = self.decoders[name].negative_log_prior()
        return nats
