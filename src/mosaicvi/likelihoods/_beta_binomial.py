"""Counts out of counts: methylated reads of the reads that cover a region."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Inexact, Int, Matrix, Real, Values, as_dense
from mosaicvi.likelihoods._base import FeatureStart, Head, Likelihood, Parameters
from mosaicvi.likelihoods._math import full_precision, one_way_clamp

LOGIT_RANGE = (-30.0, 30.0)
"""Range of the log odds of a rate."""

LOG_CONCENTRATION_RANGE = (math.log(0.05), math.log(1e5))
"""Range of the log concentration; at 1e5 draws are binomial for all coverages seen."""


def _precise(tensor: Float[Tensor, "*entries"]) -> Float[Tensor, "*entries"]:
    """Float64 where the device has it: differences of ``lgamma`` would lose digits otherwise."""
    return tensor if tensor.device.type == "mps" else tensor.double()


class _Entries(torch.autograd.Function):
    r"""Log-probability of each entry, with derivatives that the density itself states.

    With :math:`a = p \phi`, :math:`b = (1 - p) \phi` and the digamma function :math:`\psi`,

    .. math::
        \partial_a = \psi(k + a) - \psi(a), &\quad \partial_b = \psi(n - k + b) - \psi(b), \\
        \partial_{\operatorname{logit} p} &= p (1 - p) \phi (\partial_a - \partial_b), \\
        \partial_{\log \phi} &= a \partial_a + b \partial_b
            - \phi (\psi(n + \phi) - \psi(\phi)).
    """

    @staticmethod
    def forward(
        ctx: Any,
        logit: Float[Tensor, "*#entries"],
        log_concentration: Float[Tensor, "*#entries"],
        k: Float[Tensor, "*#entries"],
        n: Float[Tensor, "*#entries"],
    ) -> Float[Tensor, "*entries"]:
        wide = _precise(logit)
        phi = _precise(log_concentration).exp()
        k, n = _precise(k), _precise(n)
        p, q = torch.sigmoid(wide), torch.sigmoid(-wide)
        a, b, rest = p * phi, q * phi, n - k
        chosen = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(rest + 1)
        value = (
            chosen
            + (torch.lgamma(k + a) - torch.lgamma(a))
            + (torch.lgamma(rest + b) - torch.lgamma(b))
            - (torch.lgamma(n + phi) - torch.lgamma(phi))
        )
        if any(ctx.needs_input_grad):
            by_a = torch.digamma(k + a) - torch.digamma(a)
            by_b = torch.digamma(rest + b) - torch.digamma(b)
            by_phi = torch.digamma(n + phi) - torch.digamma(phi)
            by_logit = p * q * phi * (by_a - by_b)
            by_log_phi = a * by_a + b * by_b - phi * by_phi
            ctx.save_for_backward(by_logit.to(logit.dtype), by_log_phi.to(logit.dtype))
            ctx.shapes = (logit.shape, log_concentration.shape)
        return value.to(logit.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, "*entries"]
    ) -> tuple[Float[Tensor, "..."] | None, ...]:
        by_logit, by_log_phi = ctx.saved_tensors
        first, second = ctx.shapes
        return (
            (gradient * by_logit).sum_to_size(first),
            (gradient * by_log_phi).sum_to_size(second),
            None,
            None,
        )


class BetaBinomial(Likelihood):
    r"""``k`` of ``n`` reads, with a rate that varies around its mean.

    .. math::
        k \sim \mathrm{Binomial}(n, r), \quad r \sim \mathrm{Beta}(p \phi, (1 - p) \phi), \quad
        \log p(k) = \log \binom{n}{k} + \log \frac{B(k + p \phi, n - k + (1 - p) \phi)}
        {B(p \phi, (1 - p) \phi)}

    The head is the log odds of :math:`p`; the concentration :math:`\phi` is one a feature. Coverage
    :math:`n` is given, not modelled, and an entry without coverage is missing. Values are pairs
    (``likelihoods/_pairs.py``); mean and draws are rates, :math:`p` and :math:`r`.
    """

    name: ClassVar[str] = "beta_binomial"
    label: ClassVar[str] = "beta-binomial"
    is_count: ClassVar[bool] = False
    uses_library_size: ClassVar[bool] = False
    reads_coverage: ClassVar[bool] = True
    heads: ClassVar[tuple[Head, ...]] = (Head("mean", batch_bias=True, bilinear=True, loading=1.0),)
    feature_parameters: ClassVar[tuple[str, ...]] = ("log_concentration",)

    def shown(self, values: Inexact[Matrix, "cells features"]) -> Float[Matrix, "cells features"]:
        """Rates, NaN without coverage, shape ``(n_cells, n_features)``."""
        rates: np.ndarray = values.real / values.imag
        return rates

    def encode(
        self,
        values: Inexact[Values, "cells features"],
        library_size: Float[Tensor, " cells"],
        *,
        target_sum: float,
    ) -> Float[Tensor, "cells features"]:
        """Rates; ``library_size`` and ``target_sum`` are ignored.

        Not shrunk: a shrunk rate would tell the coverage.
        """
        del library_size, target_sum
        pairs = as_dense(values)
        return pairs.real / pairs.imag

    def parameters(
        self,
        heads: Mapping[str, Float[Tensor, "*draws cells features"]],
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None = None,
        panel: Bool[Tensor, "cells features"] | None = None,
    ) -> dict[str, Float[Tensor, "*#entries"]]:
        """``"logit"`` of the mean rate and ``"log_concentration"``."""
        del library_size, panel
        low, high = LOG_CONCENTRATION_RANGE
        given = full_precision(feature_parameters["log_concentration"])
        return {
            "logit": one_way_clamp(full_precision(heads["mean"]), *LOGIT_RANGE),
            "log_concentration": one_way_clamp(given, low, high),
        }

    def log_prob(
        self,
        values: Inexact[Values, "cells features"],
        parameters: Parameters,
        *,
        observed: Bool[Tensor, "cells features"] | None = None,
    ) -> Float[Tensor, "*draws cells"]:
        """Log-probability of each cell given its coverage, shape ``(..., n_cells)``, in nats.

        Entries that are not observed may hold NaN.
        """
        pairs = as_dense(values)
        if observed is None:
            return self.log_prob_entries(pairs, parameters).sum(-1)
        entries = self.log_prob_entries(pairs.masked_fill(~observed, 0.0), parameters)
        return entries.masked_fill(~observed, 0.0).sum(-1)

    def log_prob_entries(
        self, values: Inexact[Tensor, "*#draws cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        """Log-probability of each entry, shape ``(..., n_cells, n_features)``, in nats."""
        logit, log_concentration = parameters["logit"], parameters["log_concentration"]
        entries: Tensor = _Entries.apply(logit, log_concentration, values.real, values.imag)
        return entries

    def mean(self, parameters: Parameters) -> Float[Tensor, "*draws cells features"]:
        """Mean rate, shape ``(..., n_cells, n_features)``."""
        return torch.sigmoid(parameters["logit"])

    def deviance(
        self, values: Inexact[Tensor, "cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        r"""Binomial deviance of each entry, zero without coverage.

        .. math:: 2 (k \log \frac{k}{n p} + (n - k) \log \frac{n - k}{n (1 - p)})
        """
        k, n = values.real, values.imag
        p = self.mean(parameters).clamp(1e-6, 1 - 1e-6)
        n_safe = n.clamp_min(1.0)
        first = torch.xlogy(k, k / (n_safe * p))
        return 2 * (first + torch.xlogy(n - k, (n - k) / (n_safe * (1 - p))))

    def sample(
        self, parameters: Parameters, noise: CellNoise
    ) -> Float[Tensor, "*draws cells features"]:
        """Draw rates, which coverage without end would show; ``(..., n_cells, n_features)``."""
        p, rest = self.mean(parameters), torch.sigmoid(-parameters["logit"])
        phi = parameters["log_concentration"].exp().expand(p.shape)
        first, second = noise.gamma(p * phi), noise.gamma(rest * phi)
        total = first + second
        # Both may underflow where the concentration is small: the rate is then zero or one.
        either = (noise.uniform(*p.shape).to(p) < p).to(p.dtype)
        return torch.where(total > 0, first / total, either)

    def start(
        self,
        values: Inexact[Matrix, "cells features"],
        library_size: Real[np.ndarray, " cells"],
        *,
        background: Float[np.ndarray, " features"] | None = None,
        panel: Bool[np.ndarray, "batches features"] | None = None,
        batch: Int[np.ndarray, " cells"] | None = None,
    ) -> FeatureStart:
        """Rates of all reads together, with half a read each way, and concentrations by moments.

        Concentrations solve ``sum (k - n p)^2 = sum n p q (1 + (n - 1) rho)``, with
        ``rho = 1 / (1 + concentration)``, shrunk to .1.
        """
        del library_size, background
        n = np.nan_to_num(np.asarray(values.imag, dtype=np.float64))
        k = np.nan_to_num(np.asarray(values.real, dtype=np.float64))
        if panel is not None and batch is not None:
            n, k = n * panel[batch], k * panel[batch]
        p = (k.sum(0) + 0.5) / (n.sum(0) + 1.0)
        spread = p * (1 - p)
        excess = ((k - n * p) ** 2).sum(0) - n.sum(0) * spread
        pairs = (n * np.maximum(n - 1, 0)).sum(0) * spread
        rho = np.clip((excess + 1.0) / (pairs + 10.0), 0.005, 0.9)
        return FeatureStart(
            {"mean": np.log(p / (1 - p)).astype(np.float32)},
            {"log_concentration": np.log(1 / rho - 1).astype(np.float32)},
        )
