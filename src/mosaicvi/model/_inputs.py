"""Inputs of the encoders: encoded values, frozen projections, cross-modal predictions.

All of it is fitted once, when a model is built, and never trained.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mosaicvi import likelihoods
from mosaicvi._types import SparseCounts, Values
from mosaicvi.data._stored import StoredValues, held_blocks
from mosaicvi.model._depth import read_depth
from mosaicvi.nn._cross_predictor import CrossPredictor
from mosaicvi.nn._cross_regression import (
    CELLS_A_PREDICTION,
    CrossRegression,
    Pairing,
    fit_regression,
    sample_pairs,
)
from mosaicvi.nn._projection import (
    MAX_FIT_CELLS,
    SMALL_PANEL,
    Projection,
    fit_projection,
    project_in_chunks,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData
    from mosaicvi.data._stored import Rows
    from mosaicvi.module._build import ModuleSpec
    from mosaicvi.module._mosaic_module import MosaicModule
    from mosaicvi.nn._aligned_inputs import AlignedInputs

MAX_FIT_VALUES = 40_000_000
"""Stored values of a modality from which what is fitted once is fitted; more are subsampled."""

MIN_FIT_CELLS = 5_000
"""Cells that such a sample has at least."""

CELLS_A_COMPONENT = 100
CELLS_AN_ALIGNED_COMPONENT = 20
WIDTH_RANGE = (10, 64)
ALIGNED_WIDTH_RANGE = (20, 64)
"""Default width of a frozen projection: one component for so many cells, within these bounds."""


def default_width(n_cells: int, *, align: bool = False) -> int:
    """Width of a frozen projection: what a hundred cells a component can support.

    A wide projection lets the encoder overfit on a thousand cells (decisions, "Width of the
    projection"). Where modalities are aligned by anchors, encoders see shared scores of it, and
    these are found in a wide one: twenty cells a component, and at least twenty components, since
    ten would leave ten of the twenty shared directions that are sought (decisions, "At least twenty
    components where modalities are aligned").
    """
    if align:
        return int(np.clip(n_cells // CELLS_AN_ALIGNED_COMPONENT, *ALIGNED_WIDTH_RANGE))
    return int(np.clip(n_cells // CELLS_A_COMPONENT, *WIDTH_RANGE))


def fit_rows(modality: ModalityData, seed: int) -> np.ndarray:
    """Rows from which projections and starting values are fitted, ascending: all, or a sample.

    The same whether values are in memory or on disk.
    """
    n_cells = modality.n_cells
    affordable = int(MAX_FIT_VALUES / max(modality.stored_per_cell, 1.0))
    n_rows = min(n_cells, MAX_FIT_CELLS, max(affordable, MIN_FIT_CELLS))
    if n_rows == n_cells:
        return np.arange(n_cells)
    return np.sort(np.random.default_rng(seed).choice(n_cells, n_rows, replace=False))


def rows_read(modality: ModalityData, rows: np.ndarray) -> Rows:
    """Values of some rows; a modality in memory hands out all of them without a copy."""
    if len(rows) == modality.n_cells and not modality.on_disk:
        return modality.values[:] if isinstance(modality.values, StoredValues) else modality.values
    return modality.values[rows]


def target_sum(modality: ModalityData) -> float:
    """Median counts a cell, to which the encode transform scales."""
    depth = modality.depth
    return float(np.median(depth[depth > 0])) if depth is not None and depth.any() else 1.0


def measured_table(modality: ModalityData, n_batches: int) -> np.ndarray:
    """Which batch measured which feature, bool ``(n_batches, n_features)``.

    A batch without a single cell of the modality measured nothing, nor did one measure a feature of
    which all its values are missing.
    """
    present = np.zeros(n_batches, dtype=bool)
    present[np.unique(modality.batch[modality.batch >= 0])] = True
    table = np.repeat(present[:, None], len(modality.var_names), axis=1)
    if not likelihoods.get(modality.spec.likelihood).is_count:
        table[:] = False
        for part, block in held_blocks(modality.values, np.arange(modality.n_cells)):
            codes, known = modality.batch[part], ~np.isnan(block)
            for code in np.unique(codes[codes >= 0]):
                table[code] |= known[codes == code].any(axis=0)
    return table if modality.panel is None else table & modality.panel


def fit_modality_projection(
    modality: ModalityData,
    *,
    n_components: int,
    target_sum: float,
    seed: int,
    rows: np.ndarray,
    values: Rows,
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
    rows, values
        Rows to fit on (:func:`fit_rows`), and their values.
    """
    depth = modality.depth
    if modality.representation is not None:
        center = modality.representation.mean(0)
        spread = modality.representation.std(0)
        moments = None
        if depth is not None:
            log_depth = np.log1p(depth)
            moments = (float(log_depth.mean()), float(max(log_depth.std(), 1e-3)))
        return Projection(center, None, np.where(spread > 1e-6, spread, 1.0), moments)
    return fit_projection(
        encode(modality, target_sum, rows, values),
        depth,
        n_components=n_components,
        seed=seed,
        small_panel=SMALL_PANEL,
        weights=likelihoods.get(modality.spec.likelihood).feature_weights(values),
        panel=modality.panel,
        batch=modality.batch[rows],
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
    regressions: dict[str, dict[str, CrossRegression | None]] = {}
    for name, modality in data.modalities.items():
        regressions[name] = {}
        for other, partner in data.modalities.items():
            if other == name:
                continue
            both = np.flatnonzero((modality.rows >= 0) & (partner.rows >= 0))
            both = sample_pairs(both, seed)
            if len(both) < CELLS_A_PREDICTION:
                regressions[name][other] = None
                continue
            places = partner.rows[both]
            scores = project(partner, projections[other], target_sums[other], rows=places)
            # Log depth, the last column, is no property of the other modality worth predicting.
            targets = scores[:, : int(projections[other].scale.shape[0])]
            pairing = Pairing(modality.rows[both], targets, keys[both], partner.batch[places])
            regressions[name][other] = _fit_regression(modality, pairing, target_sums[name], seed)
    return regressions


def _fit_regression(
    modality: ModalityData, pairing: Pairing, target_sum: float, seed: int
) -> CrossRegression | None:
    """Fit on the paired rows alone, which are read once."""
    rows = np.unique(pairing.rows)
    # A given representation has no features that a panel could lack.
    panel = None if modality.representation is not None else modality.panel
    return fit_regression(
        encode(modality, target_sum, rows, rows_read(modality, rows)),
        replace(pairing, rows=np.searchsorted(rows, pairing.rows)),
        seed=seed,
        measured=None if panel is None else panel[modality.batch[rows]],
    )


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


def encode(
    modality: ModalityData, target_sum: float, rows: np.ndarray, values: Rows
) -> sp.csr_matrix | np.ndarray:
    """Values of some rows as the projection reads them, ``(n_rows, n_features)``."""
    if modality.representation is not None:
        return np.array(modality.representation[rows], dtype=np.float32)
    return encode_values(modality, target_sum, rows, values)


def encode_values(
    modality: ModalityData, target_sum: float, rows: np.ndarray, values: Rows
) -> sp.csr_matrix | np.ndarray:
    """Some rows by the likelihood's own transform, ``(n_rows, n_features)``.

    Also where encoders read a representation, whose columns are no features.
    """
    depth = modality.depth
    library = np.ones(len(rows), np.float32) if depth is None else depth[rows]
    encoded = likelihoods.get(modality.spec.likelihood).encode(
        as_values(values), torch.tensor(library), target_sum=target_sum
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
    kind = np.complex64 if np.iscomplexobj(matrix) else np.float32
    return torch.from_numpy(np.array(matrix, dtype=kind))


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
    aligned, inputs = dict(module.aligned.items()), {}
    for name, modality in data.modalities.items():
        projection = module.projections[name]
        inputs[name] = project(
            modality,
            projection,
            spec.modalities[name].target_sum,
            module.predictors[name],
            keys[modality.cells],
            aligned.get(name),
        )
        # Of aligned inputs depth is taken out on a straight line, which holds for any depth.
        if modality.depth is not None and name not in aligned:
            depth = inputs[name][:, int(projection.scale.shape[0])]
            depth[:] = read_depth(depth, modality, projection.levels)
    return inputs


def project(
    modality: ModalityData,
    projection: Projection,
    target_sum: float,
    predictor: CrossPredictor | None = None,
    keys: np.ndarray | None = None,
    aligned: AlignedInputs | None = None,
    *,
    rows: np.ndarray | None = None,
    thin: Callable[[Rows, slice], sp.csr_matrix] | None = None,
) -> np.ndarray:
    """Frozen projection of a modality's rows (None: all), and what else its encoder is given.

    With ``thin`` it is of what that makes of their counts; keys are then those of the rows.
    """
    likelihood = likelihoods.get(modality.spec.likelihood)
    depth = modality.depth
    device = projection.center.device

    def project(part: slice) -> Tensor:
        chosen = part if rows is None else rows[part]
        n_rows = part.stop - part.start
        library = torch.tensor(np.ones(n_rows, np.float32) if depth is None else depth[chosen])
        measured = None
        if modality.representation is not None:
            encoded: Values = as_values(modality.representation[chosen])
        else:
            held = modality.values[chosen]
            if thin is not None:
                held = thin(held, part)
                library = torch.from_numpy(np.asarray(held.sum(axis=1), np.float32).ravel())
            values = as_values(held)
            encoded = likelihood.encode(values, library, target_sum=target_sum)
            panel = modality.measured(np.arange(modality.n_cells)[chosen])
            if panel is not None:
                measured = torch.from_numpy(panel).to(device)
        encoded = encoded.to(device)
        projected: Tensor = projection(encoded, library.to(device), measured)
        parts = [projected]
        if aligned is not None:
            codes = torch.from_numpy(modality.batch[chosen].copy()).to(device)
            parts = list(aligned(projected, codes).split(aligned.widths, -1))
        if predictor is not None and keys is not None and predictor.n_scores:
            names = torch.from_numpy(keys[chosen if thin is None else part].copy()).to(device)
            parts.insert(1, predictor(encoded, names, measured))
        return torch.cat(parts, -1)

    return project_in_chunks(modality.n_cells if rows is None else len(rows), project)
