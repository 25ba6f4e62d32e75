"""Weights and schedules of the loss terms, and what an objective returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING

from mosaicvi._errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor


def check_number(
    key: str, value: object, least: float = 0.0, most: float = math.inf, *, whole: bool = False
) -> None:
    """Refuse what is no number, or out of range; NaN is in no range.

    Parameters
    ----------
    key, value
        Name and value of the argument.
    least, most
        Range, bounds included.
    whole
        Whether it must be a whole number.

    Raises
    ------
    RequestError
        If it is not.
    """
    if isinstance(value, Integral if whole else Real) and least <= float(value) <= most:
        return
    kind = "a whole number" if whole else "a number"
    bounds = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
    raise RequestError(f"found {value!r}", key=key, expected=f"{kind}, {bounds}")


@dataclass(frozen=True)
class ObjectiveSpec:
    """Weights and schedules of the loss terms.

    :meth:`mosaicvi.MosaicVI.train` takes these defaults for what ``plan_kwargs`` does not name, but
    measures ``modality_weights``, and with 5,000 training cells or more, and no anchors, sets
    ``decoded_features`` to a quarter of the features of each ``nb``, ``zinb`` and ``poisson``
    modality, at least 1,000, and ``cross_features`` to 250. Where one of these two is given, the
    other has the default here.

    Attributes
    ----------
    kl_weight
        Weight of ``kl``. Below one the fit gives predictive draws, not a Bayesian posterior.
    cross_weight, consistency_weight, contrastive_weight, alignment_weight
        Weights of the terms of the same name at the end of their warm-up.
    graph_weight
        Weight of ``graph``.
    n_cross_samples
        Draws K of the cross term.
    cross_features
        A modality that decodes more features evaluates its cross term on a random share of cells,
        this number over the features that it decodes.
    decoded_features
        Features of a modality that a training step decodes at most, or modality to that number; of
        a modality with more, a step estimates the likelihood from a sample
        (:mod:`~mosaicvi.nn._feature_sample`). None: all.
    modality_weights
        Modality to the weight of its reconstruction, cross and prior terms; of those that are not
        named it is measured by :meth:`mosaicvi.MosaicVI.train`, and else one.
    own_weights
        Modality to the weight of its reconstruction, where it is not that of its other terms:
        measured with ``modality_weights``, for a modality whose counts are mostly noise, and for
        continuous values, whose noise is learnt along.
    thinned
        Share of the cells of a minibatch whose ``nb`` and ``zinb`` counts encoders read as if they
        had been sequenced less deeply (:mod:`mosaicvi.model._thinning`): for models that are to
        answer for cells of other depths, at a small price for cells of the same.
    warmup
        Fraction of training over which ``kl``, ``cross``, ``consistency``, ``contrastive`` and
        ``alignment`` rise linearly to their weights.
    temperature_range
        Bounds of the learnt InfoNCE temperature.
    n_train_cells
        Cells of the training split, which divide the ``prior`` term.
    """

    kl_weight: float = 0.5
    cross_weight: float = 1.0
    consistency_weight: float = 0.1
    contrastive_weight: float = 0.1
    alignment_weight: float = 10.0
    graph_weight: float = 10.0
    n_cross_samples: int = 5
    cross_features: int = 500
    decoded_features: int | Mapping[str, int] | None = None
    modality_weights: Mapping[str, float] = field(default_factory=dict)
    own_weights: Mapping[str, float] = field(default_factory=dict)
    thinned: float = 0.0
    warmup: float = 0.1
    temperature_range: tuple[float, float] = (0.05, 1.0)
    n_train_cells: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers with which no fit comes anywhere."""
        for key in (each.name for each in fields(self) if each.name.endswith("_weight")):
            check_number(key, getattr(self, key))
        check_number("warmup", self.warmup, 0, 1)
        check_number("thinned", self.thinned, 0, 1)
        check_number("n_cross_samples", self.n_cross_samples, 1, whole=True)
        limits = self.decoded_features
        for limit in limits.values() if isinstance(limits, Mapping) else (limits,):
            if limit is not None:
                check_number("decoded_features", limit, 1, whole=True)
        for key in ("modality_weights", "own_weights"):
            weights = getattr(self, key)
            if not isinstance(weights, Mapping):
                raise RequestError(
                    f"found {weights!r}",
                    key=key,
                    expected="a dictionary of modalities and their weights",
                )
            for weight in weights.values():
                check_number(key, weight)
        low, high = self.temperature_range
        if not 0 < low <= high:
            raise RequestError(
                f"found {self.temperature_range!r}",
                key="temperature_range",
                expected="two numbers above 0, the lower one first",
            )

    def at(self, progress: float) -> dict[str, float]:
        """Weights of the scheduled terms when a fraction ``progress`` of training is done."""
        rise = 1.0 if self.warmup <= 0 else min(1.0, progress / self.warmup)
        return {
            "kl": self.kl_weight * rise,
            "cross": self.cross_weight * rise,
            "consistency": self.consistency_weight * rise,
            "contrastive": self.contrastive_weight * rise,
            "alignment": self.alignment_weight * rise,
            "graph": self.graph_weight,
            "prior": 1.0,
        }


@dataclass(frozen=True)
class Losses:
    """Loss terms of one minibatch.

    Attributes
    ----------
    terms
        Name to unweighted value, in nats per cell that the term concerns, scalars.
    total
        Weighted sum that training descends, a scalar.
    score
        The same without modalities that have no trust: what epochs are compared by.
    by_cell
        What each cell adds to the score, ``(n_cells,)``, but for terms that cells share (priors,
        consistency, contrast): how sure a comparison is. None in training, and where an objective
        does not tell.
    """

    terms: dict[str, Tensor]
    total: Tensor
    score: Tensor
    by_cell: Tensor | None = None
