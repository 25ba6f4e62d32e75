"""Linked features, representations, and what batch and depth explain of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import PCA

from mosaicvi._errors import RequestError
from mosaicvi.bm._encodings import encode, standardise

if TYPE_CHECKING:
    from mosaicvi.bm._alignment_input import AlignmentInput, Floats

N_COMPONENTS = 50


def representation(task: AlignmentInput, modality: str) -> Floats:
    """50 principal components of the encoded counts, ``(n_cells, n_components)``."""
    values = encode(task.counts(modality), task.likelihoods[modality])
    n_kept = min(N_COMPONENTS, min(values.shape) - 1)
    return np.asarray(PCA(n_kept, svd_solver="arpack", random_state=0).fit_transform(values))


def without_technical(task: AlignmentInput, modality: str, values: Floats) -> Floats:
    """Residuals of a linear regression on batch and log depth of the modality's cells.

    Shape ``(n_cells, n_features)``; the mean is gone too.
    """
    batch = task.batch(modality)
    depth = np.log1p(np.asarray(task.counts(modality).sum(axis=1)).ravel())
    design = np.column_stack([batch[:, None] == np.unique(batch)[None, :], depth]).astype(float)
    return np.asarray(values - design @ np.linalg.lstsq(design, values, rcond=None)[0])


def linked_features(task: AlignmentInput) -> dict[str, Floats]:
    """Both modalities on the linked features of the one that has fewer of them.

    A modality with fewer linked features (genes against peaks, antibodies against genes) keeps
    them, encoded by its likelihood. The counts of the other are summed over each one's positive
    edges, minus the negative ones after normalising, by weight; both are log-normalised before.

    Returns
    -------
    Modality -> ``(n_cells, n_axis)``; the columns of both belong together.

    Raises
    ------
    RequestError
        If the graph has no edge between the two modalities.
    """
    first, second = task.modalities
    features = {name: task.mdata.mod[name].var_names for name in task.modalities}
    adjacency = sp.csr_matrix(task.graph.adjacency(features), dtype=np.float64)
    between = sp.csr_matrix(adjacency[: len(features[first]), len(features[first]) :])
    linked = np.diff(between.indptr) > 0, np.diff(between.tocsc().indptr) > 0
    if not linked[0].any():
        raise RequestError(
            "the graph links no features of the two modalities", key="graph", expected="edges"
        )
    axis, other, onto = first, second, sp.csr_matrix(between[linked[0]].T)
    kept = linked[0]
    if linked[1].sum() <= linked[0].sum():
        axis, other, onto, kept = second, first, sp.csr_matrix(between[:, linked[1]]), linked[1]
    values = encode(task.counts(axis), task.likelihoods[axis])[:, kept].toarray()
    return {axis: np.asarray(values), other: _onto(task.counts(other), onto)}


def _onto(counts: sp.csr_matrix, weights: sp.csr_matrix) -> Floats:
    """Log-normalised sums of counts over positive edges minus those over negative ones."""
    total = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1.0)
    scale = sp.diags(1e4 / total)
    up, down = weights.maximum(0.0), (-weights).maximum(0.0)
    parts = [np.log1p((scale @ (counts @ part)).toarray()) for part in (up, down)]
    return np.asarray(parts[0] - parts[1])


def shared_components(values: dict[str, Floats], n_components: int) -> dict[str, Floats]:
    """Principal components of both modalities' features together.

    Features are standardised within their modality, cells brought to length one (so that distances
    are those of the cosine), and the components turned by a fixed random rotation: distances stay,
    and standardising dimensions, as some scores do, singles out none of them.

    Parameters
    ----------
    values
        Modality -> ``(n_cells, n_features)``, columns that belong together.
    n_components
        At most the number of features.

    Returns
    -------
    Modality -> ``(n_cells, n_components)``.
    """
    units = {}
    for name, table in values.items():
        scaled = standardise(table)
        length = np.linalg.norm(scaled, axis=1, keepdims=True)
        units[name] = scaled / np.maximum(length, 1e-12)
    together = np.concatenate(list(units.values()))
    n_kept = min(n_components, *together.shape)
    pca = PCA(n_kept, svd_solver="covariance_eigh", random_state=0).fit(together)
    return {name: turned(pca.transform(table)) for name, table in units.items()}


def turned(values: Floats) -> Floats:
    """Values under a fixed random rotation, ``(n_cells, n_dimensions)``."""
    n_dimensions = values.shape[1]
    noise = np.random.default_rng(0).normal(size=(n_dimensions, n_dimensions))
    return np.asarray(values @ np.linalg.qr(noise)[0])
