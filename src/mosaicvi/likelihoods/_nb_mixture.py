"""Two negative binomials: background and foreground, as antibody counts show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from mosaicvi._compiled import LARGEST_LOG_MEAN
from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Int, Matrix, Real, SparseCounts, Values, as_dense
from mosaicvi.likelihoods._base import FeatureStart, Head, Likelihood, Parameters
from mosaicvi.likelihoods._composition import dispersion_from_log, gamma_poisson
from mosaicvi.likelihoods._fused_mixture import fused_mixture
from mosaicvi.likelihoods._math import (
    broadcast_shape,
    full_precision,
    log_sigmoids,
    one_way_clamp,
    reduce_to,
    row_blocks,
    take_rows,
    without_graph,
)
from mosaicvi.likelihoods._nb_density import negative_binomial
from mosaicvi.likelihoods._split import split_log_counts


def _pair(
    low: Float[Tensor, "*#entries"], high: Float[Tensor, "*#entries"], n_axes: int
) -> Float[Tensor, "2 ..."]:
    """Parameters of both components on a new first axis, before ``n_axes`` others."""
    low, high = (part.reshape((1,) * (n_axes - part.dim()) + part.shape) for part in (low, high))
    return torch.stack(torch.broadcast_tensors(low, high))


def _block(
    x: Float[Tensor, "*#draws cells features"],
    parameters: Sequence[Float[Tensor, "*#entries"]],
    gradients: bool,
) -> tuple[Float[Tensor, "*#entries"], ...]:
    """Log density of the entries of some cells, and their five derivatives if asked for.

    Parameters are log means of background and foreground, logit of background, and dispersions
    of background and foreground.
    """
    log_background, log_foreground, logit, theta_background, theta_foreground = parameters
    # Both components at once: on a small panel, calls cost more than arithmetic.
    n_axes = max(part.dim() for part in (x, *parameters))
    both, by_mean, by_theta = negative_binomial(
        x,
        _pair(log_background, log_foreground, n_axes).exp(),
        _pair(theta_background, theta_foreground, n_axes),
        gradients=gradients,
    )
    low, high = both
    log_share, log_rest = log_sigmoids(logit)
    low, high = low + log_share, high + log_rest
    value = torch.logaddexp(low, high)
    if not gradients:
        return (value,)
    share = torch.sigmoid(low - high)  # posterior of background
    rest = torch.sigmoid(high - low)
    return (
        value,
        by_mean[0] * share,
        by_mean[1] * rest,
        share - torch.sigmoid(logit),
        by_theta[0] * share,
        by_theta[1] * rest,
    )


class _Rows(torch.autograd.Function):
    """Log density of each cell or entry, with hand-written derivatives.

    The forward pass keeps five derivatives instead of the dozens of temporaries that autograd
    would keep for two densities and their mixture.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "*#draws cells features"],
        observed: Bool[Tensor, "cells features"] | None,
        entries: bool,
        *parameters: Float[Tensor, "*#entries"],
    ) -> Float[Tensor, "*draws cells features"] | Float[Tensor, "*draws cells"]:
        gradients = any(ctx.needs_input_grad[3:])
        shape = broadcast_shape(*parameters, values=x)
        value = x.new_empty(shape)
        derivatives = [x.new_empty(shape) for _ in parameters] if gradients else []
        for rows in row_blocks(shape, x.device):
            parts = _block(take_rows(x, rows), [take_rows(t, rows) for t in parameters], gradients)
            for whole, part in zip((value, *derivatives), parts, strict=True):
                whole[..., rows, :] = part
        if observed is not None:
            for whole in (value, *derivatives):
                whole.masked_fill_(~observed, 0.0)
        if gradients:
            ctx.save_for_backward(*derivatives)
            ctx.shapes = [t.shape for t in parameters]
        ctx.entries = entries
        return value if entries else value.sum(-1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, "*draws cells features"] | Float[Tensor, "*draws cells"]
    ) -> tuple[Float[Tensor, "..."] | None, ...]:
        parts = zip(ctx.saved_tensors, ctx.shapes, strict=True)
        if ctx.entries:
            return None, None, None, *((gradient * p).sum_to_size(shape) for p, shape in parts)
        return None, None, None, *(reduce_to(gradient, p, shape) for p, shape in parts)


