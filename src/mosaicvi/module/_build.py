"""Build the network from a specification that survives JSON, so that loading needs no data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mosaicvi import fusion, likelihoods
from mosaicvi.likelihoods._base import FeatureStart, Likelihood
from mosaicvi.module._mosaic_module import MosaicModule
from mosaicvi.nn._aligned_inputs import AlignedInputs
from mosaicvi.nn._cross_predictor import CrossPredictor
from mosaicvi.nn._decoder import Decoder
from mosaicvi.nn._encoder import Encoder
from mosaicvi.nn._graph_prior import FeatureGraphPrior, GraphArrays
from mosaicvi.nn._projection import Projection
from mosaicvi.nn._trunk import DecoderSpec

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class ModalitySize:
    """Shape of one modality's networks.

    Attributes
    ----------
    likelihood
        Name of the likelihood.
    n_features, n_batches
        Columns, and levels of the modality's batch key.
    n_components
        Width of the frozen projection; 0 where the panel skips it; for a given representation,
        its width.
    has_depth
        Whether log depth is an encoder input.
    has_representation
        Whether the encoder reads a given representation.
    residual
        Whether the decoder's trunk has its small MLP.
    target_sum
        Counts a cell to which the encode transform scales.
    n_cross_scores, n_cross_members
        Scores of the cross predictor, and cells that took part in its fit.
    n_directions
        Inputs that are shared with other modalities; 0 where modalities are not aligned.
    trust
        From 0 to 1: how far the modality is evidence about the others.
    prior_widening
        Factor of the prior standard deviation of its embeddings' entries.
    """

    likelihood: str
    n_features: int
    n_batches: int
    n_components: int
    has_depth: bool
    has_representation: bool
    residual: bool
    target_sum: float
    n_cross_scores: int = 0
    n_cross_members: int = 0
    n_directions: int = 0
    trust: float = 1.0
    prior_widening: float = 1.0


@dataclass(frozen=True)
class ModuleSpec:
    """Everything that fixes the network's shape.

    Attributes
    ----------
    modalities
        Modality name to its sizes.
    n_latent, n_hidden, n_layers, dropout_rate
        Latent dimensions; width, depth and dropout rate of the encoders.
    fusion
        Name of the fusion rule.
    batch_prior_scale, batch_prior_weight
        Prior of the batch offsets.
    embedding_prior_scale
        Prior standard deviation of the feature embeddings' entries.
    n_categories, n_continuous
        Levels of each categorical covariate; number of continuous ones.
    n_edges
        Edges of the feature graph; None without one.
    """

    modalities: Mapping[str, ModalitySize]
    n_latent: int
    n_hidden: int
    n_layers: int
    dropout_rate: float
    fusion: str
    batch_prior_scale: float
    batch_prior_weight: float
    embedding_prior_scale: float
    n_categories: tuple[int, ...] = field(default=())
    n_continuous: int = 0
    n_edges: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain types for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModuleSpec:
        """From what :meth:`to_dict` returned."""
        sizes = {name: ModalitySize(**size) for name, size in values["modalities"].items()}
        rest = {k: v for k, v in values.items() if k not in {"modalities", "n_categories"}}
        return cls(modalities=sizes, n_categories=tuple(values["n_categories"]), **rest)


def blank_start(likelihood: Likelihood, n_features: int) -> FeatureStart:
    """Zeros in the shape of a likelihood's start, to be overwritten by data or by a file."""
    zeros = np.zeros(n_features, dtype=np.float32)
    return FeatureStart(
        heads={head.name: zeros for head in likelihood.heads},
        parameters=dict.fromkeys(likelihood.feature_parameters, zeros),
    )


def blank_projection(size: ModalitySize) -> Projection:
    """A projection of the right shape, to be overwritten by data or by a file."""
    depth = (0.0, 1.0) if size.has_depth else None
    width = size.n_components or size.n_features
    n_inputs = size.n_components if size.has_representation else size.n_features
    components = (
        None
        if size.has_representation or not size.n_components
        else np.zeros((size.n_features, size.n_components), dtype=np.float32)
    )
    return Projection(np.zeros(n_inputs), components, np.ones(width), depth, size.n_batches)


