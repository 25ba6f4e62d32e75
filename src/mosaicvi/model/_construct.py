"""From registered data to a network: sizes, frozen projections, starting values, loss weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mosaicvi import likelihoods
from mosaicvi._types import SparseCounts, Values
from mosaicvi.module._build import ModalitySize, ModuleSpec, build_module
from mosaicvi.nn._projection import (
    SMALL_PANEL,
    Projection,
    fit_projection,
    project_in_chunks,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData
    from mosaicvi.likelihoods._base import Likelihood
    from mosaicvi.module._mosaic_module import MosaicModule

MIN_PAIRED_CELLS = 100
"""A modality's decoder gets its residual MLP when at least this many of its cells also hold another
modality (or when the model has only one modality); otherwise it stays bilinear."""


@dataclass(frozen=True)
class NetworkSpec:
    """Choices that fix the network, besides the data.

    Attributes
    ----------
    n_latent, n_hidden, n_layers, dropout_rate
        Latent dimensions; width, depth and dropout rate of the encoders.
    n_projection
        Width of the frozen projections.
    fusion
        Name of the fusion rule.
    batch_prior_scale, batch_prior_weight
        Prior spread between batches on the log scale, and how many batches it counts for.
    embedding_prior_scale
        Prior standard deviation of the feature embeddings' entries.
    """

    n_latent: int
    n_hidden: int
    n_layers: int
    dropout_rate: float
    n_projection: int
    fusion: str
    batch_prior_scale: float
    batch_prior_weight: float
    embedding_prior_scale: float


def depth_of(modality: ModalityData) -> np.ndarray | None:
    """Counts a cell, shape ``(n_modality_cells,)``; None for a modality without counts."""
    if not likelihoods.get(modality.spec.likelihood).is_count:
        return None
    return np.asarray(modality.values.sum(1), dtype=np.float32).ravel()


def construct(
    data: MosaicData, network: NetworkSpec, *, seed: int
) -> tuple[ModuleSpec, MosaicModule]:
    """Build the network for registered data.

    Parameters
    ----------
    data
        Registered data.
    network
        Choices.
    seed
        Seed of the projections and of the initial weights; torch's global state is left alone.
    """
    sizes, projections, starts, measured = {}, {}, {}, {}
    pairing = data.presence.sum(1) >= 2
    for name, modality in data.modalities.items():
        likelihood = likelihoods.get(modality.spec.likelihood)
        depth = depth_of(modality)
        target_sum = (
            float(np.median(depth[depth > 0])) if depth is not None and depth.any() else 1.0
        )
        size = ModalitySize(
            likelihood=modality.spec.likelihood,
            n_features=len(modality.var_names),
            n_batches=max(len(modality.batch_categories), 1),
            n_components=0,
            has_depth=depth is not None,
            has_representation=modality.representation is not None,
            residual=len(data.modalities) == 1
            or int((pairing & (modality.rows >= 0)).sum()) >= MIN_PAIRED_CELLS,
            target_sum=target_sum,
        )
        projection = _fit(modality, likelihood, size, network, depth, seed)
        sizes[name] = _with_width(size, projection)
        projections[name] = projection
        starts[name] = likelihood.start(
            modality.values,
            modality.library_size,
            background=modality.log_background,
            panel=modality.panel,
            batch=modality.batch,
        )
        measured[name] = torch.as_tensor(measured_table(modality, size.n_batches))
    spec = ModuleSpec(
        modalities=sizes,
        n_latent=network.n_latent,
        n_hidden=network.n_hidden,
        n_layers=network.n_layers,
        dropout_rate=network.dropout_rate,
        fusion=network.fusion,
        batch_prior_scale=network.batch_prior_scale,
        batch_prior_weight=network.batch_prior_weight,
        embedding_prior_scale=network.embedding_prior_scale,
        n_categories=tuple(len(c) for c in data.categorical_categories),
        n_continuous=0 if data.continuous is None else data.continuous.shape[1],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_module(spec, projections=projections, starts=starts, measured=measured)
    return spec, module


def measured_table(modality: ModalityData, n_batches: int) -> np.ndarray:
    """Which batch measured which feature, bool ``(n_batches, n_features)``.

    A batch without a single cell of the modality measured nothing.
    """
    present = np.zeros(n_batches, dtype=bool)
    present[np.unique(modality.batch[modality.batch >= 0])] = True
    table = np.repeat(present[:, None], len(modality.var_names), axis=1)
    return table if modality.panel is None else table & modality.panel


def _with_width(size: ModalitySize, projection: Projection) -> ModalitySize:
    width = projection.components.shape[1]
    if size.has_representation:
        width = int(projection.scale.shape[0])
    return ModalitySize(**{**size.__dict__, "n_components": int(width)})


def _fit(
    modality: ModalityData,
    likelihood: Likelihood,
    size: ModalitySize,
    network: NetworkSpec,
    depth: np.ndarray | None,
    seed: int,
) -> Projection:
    if modality.representation is not None:
        center = modality.representation.mean(0)
        spread = modality.representation.std(0)
        moments = None
        if depth is not None:
            log_depth = np.log1p(depth)
            moments = (float(log_depth.mean()), float(max(log_depth.std(), 1e-3)))
        return Projection(center, None, np.where(spread > 1e-6, spread, 1.0), moments)
    encoded = likelihood.encode(
        as_values(modality.values),
        torch.as_tensor(np.ones(modality.values.shape[0], np.float32) if depth is None else depth),
        target_sum=size.target_sum,
    )
    matrix: sp.csr_matrix | np.ndarray
    if isinstance(encoded, SparseCounts):
        parts = (encoded.values.numpy(), encoded.indices.numpy(), encoded.indptr.numpy())
        matrix = sp.csr_matrix(parts, shape=encoded.shape)
    else:
        matrix = encoded.numpy()
    return fit_projection(
        matrix,
        depth,
        n_components=network.n_projection,
        seed=seed,
        small_panel=SMALL_PANEL,
        panel=modality.panel,
        batch=modality.batch,
    )


def as_values(matrix: sp.csr_matrix | np.ndarray) -> Values:
    """A modality's values as the container that likelihoods read."""
    if sp.issparse(matrix):
        return SparseCounts.from_scipy(matrix)
    # A copy: registered arrays are read-only, which torch does not know.
    return torch.from_numpy(np.array(matrix, dtype=np.float32))


