"""Mixture of experts."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mosaicvi._types import Bool, Float
from mosaicvi.fusion._base import Fusion, precision_and_pull
from mosaicvi.fusion._gaussian_mixture import GaussianMixture


class MixtureOfExperts(Fusion):
    r"""Equal mixture of the present experts, each multiplied with the prior N(0, I).

    .. math::
        q = \frac1{|O|} \sum_{m \in O} N(\mu_m / (1 + v_m), v_m / (1 + v_m))

    (Shi et al. 2019). One component a modality; an absent one has weight zero, and is the prior.
    """

    name: ClassVar[str] = "mixture_of_experts"

    def __call__(
        self,
        means: Float[Tensor, "modalities cells latent"],
        variances: Float[Tensor, "modalities cells latent"],
        present: Bool[Tensor, "modalities cells"],
    ) -> GaussianMixture:
        """Fuse; see :meth:`Fusion.__call__`."""
        precision, pull = precision_and_pull(means, variances, present)
        variance = (1.0 + precision).reciprocal()
        # without any modality all components are the prior, equally weighted
        counted = (present | ~present.any(0)).to(means.dtype)
        return GaussianMixture(counted / counted.sum(0), variance * pull, variance)