def blank_predictor(size: ModalitySize) -> CrossPredictor:
    """A cross predictor of the right shape, to be overwritten by data or by a file."""
    n_features = size.n_components if size.has_representation else size.n_features
    return CrossPredictor.blank(n_features, size.n_cross_scores, size.n_cross_members)


def build_module(
    spec: ModuleSpec,
    *,
    projections: Mapping[str, Projection] | None = None,
    predictors: Mapping[str, CrossPredictor] | None = None,
    starts: Mapping[str, FeatureStart] | None = None,
    measured: Mapping[str, torch.Tensor] | None = None,
    aligned: Mapping[str, AlignedInputs] | None = None,
    graph: GraphArrays | None = None,
) -> MosaicModule:
    """Build the network.

    Parameters
    ----------
    spec
        Shapes.
    projections, predictors, starts, measured, aligned, graph
        What was computed from data, by modality; None where a state dictionary will fill it.
    """
    built: dict[str, Projection] = {}
    crossed: dict[str, CrossPredictor] = {}
    encoders: dict[str, Encoder] = {}
    decoders: dict[str, Decoder] = {}
    inputs: dict[str, AlignedInputs] = {}
    for name, size in spec.modalities.items():
        likelihood = likelihoods.get(size.likelihood)
        built[name] = blank_projection(size) if projections is None else projections[name]
        crossed[name] = blank_predictor(size) if predictors is None else predictors[name]
        n_inputs = built[name].n_inputs
        if size.n_directions:
            inputs[name] = blank_aligned(size) if aligned is None else aligned[name]
            n_inputs = inputs[name].n_outputs
        # A modality without trust takes no random number from the others.
        with torch.random.fork_rng(devices=[], enabled=size.trust == 0):
            encoders[name] = _encoder(spec, n_inputs + crossed[name].n_scores)
            decoders[name] = Decoder(
                likelihood,
                blank_start(likelihood, size.n_features) if starts is None else starts[name],
                torch.ones(size.n_batches, size.n_features, dtype=torch.bool)
                if measured is None
                else measured[name],
                _decoder_spec(spec, size),
            )
    return MosaicModule(
        built,
        crossed,
        encoders,
        decoders,
        fusion=fusion.get(spec.fusion),
        n_latent=spec.n_latent,
        n_categories=spec.n_categories,
        aligned=inputs,
        shared_encoder=_shared_encoder(spec, inputs),
        graph=_graph_prior(spec, graph),
        trust={name: size.trust for name, size in spec.modalities.items()},
    )


def blank_aligned(size: ModalitySize) -> AlignedInputs:
    """Shared inputs of the right shape, to be overwritten by data or by a file."""
    width = size.n_components or size.n_features
    return AlignedInputs.blank(size.n_batches, width, size.n_directions, has_depth=size.has_depth)


def _shared_encoder(spec: ModuleSpec, inputs: Mapping[str, AlignedInputs]) -> Encoder | None:
    """Encoder of the inputs that modalities share; None where they share none."""
    if not inputs:
        return None
    return _encoder(spec, next(iter(inputs.values())).n_directions)


def _encoder(spec: ModuleSpec, n_inputs: int) -> Encoder:
    return Encoder(
        n_inputs,
        spec.n_latent,
        n_hidden=spec.n_hidden,
        n_layers=spec.n_layers,
        dropout=spec.dropout_rate,
    )


def _decoder_spec(spec: ModuleSpec, size: ModalitySize) -> DecoderSpec:
    return DecoderSpec(
        n_latent=spec.n_latent,
        n_hidden=spec.n_hidden,
        residual=size.residual,
        batch_prior_scale=spec.batch_prior_scale,
        batch_prior_weight=spec.batch_prior_weight,
        embedding_prior_scale=spec.embedding_prior_scale * size.prior_widening,
        linked=spec.n_edges is not None,
        n_categories=spec.n_categories,
        n_continuous=spec.n_continuous,
    )


def _graph_prior(spec: ModuleSpec, arrays: GraphArrays | None) -> FeatureGraphPrior | None:
    if spec.n_edges is None:
        return None
    if arrays is None:
        sizes = tuple(size.n_features for size in spec.modalities.values())
        arrays = GraphArrays.blank(spec.n_edges, sizes)
    return FeatureGraphPrior(arrays, spec.n_latent, prior_scale=spec.embedding_prior_scale)
