"""How much of what an encoder reads of a modality is the cell's, and how much is counting noise.

Halves of a cell's counts are two measurements of the same cell (Batson et al. 2019 split counts
for the same reason): what their projections share is the cell's, and from it follows, by the
formula of Spearman (1910) and Brown (1910), the share of that in the projection of all counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch

from mosaicvi import likelihoods
from mosaicvi.model._inputs import as_values, encode, rows_read, target_sum
from mosaicvi.nn._projection import SMALL_PANEL, fit_projection

if TYPE_CHECKING:
    from mosaicvi.data._mosaic_data import ModalityData


MIN_CELLS = 20
"""With fewer, nothing can be told."""

MAX_CELLS = 3000
"""Cells on which it is measured: half of them find components, on which the others are scored."""


@torch.no_grad()
def reliability(
    modality: ModalityData, rows: np.ndarray, *, n_components: int, seed: int = 0
) -> float:
    """Share of a projection's variance within batches that is no counting noise, from 0 to 1.

    Of cells that had no part in the components: on their own cells, components of noise look real.
    1 for what has no counts to split, or too few cells to compare: continuous values, rates, and
    where encoders read a representation.

    Parameters
    ----------
    modality
        Registered cells.
    rows
        Rows of the modality to measure on, shape ``(n_rows,)``; of more than :data:`MAX_CELLS`, a
        sample.
    n_components
        Width of the frozen projection; small panels skip it.
    seed
        Seed of the sample and of the splits.
    """
    likelihood = likelihoods.get(modality.spec.likelihood)
    if not likelihood.is_count or modality.representation is not None or len(rows) < MIN_CELLS:
        return 1.0
    rng = np.random.default_rng(seed)
    rows = rng.permutation(rows)[:MAX_CELLS]
    shared = noise = 0.0
    for own, other in ((rows[0::2], rows[1::2]), (rows[1::2], rows[0::2])):
        found, left = _shared(modality, np.sort(own), np.sort(other), n_components, rng)
        shared, noise = shared + found, noise + left
    # Twice the counts have half of the noise.
    return shared / (shared + noise / 2) if shared > 0 else 0.0


def _shared(
    modality: ModalityData,
    own: np.ndarray,
    other: np.ndarray,
    n_components: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Variance that halves of cells share, and that they do not, on components of other cells."""
    scale = target_sum(modality)
    likelihood = likelihoods.get(modality.spec.likelihood)
    values = rows_read(modality, other)
    projection = fit_projection(
        encode(modality, scale, other, values),
        None,
        n_components=n_components,
        seed=int(rng.integers(2**31)),
        small_panel=SMALL_PANEL,
        weights=likelihood.feature_weights(values),
        panel=modality.panel,
        batch=modality.batch[other],
    )
    counts = sp.csr_matrix(rows_read(modality, own), dtype=np.float64)
    first = counts.copy()
    first.data = rng.binomial(counts.data.astype(np.int64), 0.5).astype(np.float64)
    total = np.maximum(np.asarray(counts.sum(1)).ravel(), 1.0)
    depth = np.ones(len(own)) if modality.depth is None else modality.depth[own]
    panel = modality.measured(own)
    halves = []
    for part in (first, counts - first):
        library = torch.tensor(depth * np.asarray(part.sum(1)).ravel() / total).float()
        counted = as_values(sp.csr_matrix(part, dtype=np.float32))
        encoded = likelihood.encode(counted, library, target_sum=scale / 2)
        scores = projection(encoded, library, None if panel is None else torch.from_numpy(panel))
        within = scores.double().numpy()
        halves.append(within - _means(within, modality.batch[own]))
    shared = float((halves[0] * halves[1]).mean(0).sum())
    return shared, float(sum(np.square(half).mean(0).sum() for half in halves)) / 2 - shared


def _means(values: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Mean of each cell's batch, shape of the values."""
    codes = np.unique(batch, return_inverse=True)[1]
    totals = np.zeros((codes.max() + 1, values.shape[1]))
    np.add.at(totals, codes, values)
    return np.asarray((totals / np.bincount(codes)[:, None])[codes])
