"""What a sampler is asked for, and what it hands on for a few cells at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mosaicvi.fusion import FullGaussian, GaussianMixture

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mosaicvi._noise import CellNoise
    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.likelihoods._base import Likelihood


@dataclass(frozen=True)
class PredictiveRequest:
    """What is to be drawn.

    Attributes
    ----------
    modality
        Modality of the answer.
    from_modalities
        Modalities whose values may be used as evidence.
    n_samples
        Draws a cell.
    transform_batch
        Codes of batches to answer for, of which each draw takes one; None: each cell's own.
    library_size
        Counts a cell to answer for; ``"observed"``: each cell's own; None: drawn from cells that
        measured the modality (of the batch that is answered for, where it measured), at what
        evidence tells of them.
    """

    modality: str
    from_modalities: tuple[str, ...]
    n_samples: int
    transform_batch: tuple[int, ...] | None = None
    library_size: float | str | None = None


@dataclass(frozen=True)
class LatentChunk:
    """Latent posterior of a few cells.

    Attributes
    ----------
    places
        Where these cells stand among those asked for, shape ``(n_cells,)``.
    batch
        Their values.
    posterior
        Their posterior given the evidence.
    evidence
        Whether a cell has any of the evidence, bool ``(n_cells,)``.
    """

    places: np.ndarray
    batch: MultiBatch
    posterior: GaussianMixture | FullGaussian
    evidence: np.ndarray

    @property
    def mixture(self) -> GaussianMixture:
        """The posterior, of models whose posteriors are mixtures."""
        if not isinstance(self.posterior, GaussianMixture):
            raise TypeError(f"a {type(self.posterior).__name__} is no mixture")
        return self.posterior

    @property
    def gaussian(self) -> FullGaussian:
        """The posterior, of models whose latent dimensions are not independent."""
        if not isinstance(self.posterior, FullGaussian):
            raise TypeError(f"a {type(self.posterior).__name__} is not one Gaussian a cell")
        return self.posterior


@dataclass(frozen=True)
class PredictiveChunk:
    """Distribution parameters of a few cells, one set a draw.

    Attributes
    ----------
    places, evidence
        As in :class:`LatentChunk`.
    likelihood
        Likelihood of the answer.
    parameters
        Distribution parameters, broadcastable to ``(n_samples, n_cells, n_features)``.
    noise
        Source of the count noise.
    """

    places: np.ndarray
    evidence: np.ndarray
    likelihood: Likelihood
    parameters: dict[str, Tensor]
    noise: CellNoise

    def counts(self) -> Tensor:
        """Draws with count noise, shape ``(n_samples, n_cells, n_features)``."""
        return self.likelihood.sample(self.parameters, self.noise)

    def mean(self) -> Tensor:
        """Mean of the likelihood at each draw, shape ``(n_samples, n_cells, n_features)``."""
        return self.likelihood.mean(self.parameters)
