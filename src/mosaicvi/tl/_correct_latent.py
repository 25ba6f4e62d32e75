"""A latent space in which batches of the same kind of cell lie together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import KMeans

from mosaicvi import likelihoods
from mosaicvi._errors import RequestError
from mosaicvi.tl._measured import registered

if TYPE_CHECKING:
    from mudata import MuData
    from numpy.typing import ArrayLike

    from mosaicvi.data import MosaicData
    from mosaicvi.model import MosaicVI

CELLS_A_CLUSTER, MOST_CLUSTERS = 60, 100
"""Clusters: one for so many cells, and at most so many."""
SOFTNESS = 0.1
"""Squared chord over which a cell's share of a cluster falls to 1 / e."""
PENALTY = 5.0
"""Ridge penalty of an effect, in cells."""
LEAST_SHARE = 1e-4
"""Shares of a cluster below this are none."""
FITTED_CELLS = 50_000
"""Cells from which centres are found at most."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


def correct_latent(
    model: MosaicVI,
    latent: ArrayLike | None = None,
    *,
    adata: MuData | None = None,
    depth: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """Latent space without the batch effects that cells of one kind differ by.

    A model's latent space keeps what tells of values, and batch and sequencing depth do. For
    neighbours, clusters and UMAP batches are in the way. Here they are regressed out within soft
    clusters, as in Harmony's correction :cite:p:`korsunsky2019`, so that batches with other types
    of cells are not forced onto each other: where a cluster has one batch alone there is nothing to
    correct. Batches are those of all modalities of a cell together, and a modality that a cell
    lacks counts as a batch, so cells of one assay come to lie with cells of both.

    Imputation does not use it, as batch and depth are worth knowing there.

    Parameters
    ----------
    model
        A fitted :class:`~mosaicvi.MosaicVI` or :class:`~mosaicvi.FactorVI`.
    latent
        What to correct, shape ``(n_cells, n_latent)``, a row for each cell of the MuData; None:
        ``model.get_latent_representation()``. Rows with NaN stay as they are.
    adata
        MuData of these cells; None: the one the model was built on. Cells are corrected beside each
        other, so those of a query alone come to lie elsewhere than beside the model's.
    depth
        Regress out log counts, too, of each modality whose likelihood has a library size. Then
        neighbours no longer resemble each other in depth, but clusters may follow types less well:
        types differ in depth, and so do states of a type.
    seed
        Seed of the clusters' centres, on which the order of cells has a part, too.

    Returns
    -------
    Corrected latent, float32 ``(n_cells, n_latent)``.

    Raises
    ------
    RequestError
        If ``latent`` has another shape or infinite values.

    Examples
    --------
    >>> mdata.obsm["X_mosaicvi"] = mosaicvi.tl.correct_latent(model)
    >>> sc.pp.neighbors(mdata, use_rep="X_mosaicvi")
    """
    data = registered(model, adata)
    if latent is None:
        latent = model.get_latent_representation(adata)
    points = np.asarray(latent, dtype=np.float64)
    n_cells = len(data.obs_names)
    shaped = points.ndim == 2 and len(points) == n_cells
    if not shaped or np.isinf(points).any():
        raise RequestError(
            "infinite values" if shaped else f"shape {points.shape}",
            key="latent",
            expected=f"finite numbers, shape ({n_cells}, n_latent), a row a cell of the MuData",
        )
    corrected = points.astype(np.float32)
    known = np.flatnonzero(~np.isnan(points).any(1))
    design = _design(data, known, depth=depth)
    if design.shape[1] and len(known):
        corrected[known] = _without_effects(points[known], design, seed)
    return corrected


def _design(data: MosaicData, cells: np.ndarray, *, depth: bool) -> sp.csr_matrix:
    """What cells may differ by without being of another kind, ``(n_cells, n_effects)``.

    A column for each combination of the modalities' batches, and one for the depth of each modality
    in the cells that hold one combination of modalities, with variance one there.
    """
    present = np.stack([each.present[cells] for each in data.modalities.values()], axis=1)
    parts = []
    names = [each.cell_batch_names[cells].astype(str) for each in data.modalities.values()]
    batches = [np.where(held, name, "") for held, name in zip(present.T, names, strict=True)]
    # Without a batch column all names are alike, and what a cell holds still makes a difference.
    table = np.stack([*batches, *present.T.astype(str)], axis=1)
    levels, codes = np.unique(table, axis=0, return_inverse=True)
    if len(levels) > 1:
        ones = np.ones(len(cells))
        places = np.arange(len(cells)), codes.ravel()
        parts.append(sp.csr_matrix((ones, places), shape=(len(cells), len(levels))))
    patterns = np.unique(present, axis=0, return_inverse=True)[1].ravel()
    for each in data.modalities.values() if depth else ():
        if each.depth is None or not likelihoods.get(each.spec.likelihood).uses_library_size:
            continue
        log_depth = np.log1p(np.where(each.present, each.depth[each.rows], 0.0))[cells]
        for pattern in np.unique(patterns[each.present[cells]]):
            rows = np.flatnonzero(patterns == pattern)
            values = log_depth[rows] - log_depth[rows].mean()
            spread = values.std()
            if spread > 0:
                column = (values / spread, (rows, np.zeros(len(rows), dtype=np.int64)))
                parts.append(sp.csr_matrix(column, shape=(len(cells), 1)))
    return sp.csr_matrix(sp.hstack(parts)) if parts else sp.csr_matrix((len(cells), 0))


def _shares(points: Floats, seed: int) -> Floats:
    """Share of each cluster in each cell, by angles; rows sum to 1."""
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    directions = points / np.where(norms > 0, norms, 1.0)
    n_clusters = int(np.clip(len(points) // CELLS_A_CLUSTER, 1, MOST_CLUSTERS))
    rng = np.random.default_rng(seed)
    chosen = np.arange(len(points))
    if len(points) > FITTED_CELLS:
        chosen = np.sort(rng.choice(len(points), FITTED_CELLS, replace=False))
    found = KMeans(n_clusters, n_init=3, random_state=seed).fit(directions[chosen])
    centres = found.cluster_centers_
    lengths = np.linalg.norm(centres, axis=1, keepdims=True)
    centres = centres / np.where(lengths > 0, lengths, 1.0)
    # In place: this is the largest table here, a hundred numbers a cell.
    shares: Floats = directions @ (2.0 / SOFTNESS * centres.T)
    shares -= shares.max(1, keepdims=True)
    np.exp(shares, out=shares)
    shares /= shares.sum(1, keepdims=True)
    return shares


def _without_effects(points: Floats, design: sp.csr_matrix, seed: int) -> Floats:
    """Regress the effects out of each cluster, around the cluster's mean."""
    shares = _shares(points, seed)
    corrected: Floats = points.copy()
    for share in shares.T:
        rows = np.flatnonzero(share > LEAST_SHARE)
        weights = share[rows]
        total = weights.sum()
        part = design[rows]
        weighted = part.multiply(weights[:, None]).tocsr()
        means = np.asarray(weighted.sum(0)).ravel() / total
        centre = weights @ points[rows] / total
        # Around the means, without a dense table of the effects.
        spread = (part.T @ weighted).toarray() - total * np.outer(means, means)
        joint = weighted.T @ points[rows] - total * np.outer(means, centre)
        effects = np.linalg.solve(spread + PENALTY * np.eye(len(means)), joint)
        corrected[rows] -= weights[:, None] * (part @ effects - means @ effects)
    return corrected