def encoder_inputs(
    data: MosaicData, spec: ModuleSpec, module: MosaicModule
) -> dict[str, np.ndarray]:
    """Frozen projections of every modality, computed once.

    Returns
    -------
    Modality to array of shape ``(n_modality_cells, n_inputs)``, float32, rows in the modality's
    order.
    """
    return {
        name: _project(modality, spec.modalities[name], module.projections[name])
        for name, modality in data.modalities.items()
    }


def _project(modality: ModalityData, size: ModalitySize, projection: Projection) -> np.ndarray:
    likelihood = likelihoods.get(size.likelihood)
    depth = depth_of(modality)
    device = projection.center.device
    table = torch.as_tensor(measured_table(modality, size.n_batches))
    whole = modality.panel is None

    def project(rows: slice) -> Tensor:
        n_rows = rows.stop - rows.start
        counts = np.ones(n_rows, np.float32) if depth is None else depth[rows]
        library = torch.as_tensor(counts)
        measured = None
        if modality.representation is not None:
            encoded: Values = as_values(modality.representation[rows])
        else:
            values = as_values(modality.values[rows])
            encoded = likelihood.encode(values, library, target_sum=size.target_sum)
            if not whole:
                codes = torch.from_numpy(modality.batch[rows].copy())
                known = (codes >= 0).unsqueeze(-1)
                measured = torch.where(known, table[codes.clamp_min(0)], True).to(device)
        projected: Tensor = projection(encoded.to(device), library.to(device), measured)
        return projected

    return project_in_chunks(modality.values.shape[0], project)


def modality_weights(nats: Mapping[str, float], alpha: float) -> dict[str, float]:
    """Weight of each modality's likelihood terms, ``(largest nats / its nats) ** alpha``.

    Parameters
    ----------
    nats
        Nats per cell of each modality at the start of training.
    alpha
        0: the plain likelihood, in which a large modality drowns a small one; 1: every modality
        counts alike.
    """
    largest = max(nats.values())
    return {name: float((largest / max(value, 1e-6)) ** alpha) for name, value in nats.items()}
