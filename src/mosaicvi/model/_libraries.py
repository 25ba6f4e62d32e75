r"""Library sizes of answers: those of cells that were measured, at what other modalities tell.

How many counts a cell has depends on its type and, in an assay that counts the same cell, on how
many the other assay found: proteins of ``pbmc10k_cite`` explain 70 % of the variance of the log of
RNA counts. So a draw for cell c is the size of a measured cell i, shifted by what is known of both,

.. math:: \log \ell_c = \log \ell_i + w^\top (x_c - x_i),

with :math:`x` the place in the latent space that a cell's *other* modalities give it, and the log
of their counts beside the mean of their batch. Residuals :math:`\log \ell_i - w^\top x_i` are those
of the batch that is answered for, where it measured, so that totals of a batch stay its own. By
places to which the modality itself contributed, :math:`w` would be that of its own depth; and at
such places a line that others gave says anything, so that neither i nor c is read there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import RidgeCV

from mosaicvi import likelihoods
from mosaicvi.model._library_pool import LibraryPool, LibraryRule, depth_of

if TYPE_CHECKING:
    from mosaicvi.data._mosaic_data import ModalityData, MosaicData
    from mosaicvi.model._posterior import PosteriorSampler

MAX_POOL = 2000
"""Cells of a batch whose library sizes are kept, at most."""

MOST_KEPT, LEAST_POOL = 100_000, 100
"""Cells kept of all batches: of many, each has a smaller part, but not less than so many cells."""

LEAST_CELLS = 100
"""Cells with counts and another modality from which on a regression is fitted."""

PENALTIES = tuple(float(each) for each in np.logspace(-1, 5, 13))
"""Ridge penalties among which generalised cross-validation chooses."""

Evidence = list[tuple[tuple[str, ...], np.ndarray]]
"""Modalities that are read of cells, and the places of these cells among those asked about."""


def library_pools(data: MosaicData) -> dict[str, LibraryPool]:
    """Pools of a model before any training: nothing is told of sizes.

    Returns
    -------
    Modality with library sizes to at most :data:`MAX_POOL` cells a batch, fewer where batches are
    many.
    """
    return {name: _pool(data.modalities[name], rows) for name, rows in _kept(data).items()}


def fit_libraries(sampler: PosteriorSampler, training: np.ndarray) -> dict[str, LibraryPool]:
    """Pools of a trained model, with what training cells' other modalities tell of their sizes.

    Where too few cells have another modality, places are those that the modality itself gives, and
    the rule is read at draws of such places: answers that are carried over from its cells.

    Parameters
    ----------
    sampler
        Posterior of the trained network, of its own cells.
    training
        Rows of the MuData that trained it.
    """
    data, pools = sampler.data, {}
    for name, rows in _kept(data).items():
        pool, cells = _pool(data.modalities[name], rows), _cells_of(data.modalities[name], rows)
        usable = np.isin(cells, training) & (pool.sizes > 0)
        others = _trusted(sampler, name)
        evidence = _evidence(data, others, cells)
        paired = np.zeros(len(cells), dtype=bool)
        for names, chosen in evidence:
            paired[chosen] = len(names) > 0
        at_draws = int((usable & paired).sum()) < LEAST_CELLS
        if at_draws:
            evidence, others = [((), np.arange(len(cells)))], []
        fitted = usable if at_draws else usable & paired
        if int(fitted.sum()) >= LEAST_CELLS:
            known, typical = _known(sampler, name, others, cells, evidence, fitted)
            placed = paired | at_draws
            pool = _told(pool, known, typical, fitted, placed, at_draws=at_draws)
        pools[name] = pool
    return pools


def _kept(data: MosaicData) -> dict[str, np.ndarray]:
    """Rows of each modality with library sizes whose sizes are kept."""
    found = {}
    for name, modality in data.modalities.items():
        if not likelihoods.get(modality.spec.likelihood).uses_library_size:
            continue
        # Of its own: another modality changes nothing in it.
        rng = np.random.default_rng(0)
        kept, codes = [], np.unique(modality.batch)
        most = min(MAX_POOL, max(LEAST_POOL, MOST_KEPT // max(len(codes), 1)))
        for code in codes:
            rows = np.flatnonzero(modality.batch == code)
            kept.append(rows if len(rows) <= most else rng.choice(rows, most, replace=False))
        found[name] = np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)
    return found


def _pool(modality: ModalityData, rows: np.ndarray) -> LibraryPool:
    sizes = modality.library_size[rows].astype(np.float32)
    return LibraryPool(sizes, modality.batch[rows], np.zeros_like(sizes))


def _cells_of(modality: ModalityData, rows: np.ndarray) -> np.ndarray:
    """Rows of the MuData of rows of a modality."""
    cell = np.empty(modality.n_cells, dtype=np.int64)
    held = np.flatnonzero(modality.rows >= 0)
    cell[modality.rows[held]] = held
    return np.asarray(cell[rows])


def _trusted(sampler: PosteriorSampler, name: str) -> list[str]:
    """Other modalities, without those that must not change an answer."""
    muted = sampler.module.muted
    return [other for other in sampler.data.modalities if other != name and other not in muted]


def _evidence(data: MosaicData, others: list[str], cells: np.ndarray) -> Evidence:
    """Some of the other modalities of each cell, drawn so that a rule serves any part of them."""
    held = np.zeros((len(cells), len(others)), dtype=bool)
    for column, other in enumerate(others):
        held[:, column] = data.modalities[other].rows[cells] >= 0
    drawn = held & (np.random.default_rng(0).random(held.shape) < 0.5)
    drawn = np.where(drawn.any(1, keepdims=True), drawn, held)
    patterns, pattern = np.unique(drawn, axis=0, return_inverse=True)
    return [
        (
            tuple(other for other, chosen in zip(others, row, strict=True) if chosen),
            np.flatnonzero(pattern.ravel() == number),
        )
        for number, row in enumerate(patterns)
    ]


def _known(
    sampler: PosteriorSampler,
    name: str,
    others: list[str],
    cells: np.ndarray,
    evidence: Evidence,
    fitted: np.ndarray,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Places of cells and depths of their other modalities, and what is typical of these.

    ``(n_cells, n_latent + n_depths)``, float64.
    """
    data, n_latent = sampler.data, sampler.module.n_latent
    typical = {
        other: _typical(data.modalities[other], cells[fitted])
        for other in others
        if likelihoods.get(data.modalities[other].spec.likelihood).uses_library_size
    }
    known = np.zeros((len(cells), n_latent + len(typical)))
    for names, chosen in evidence:
        # A cell of one modality has no other place than its own.
        for chunk in sampler.latent(cells[chosen], names or (name,)):
            known[chosen[chunk.places], :n_latent] = chunk.posterior.mean.cpu().numpy()
        for column, (other, level) in enumerate(typical.items(), n_latent):
            if other in names:
                known[chosen, column] = depth_of(data.modalities[other], cells[chosen], level)
    return known, typical


