"""Product of experts."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mosaicvi._types import Bool, Float
from mosaicvi.fusion._base import Fusion, precision_and_pull
from mosaicvi.fusion._gaussian_mixture import GaussianMixture


class ProductOfExperts(Fusion):
    r"""Product of the present experts and the prior N(0, I), itself an expert.

    .. math::
        v = \Big(1 + \sum_m 1 / v_m\Big)^{-1}, \quad \mu = v \sum_m \mu_m / v_m

    (Hinton 2002; Wu and Goodman 2018). One component.
    """

    name: ClassVar[str] = "product_of_experts"

    def __call__(
        self,
        means: Float[Tensor, "modalities cells latent"],
        variances: Float[Tensor, "modalities cells latent"],
        present: Bool[Tensor, "modalities cells"],
    ) -> GaussianMixture:
        """Fuse; see :meth:`Fusion.__call__`."""
        precision, pull = precision_and_pull(means, variances, present)
        variance = (1.0 + precision.sum(0, keepdim=True)).reciprocal()
        weights = means.new_ones(1, means.shape[1])
        return GaussianMixture(weights, variance * pull.sum(0, keepdim=True), variance)
