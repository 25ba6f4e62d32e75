"""Build the factor network from sizes that survive JSON, so that loading needs no data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from mosaicvi import likelihoods
from mosaicvi.factor._expert import LinearExpert
from mosaicvi.factor._factor_module import FactorModule
from mosaicvi.factor._weights import SparseWeights
from mosaicvi.module._build import ModalitySize, blank_projection, blank_start
from mosaicvi.nn._decoder import Decoder
from mosaicvi.nn._trunk import DecoderSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.likelihoods._base import FeatureStart
    from mosaicvi.nn._projection import Projection

BATCH_PRIOR_SCALE, BATCH_PRIOR_WEIGHT = 0.5, 4.0
"""Prior of the batch offsets, as in MosaicVI."""


@dataclass(frozen=True)
class FactorSpec:
    """Everything that fixes the network's shape.

    Attributes
    ----------
    modalities
        Modality name to its sizes.
    factors
        Names of the factors.
    groups
        Names of the groups; empty without groups.
    nonnegative
        Modalities whose weights are at least zero.
    informed
        Factors that have a gene set for a prior, which they are named after.
    n_categories, n_continuous
        Levels of each categorical covariate; number of continuous ones.
    stability
        Absolute correlation of each factor with its partner in each of the other restarts,
        ``(n_factors, n_restarts - 1)``; empty without restarts. Saved with the sizes.
    halves
        The same in the fits of either half of the cells, ``(n_factors, 2)``; empty without.
    gains
        Nats that refined posteriors of a modality add to what is said of the others; without those
        of which it is not known.
    """

    modalities: Mapping[str, ModalitySize]
    factors: tuple[str, ...]
    groups: tuple[str, ...] = ()
    nonnegative: tuple[str, ...] = ()
    informed: tuple[str, ...] = ()
    n_categories: tuple[int, ...] = ()
    n_continuous: int = 0
    stability: tuple[tuple[float, ...], ...] = ()
    halves: tuple[tuple[float, ...], ...] = ()
    gains: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain types for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FactorSpec:
        """From what :meth:`to_dict` returned."""
        sizes = {name: ModalitySize(**size) for name, size in values["modalities"].items()}
        names = ("factors", "groups", "nonnegative", "informed", "n_categories")
        rest = {key: tuple(values.get(key, ())) for key in names}
        rest |= {
            key: tuple(tuple(row) for row in values.get(key, ())) for key in ("stability", "halves")
        }
        gains = {name: float(value) for name, value in values.get("gains", {}).items()}
        return cls(modalities=sizes, n_continuous=values["n_continuous"], gains=gains, **rest)


def build_factor_module(
    spec: FactorSpec,
    *,
    projections: Mapping[str, Projection] | None = None,
    starts: Mapping[str, FeatureStart] | None = None,
    measured: Mapping[str, torch.Tensor] | None = None,
) -> FactorModule:
    """Build the network.

    Parameters
    ----------
    spec
        Shapes.
    projections, starts, measured
        What was computed from data, by modality; None where a state dictionary will fill it.
    """
    n_factors = len(spec.factors)
    built, experts, weights, decoders = {}, {}, {}, {}
    for name, size in spec.modalities.items():
        likelihood = likelihoods.get(size.likelihood)
        built[name] = blank_projection(size) if projections is None else projections[name]
        width = built[name].n_inputs - int(size.has_depth)
        experts[name] = LinearExpert(
            width,
            n_factors,
            size.n_batches,
            has_depth=size.has_depth,
            warped=likelihood.is_count,
        )
        weights[name] = SparseWeights(
            size.n_features, n_factors, nonnegative=name in spec.nonnegative
        )
        decoders[name] = Decoder(
            likelihood,
            blank_start(likelihood, size.n_features) if starts is None else starts[name],
            torch.ones(size.n_batches, size.n_features, dtype=torch.bool)
            if measured is None
            else measured[name],
            DecoderSpec(
                n_latent=n_factors,
                n_hidden=1,
                residual=False,
                batch_prior_scale=BATCH_PRIOR_SCALE,
                batch_prior_weight=BATCH_PRIOR_WEIGHT,
                embedding_prior_scale=1.0,
                linked=True,
                own=False,
                n_categories=spec.n_categories,
                n_continuous=spec.n_continuous,
            ),
        )
    return FactorModule(
        built,
        experts,
        weights,
        decoders,
        n_groups=len(spec.groups),
        n_categories=spec.n_categories,
    )
