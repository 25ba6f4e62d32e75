"""Hierarchical batch parameters: shrunk offsets, and what they say of a batch never seen."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mosaicvi._types import Bool, Float, Int
from mosaicvi.nn._measured import Measured, Remembered
from mosaicvi.nn._student import centred, student

POOLING_WEIGHT = 20.0
"""How many feature differences the prior spread counts for when features are pooled."""
MOST_DEVIATIONS = 3.0
"""Standard deviations of its predictive beyond which a new batch's offset is not drawn: offsets act
on a log scale, where a Student variable has no mean to be estimated by draws."""


class BatchOffsets(nn.Module):
    r"""Offsets of each batch and feature around their mean over batches.

    .. math::
        \delta_{s,f} \sim N(0, \sigma_f^2), \qquad
        \sigma_f^2 \sim \mathrm{InvGamma}(\nu/2, \nu \sigma_0^2/2)

    The variance is integrated out, so the offsets of a feature have a multivariate Student prior,
    which cannot collapse to zero as a fitted variance would. A batch that was never measured draws
    its offset from the Student predictive with :math:`\nu + S - 1` degrees of freedom, where S
    batches were measured, around the spread that all features together show. With one measured
    batch that is the prior: informative, not zero.

    Parameters
    ----------
    n_batches
        Number of batches.
    n_features
        Number of features.
    measured
        Which batch measured which feature, bool ``(n_batches, n_features)``.
    prior_scale
        :math:`\sigma_0`, the spread expected between batches, on the head's own (log) scale.
    prior_weight
        :math:`\nu`, how many batches the prior counts for.
    """

    measured: Tensor

    def __init__(
        self,
        n_batches: int,
        n_features: int,
        *,
        measured: Bool[Tensor, "batches features"],
        prior_scale: float,
        prior_weight: float,
    ) -> None:
        super().__init__()
        self.prior_scale, self.prior_weight = prior_scale, prior_weight
        self.raw = nn.Parameter(torch.zeros(n_batches, n_features))
        self.register_buffer("measured", measured.bool())
        self._known = Remembered(Measured.of)

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return int(self.raw.shape[0])

    def table(
        self, features: Int[Tensor, " sampled"] | None = None
    ) -> Float[Tensor, "batches sampled"]:
        """Offsets with mean zero over the measured batches, shape ``(n_batches, n_features)``.

        A batch that did not measure a feature has offset zero there. ``features`` are the numbers
        of those asked for; None: all.
        """
        known = self._known(self.measured)
        raw: Tensor = self.raw
        present, counts = known.present, known.counts
        if features is not None:
            raw, counts = raw.index_select(1, features), counts[features]
            present = None if present is None else present[:, features]
        return centred(raw, present, counts)

    def negative_log_prior(self) -> Float[Tensor, ""]:
        """Student negative log-density of all offsets up to a constant, in nats, a scalar."""
        known = self._known(self.measured)
        weight = self.prior_weight + known.degrees
        scale = self.prior_weight * self.prior_scale**2
        return student(self.raw, known.present, known.counts, weight, scale)

    def pooled_variance(self) -> Float[Tensor, ""]:
        r"""Spread between batches that all features together show, a scalar.

        .. math::
            \frac{n_0 \sigma_0^2 + \sum_f \sum_s \delta_{s,f}^2}{n_0 + \sum_f (S_f - 1)}

        Two batches say little about one feature, but much about the spread that many features
        share (empirical Bayes; Efron and Morris 1973). With one batch it stays the prior's.
        """
        freedom = self._known(self.measured).degrees.sum()
        squares = self.table().square().sum()
        return (POOLING_WEIGHT * self.prior_scale**2 + squares) / (POOLING_WEIGHT + freedom)

    def predictive(self) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
        """Scale and degrees of freedom of a new batch's offset, each ``(n_features,)``."""
        known = self._known(self.measured)
        degrees = self.prior_weight + known.degrees
        squares = self.table().square().sum(0)
        variance = (self.prior_weight * self.pooled_variance() + squares) / degrees
        # The mean over S batches is itself uncertain by a factor 1 / S.
        return (variance * (1 + 1 / known.counts)).sqrt(), degrees

    def draw_new(
        self,
        normal: Float[Tensor, "*draws features"],
        chi_square_uniform: Float[Tensor, "*draws features"],
    ) -> Float[Tensor, "*draws features"]:
        """Offsets of a new batch from standard normal and uniform noise of the same shape.

        Uses the Wilson-Hilferty cube for the chi-square variable, so noise of fixed size suffices.
        Draws end at :data:`MOST_DEVIATIONS`, where a hundredth of them would be beyond.
        """
        scale, degrees = self.predictive()
        standard = math.sqrt(2.0) * torch.erfinv(
            (2 * chi_square_uniform - 1).clamp(-0.999999, 0.999999)
        )
        ratio = 1 - 2 / (9 * degrees) + standard * (2 / (9 * degrees)).sqrt()
        drawn = scale * normal / ratio.clamp_min(0.05).pow(1.5)
        limit = MOST_DEVIATIONS * scale * (degrees / (degrees - 2).clamp_min(1.0)).sqrt()
        return torch.minimum(torch.maximum(drawn, -limit), limit)
