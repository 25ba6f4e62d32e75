"""Products of Gaussian experts whose latent dimensions are not independent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mosaicvi._types import Float


@dataclass(frozen=True)
class FullGaussian:
    r"""One Gaussian a cell, by its natural parameters.

    A product of Gaussians adds precisions and pulls:
    :math:`\Lambda = \sum_m \Lambda_m`, :math:`\mu = \Lambda^{-1} \sum_m h_m`.

    Attributes
    ----------
    precision
        Shape ``(n_cells, n_latent, n_latent)``, symmetric and positive definite.
    pull
        Precision times mean, shape ``(n_cells, n_latent)``.
    """

    precision: Float[Tensor, "cells latent latent"]
    pull: Float[Tensor, "cells latent"]

    @cached_property
    def cholesky(self) -> Float[Tensor, "cells latent latent"]:
        """Lower Cholesky factor of the precision."""
        factor: Tensor = torch.linalg.cholesky(self.precision)
        return factor

    @cached_property
    def root(self) -> Float[Tensor, "cells latent latent"]:
        """Inverse R of the Cholesky factor: the covariance is ``R^T R``."""
        eye = torch.eye(self.pull.shape[-1], dtype=self.pull.dtype, device=self.pull.device)
        inverse: Tensor = torch.linalg.solve_triangular(
            self.cholesky, eye.expand_as(self.cholesky), upper=False
        )
        return inverse

    @cached_property
    def mean(self) -> Float[Tensor, "cells latent"]:
        """Mean, shape ``(n_cells, n_latent)``."""
        inner = torch.einsum("cij,cj->ci", self.root, self.pull)
        return torch.einsum("cij,ci->cj", self.root, inner)

    @property
    def variance(self) -> Float[Tensor, "cells latent"]:
        """Marginal variance of each coordinate, shape ``(n_cells, n_latent)``."""
        return self.root.square().sum(-2)

    def rsample(
        self,
        noise: Float[Tensor, "*draws cells latent"],
        uniforms: Float[Tensor, "*draws cells"] | None = None,
    ) -> Float[Tensor, "*draws cells latent"]:
        """Draw by reparametrisation from standard normal noise; ``uniforms`` are not needed."""
        del uniforms
        return self.mean + torch.einsum("...ci,cij->...cj", noise, self.root)

    def kl_to(self, prior_variance: Float[Tensor, "*#cells latent"]) -> Float[Tensor, " cells"]:
        r"""Divergence to a Gaussian of mean zero and diagonal variance, in nats.

        .. math::
            \tfrac12 \big(\sum_k (\Sigma_{kk} + \mu_k^2) / s_k^2 - K
            + \log |\Lambda| + \sum_k \log s_k^2\big)
        """
        quadratic = ((self.variance + self.mean.square()) / prior_variance - 1.0).sum(-1)
        log_determinant = 2.0 * self.cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return 0.5 * (quadratic + log_determinant + prior_variance.log().sum(-1))