class NegativeBinomialMixture(Likelihood):
    r"""``x ~ pi NB(background) + (1 - pi) NB(foreground)`` for each cell and feature.

    The decoder's heads are the log background mean ``b``, the foreground excess ``f`` and the
    logit of background ``l``: background mean ``exp(b)``, foreground mean
    ``exp(b) (1 + exp(f))``, ``pi = sigmoid(l)``; each component has a dispersion a feature. The
    parametrisation follows totalVI (Gayoso et al. 2021), without its bounds.
    """

    name: ClassVar[str] = "nb_mixture"
    label: ClassVar[str] = "mixture of background and foreground negative binomials"
    is_count: ClassVar[bool] = True
    uses_library_size: ClassVar[bool] = False
    heads: ClassVar[tuple[Head, ...]] = (
        Head("foreground", batch_bias=True, bilinear=True, loading=1.0),
        Head("background", batch_bias=True),
        Head("mixing", loading=-1.0),
    )
    feature_parameters: ClassVar[tuple[str, ...]] = (
        "log_dispersion_background",
        "log_dispersion_foreground",
    )

    def encode(
        self,
        values: Float[Values, "cells features"],
        library_size: Float[Tensor, " cells"],
        *,
        target_sum: float,
    ) -> Float[Values, "cells features"]:
        """``log1p(values)``; ``library_size`` and ``target_sum`` are ignored."""
        del library_size, target_sum
        if isinstance(values, SparseCounts):
            return values.with_values(torch.log1p(values.values))
        return torch.log1p(values)

    def parameters(
        self,
        heads: Mapping[str, Float[Tensor, "*draws cells features"]],
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None = None,
        panel: Bool[Tensor, "cells features"] | None = None,
    ) -> dict[str, Float[Tensor, "*#entries"]]:
        """Component means (``"background_mean"``, ``"foreground_mean"``, and their logs).

        Also ``"mixing_logit"`` (of background), ``"dispersion_background"`` and
        ``"dispersion_foreground"``. ``library_size`` and ``panel`` are ignored: features do not
        share a composition. Whoever changes a mean must drop or change its ``"log_..."`` too.
        """
        del library_size, panel
        bound = LARGEST_LOG_MEAN
        low = one_way_clamp(full_precision(heads["background"]), -bound, bound)
        high = one_way_clamp(low + softplus(full_precision(heads["foreground"])), -bound, bound)
        return {
            "background_mean": low.exp(),
            "foreground_mean": high.exp(),
            "log_background_mean": low,
            "log_foreground_mean": high,
            "mixing_logit": full_precision(heads["mixing"]),
            "dispersion_background": dispersion_from_log(
                feature_parameters["log_dispersion_background"]
            ),
            "dispersion_foreground": dispersion_from_log(
                feature_parameters["log_dispersion_foreground"]
            ),
        }

    @staticmethod
    def _arguments(parameters: Parameters) -> tuple[Float[Tensor, "*#entries"], ...]:
        logs = (
            parameters[f"log_{name}"] if f"log_{name}" in parameters else parameters[name].log()
            for name in ("background_mean", "foreground_mean")
        )
        names = ("mixing_logit", "dispersion_background", "dispersion_foreground")
        return without_graph(*logs, *(parameters[name] for name in names))

    def log_prob(
        self,
        values: Float[Values, "cells features"],
        parameters: Parameters,
        *,
        observed: Bool[Tensor, "cells features"] | None = None,
    ) -> Float[Tensor, "*draws cells"]:
        """Log-probability of each cell, shape ``(..., n_cells)``, in nats."""
        arguments = self._arguments(parameters)
        value: Tensor = _Rows.apply(as_dense(values), observed, False, *arguments)
        return value

    def log_prob_of_heads(
        self,
        values: Float[Values, "cells features"],
        heads: Mapping[str, Float[Tensor, "*draws cells features"]],
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None = None,
        panel: Bool[Tensor, "cells features"] | None = None,
        observed: Bool[Tensor, "cells features"] | None = None,
        weights: Float[Tensor, " features"] | None = None,
    ) -> Float[Tensor, "*draws cells"]:
        """Log-probability of each cell, shape ``(..., n_cells)``, in nats."""
        names = ("background", "foreground", "mixing")
        theta = [
            dispersion_from_log(feature_parameters[f"log_dispersion_{name}"]) for name in names[:2]
        ]
        arguments = without_graph(*(heads[name] for name in names), *theta)
        fused = fused_mixture(as_dense(values), observed, arguments[:3], arguments[3:])
        if fused is not None:
            return fused
        return super().log_prob_of_heads(
            values,
            heads,
            feature_parameters,
            library_size=library_size,
            panel=panel,
            observed=observed,
            weights=weights,
        )

    def log_prob_entries(
        self, values: Float[Tensor, "*#draws cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        """Log-probability of each entry, shape ``(..., n_cells, n_features)``, in nats."""
        arguments = self._arguments(parameters)
        value: Tensor = _Rows.apply(values, None, True, *arguments)
        return value

    def foreground_probability(
        self, values: Float[Values, "cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        """Posterior probability that each entry is foreground, ``(..., n_cells, n_features)``."""
        low, high, logit, theta_low, theta_high = (t.detach() for t in self._arguments(parameters))
        x = as_dense(values)
        background, _, _ = negative_binomial(x, low.exp(), theta_low, gradients=False)
        foreground, _, _ = negative_binomial(x, high.exp(), theta_high, gradients=False)
        return torch.sigmoid(foreground - background - logit)

    def mean(self, parameters: Parameters) -> Float[Tensor, "*draws cells features"]:
        """Mean counts of the mixture, shape ``(..., n_cells, n_features)``."""
        share = torch.sigmoid(parameters["mixing_logit"])
        return torch.lerp(parameters["foreground_mean"], parameters["background_mean"], share)

    def sample(
        self, parameters: Parameters, noise: CellNoise
    ) -> Float[Tensor, "*draws cells features"]:
        """Draw counts, shape ``(..., n_cells, n_features)``."""
        share = torch.sigmoid(parameters["mixing_logit"])
        low, high = parameters["background_mean"], parameters["foreground_mean"]
        shape = torch.broadcast_shapes(share.shape, low.shape, high.shape)
        is_background = noise.uniform(*shape).to(share) < share
        theta = torch.where(
            is_background, parameters["dispersion_background"], parameters["dispersion_foreground"]
        )
        return gamma_poisson(torch.where(is_background, low, high), theta, noise)

    def start(
        self,
        values: Real[Matrix, "cells features"],
        library_size: Real[np.ndarray, " cells"],
        *,
        background: Float[np.ndarray, " features"] | None = None,
        panel: Bool[np.ndarray, "batches features"] | None = None,
        batch: Int[np.ndarray, " cells"] | None = None,
    ) -> FeatureStart:
        """Background, foreground and mixing from a split of each feature's log1p counts."""
        del library_size
        measured = None if panel is None or batch is None else panel[batch]
        split = split_log_counts(values, background=background, measured=measured)
        excess = np.log(np.expm1(np.maximum(split.log_foreground - split.log_background, 0.4)))
        return FeatureStart(
            {
                "foreground": excess.astype(np.float32),
                "background": split.log_background.astype(np.float32),
                "mixing": split.logit_background.astype(np.float32),
            },
            {
                "log_dispersion_background": split.log_dispersion_background.astype(np.float32),
                "log_dispersion_foreground": split.log_dispersion_foreground.astype(np.float32),
            },
        )