def _told(
    pool: LibraryPool,
    known: np.ndarray,
    typical: dict[str, np.ndarray],
    fitted: np.ndarray,
    placed: np.ndarray,
    *,
    at_draws: bool,
) -> LibraryPool:
    """A pool with a rule, fitted to some of its cells.

    Of cells that are not ``placed`` by what the rule reads, it says nothing. Where a batch has
    enough others it does without them; elsewhere they count as the others do on average.
    """
    weights = _regression(known[fitted], np.log(pool.sizes[fitted]), pool.batches[fitted])
    # As a file holds them, so that a loaded model has the same answers.
    weights = weights.astype(np.float32)
    n_latent = known.shape[1] - len(typical)
    depth = dict(zip(typical, weights[n_latent:].tolist(), strict=True))
    rule = LibraryRule(weights[:n_latent], depth, typical, at_draws)
    told = (known @ weights).astype(np.float32)
    kept = np.ones(len(told), dtype=bool)
    for code in np.unique(pool.batches):
        here = pool.batches == code
        others = here & placed
        if others.sum() >= LEAST_POOL:
            kept &= placed | ~here
        else:
            told[here & ~placed] = told[others if others.any() else placed].mean()
    return LibraryPool(pool.sizes[kept], pool.batches[kept], told[kept], rule)


def _typical(modality: ModalityData, cells: np.ndarray) -> np.ndarray:
    """Mean log1p of the counts of some cells in each batch; NaN where none is."""
    rows = modality.rows[cells]
    rows = rows[rows >= 0]
    n_batches = len(modality.batch_categories)
    n_cells = np.bincount(modality.batch[rows], minlength=n_batches)
    total = np.bincount(
        modality.batch[rows], np.log1p(modality.library_size[rows]), minlength=n_batches
    )
    with np.errstate(invalid="ignore"):
        return np.asarray(total / n_cells, dtype=np.float32)


def _regression(known: np.ndarray, log_size: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Weights of a ridge regression within batches, ``(n_columns,)``."""
    _, of_batch = np.unique(batches, return_inverse=True)
    n_cells = np.bincount(of_batch)
    target = log_size - (np.bincount(of_batch, log_size) / n_cells)[of_batch]
    centred = known.copy()
    for column in centred.T:
        column -= (np.bincount(of_batch, column) / n_cells)[of_batch]
    scale = centred.std(axis=0)
    scale = np.where(scale > 0, scale, np.inf)
    ridge = RidgeCV(PENALTIES, fit_intercept=False).fit(centred / scale, target)
    return np.asarray(ridge.coef_ / scale)
