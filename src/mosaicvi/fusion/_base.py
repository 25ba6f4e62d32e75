"""What a fusion rule is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from mosaicvi._types import Bool, Float
from mosaicvi.fusion._gaussian_mixture import GaussianMixture


class Fusion(ABC):
    """Combines the experts of the present modalities into one posterior a cell."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(
        self,
        means: Float[Tensor, "modalities cells latent"],
        variances: Float[Tensor, "modalities cells latent"],
        present: Bool[Tensor, "modalities cells"],
    ) -> GaussianMixture:
        """Fuse Gaussian experts with the prior N(0, I).

        An expert is a likelihood factor: with one modality present, every rule returns the expert
        times the prior. With none present, every rule returns the prior.

        Parameters
        ----------
        means
            Expert means, shape ``(n_modalities, n_cells, n_latent)``; anything where absent.
        variances
            Expert variances, same shape, positive where present.
        present
            Which experts count, bool ``(n_modalities, n_cells)``.
        """


def precision_and_pull(
    means: Float[Tensor, "modalities cells latent"],
    variances: Float[Tensor, "modalities cells latent"],
    present: Bool[Tensor, "modalities cells"],
) -> tuple[Float[Tensor, "modalities cells latent"], Float[Tensor, "modalities cells latent"]]:
    """Precision, and precision times mean, of each expert; zero where absent.

    Absent entries may hold NaN: they are replaced before they enter any gradient.

    Returns
    -------
    Two tensors of shape ``(n_modalities, n_cells, n_latent)``.
    """
    shown = present.unsqueeze(-1)
    precision = torch.where(shown, torch.where(shown, variances, 1.0).reciprocal(), 0.0)
    return precision, precision * torch.where(shown, means, 0.0)
