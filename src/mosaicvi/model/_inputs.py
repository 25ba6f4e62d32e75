"""Inputs of the encoders: encoded values, frozen projections, cross-modal predictions.

All of it is fitted once, when a model is built, and never trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mosaicvi import likelihoods
from mosaicvi._types import SparseCounts, Values
from mosaicvi.nn._cross_predictor import CrossPredictor
from mosaicvi.nn._cross_regression import CrossRegression, Pairing, fit_regression
from mosaicvi.nn._projection import (
    SMALL_PANEL,
    Projection,
    fit_projection,
    project_in_chunks,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData
    from mosaicvi.module._build import ModuleSpec
    from mosaicvi.module._mosaic_module import MosaicModule
    from mosaicvi.nn._aligned_inputs import AlignedInputs

CELLS_A_COMPONENT = 100
CELLS_AN_ALIGNED_COMPONENT = 20
WIDTH_RANGE = (10, 64)
"""Default width of a frozen projection: one component for so many cells, within these bounds."""


def default_width(n_cells: int, *, align: bool = False) -> int:
    """Width of a frozen projection: what a hundred cells a component can support.

    A wide projection lets the encoder overfit on a thousand cells (decisions, "Width of the
    projection"). Where modalities are aligned by anchors, encoders see shared scores of it, and
    these are found in a wide one: twenty cells a component.
    """
    cells = CELLS_AN_ALIGNED_COMPONENT if align else CELLS_A_COMPONENT
    return int(np.clip(n_cells // cells, *WIDTH_RANGE))


def depth_of(modality: ModalityData) -> np.ndarray | None:
    """Counts a cell, shape ``(n_modality_cells,)``; None for a modality without counts."""
    if not likelihoods.get(modality.spec.likelihood).is_count:
        return None
    return np.asarray(modality.values.sum(1), dtype=np.float32).ravel()


def measured_table(modality: ModalityData, n_batches: int) -> np.ndarray:
    """Which batch measured which feature, bool ``(n_batches, n_features)``.

    A batch without a single cell of the modality measured nothing.
    """
    present = np.zeros(n_batches, dtype=bool)
    present[np.unique(modality.batch[modality.batch >= 0])] = True
    table = np.repeat(present[:, None], len(modality.var_names), axis=1)
    return table if modality.panel is None else table & modality.panel


def fit_modality_projection(
    modality: ModalityData, *, n_components: int, target_sum: float, seed: int
) -> Projection:
    """Fit the frozen projection of one modality.

    Parameters
    ----------
    modality
        Registered cells.
    n_components
        Width.
    target_sum
        Counts a cell to which the encode transform scales.
    seed
        Seed of the decomposition.
    """
    depth = depth_of(modality)
    if modality.representation is not None:
        center = modality.representation.mean(0)
        spread = modality.representation.std(0)
        moments = None
        if depth is not None:
            log_depth = np.log1p(depth)
            moments = (float(log_depth.mean()), float(max(log_depth.std(), 1e-3)))
        return Projection(center, None, np.where(spread > 1e-6, spread, 1.0), moments)
    return fit_projection(
        encode(modality, target_sum),
        depth,
        n_components=n_components,
        seed=seed,
        small_panel=SMALL_PANEL,
        weights=likelihoods.get(modality.spec.likelihood).feature_weights(modality.values),
        panel=modality.panel,
        batch=modality.batch,
    )


def fit_regressions(
    data: MosaicData,
    projections: Mapping[str, Projection],
    target_sums: Mapping[str, float],
    keys: np.ndarray,
    *,
    seed: int,
) -> dict[str, dict[str, CrossRegression | None]]:
    """Regress, for each modality, the others' projections on its features.

    Parameters
    ----------
    data
        Registered data.
    projections
        Modality to its frozen projection.
    target_sums
        Modality to the counts a cell to which its encode transform scales.
    keys
        Keys of the cells' names, shape ``(n_cells,)``, int64.
    seed
        Seed of subsamples.

    Returns
    -------
    Modality to each other modality to the regressions, None where too few cells hold both.
    """
    scores = {
        name: project(modality, projections[name], target_sums[name])
        for name, modality in data.modalities.items()
    }
    regressions: dict[str, dict[str, CrossRegression | None]] = {}
    for name, modality in data.modalities.items():
        encoded = encode(modality, target_sums[name])
        # A given representation has no features that a panel could lack.
        panel = None if modality.representation is not None else modality.panel
        measured = None if panel is None else panel[modality.batch]
        regressions[name] = {}
        for other, partner in data.modalities.items():
            if other == name:
                continue
            both = np.flatnonzero((modality.rows >= 0) & (partner.rows >= 0))
            # Log depth, the last column, is no property of the other modality worth predicting.
            width = int(projections[other].scale.shape[0])
            targets = scores[other][partner.rows[both], :width]
            batch = partner.batch[partner.rows[both]]
            pairing = Pairing(modality.rows[both], targets, keys[both], batch)
            regressions[name][other] = fit_regression(
                encoded, pairing, seed=seed, measured=measured
            )
    return regressions


def join_predictors(
    regressions: Mapping[str, Mapping[str, CrossRegression | None]],
    projections: Mapping[str, Projection],
    trust: Mapping[str, float],
) -> dict[str, CrossPredictor]:
    """What each modality's encoder is told of the others; of those without trust, nothing."""
    return {
        name: CrossPredictor.join(
            int(projections[name].center.shape[0]),
            [each for other, each in others.items() if each is not None and trust[other] > 0],
        )
        for name, others in regressions.items()
    }


def encode(modality: ModalityData, target_sum: float) -> sp.csr_matrix | np.ndarray:
    """Values of all cells as the projection reads them, ``(n_modality_cells, n_features)``."""
    if modality.representation is not None:
        return np.array(modality.representation, dtype=np.float32)
    depth = depth_of(modality)
    library = np.ones(modality.n_cells, np.float32) if depth is None else depth
    encoded = likelihoods.get(modality.spec.likelihood).encode(
        as_values(modality.values), torch.as_tensor(library), target_sum=target_sum
    )
    if not isinstance(encoded, SparseCounts):
        return encoded.numpy()
    parts = (encoded.values.numpy(), encoded.indices.numpy(), encoded.indptr.numpy())
    return sp.csr_matrix(parts, shape=encoded.shape)


def as_values(matrix: sp.csr_matrix | np.ndarray) -> Values:
    """A modality's values as the container that likelihoods read."""
    if sp.issparse(matrix):
        return SparseCounts.from_scipy(matrix)
    # A copy: registered arrays are read-only, which torch does not know.
    return torch.from_numpy(np.array(matrix, dtype=np.float32))


def encoder_inputs(
    data: MosaicData, spec: ModuleSpec, module: MosaicModule, keys: np.ndarray
) -> dict[str, np.ndarray]:
    """Encoder inputs of every modality, computed once.

    Parameters
    ----------
    data
        Registered data.
    spec
        Sizes.
    module
        The network.
    keys
        Keys of the cells' names, shape ``(n_cells,)``, int64.

    Returns
    -------
    Modality to array of shape ``(n_modality_cells, n_inputs)``, float32, rows in the modality's
    order.
    """
    return {
        name: project(
            modality,
            module.projections[name],
            spec.modalities[name].target_sum,
            module.predictors[name],
            keys[modality.cells],
            dict(module.aligned.items()).get(name),
        )
        for name, modality in data.modalities.items()
    }


def project(
    modality: ModalityData,
    projection: Projection,
    target_sum: float,
    predictor: CrossPredictor | None = None,
    keys: np.ndarray | None = None,
    aligned: AlignedInputs | None = None,
) -> np.ndarray:
    """Frozen projection of every cell of a modality, and what else its encoder is given."""
    likelihood = likelihoods.get(modality.spec.likelihood)
    depth = depth_of(modality)
    device = projection.center.device
    table = torch.as_tensor(measured_table(modality, max(len(modality.batch_categories), 1)))

    def project(rows: slice) -> Tensor:
        n_rows = rows.stop - rows.start
        library = torch.as_tensor(np.ones(n_rows, np.float32) if depth is None else depth[rows])
        measured = None
        if modality.representation is not None:
            encoded: Values = as_values(modality.representation[rows])
        else:
            values = as_values(modality.values[rows])
            encoded = likelihood.encode(values, library, target_sum=target_sum)
            if modality.panel is not None:
                codes = torch.from_numpy(modality.batch[rows].copy())
                known = (codes >= 0).unsqueeze(-1)
                measured = torch.where(known, table[codes.clamp_min(0)], True).to(device)
        encoded = encoded.to(device)
        projected: Tensor = projection(encoded, library.to(device), measured)
        parts = [projected]
        if aligned is not None:
            codes = torch.from_numpy(modality.batch[rows].copy()).to(device)
            parts = list(aligned(projected, codes).split(aligned.widths, -1))
        if predictor is not None and keys is not None and predictor.n_scores:
            names = torch.from_numpy(keys[rows].copy()).to(device)
            parts.insert(1, predictor(encoded, names, measured))
        return torch.cat(parts, -1)

    return project_in_chunks(modality.values.shape[0], project)
