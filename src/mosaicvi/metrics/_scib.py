"""Bio-conservation and mixing as the field's benchmark of integration has them (scib-metrics)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from mosaicvi._errors import RequestError, check_whole
from mosaicvi.metrics._latents import check_finite
from mosaicvi.metrics._shapes import along, as_named, as_table, stated

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

N_NEIGHBOURS = 90
N_CONNECTED = 15


def _scib() -> Any:
    """The package, which is optional because it brings JAX.

    Raises
    ------
    RequestError
        If it is not installed.
    """
    try:
        return import_module("scib_metrics")
    except ImportError as error:
        raise RequestError(
            f"the package scib-metrics cannot be imported ({error})",
            expected="scib-metrics 0.5.3 or later",
            remedy="install it with pip install 'mosaicvi[metrics]'",
        ) from error


def _inputs(
    latent: ArrayLike, columns: dict[str, ArrayLike]
) -> tuple[NDArray[np.float32], list[NDArray[np.str_]]]:
    """Cells that have a value in all columns, and these columns."""
    points = as_table(latent, "latent").astype(np.float32)
    columns = {key: along(values, latent) for key, values in columns.items()}
    known = np.ones(len(points), dtype=bool)
    for key, values in columns.items():
        shape = np.shape(values)
        if shape != points.shape[:1]:
            raise RequestError(
                f"shape {shape} for {len(points)} cells", key=key, expected="(n_cells,)"
            )
        known &= stated(values)
    points = points[known]
    check_finite(points, "latent")
    found = []
    for key, values in columns.items():
        names = as_named(values)[known]
        if len(np.unique(names)) < 2:
            raise RequestError("one value only", key=key, expected="at least two")
        found.append(names)
    return points, found


def _neighbours(points: NDArray[np.float32], n_neighbours: int) -> Any:
    """Exact neighbours in the form that scib-metrics takes; each cell is its own first."""
    check_whole(n_neighbours, "n_neighbours")
    results = import_module("scib_metrics.nearest_neighbors").NeighborsResults
    found = NearestNeighbors(n_neighbors=min(n_neighbours, len(points))).fit(points)
    distances, indices = found.kneighbors(points)
    return results(indices=indices, distances=distances)


def bio_conservation(
    latent: ArrayLike, types: ArrayLike, *, n_neighbours: int = N_NEIGHBOURS
) -> dict[str, float]:
    """How well types stay together and apart, by scib-metrics :cite:p:`luecken2022`.

    Needs the extra ``metrics``. A latent space that puts every type of every modality in a place of
    its own scores high here: read it beside :func:`modality_mixing`.

    Parameters
    ----------
    latent
        Cells of all modalities, ``(n_cells, n_latent)``.
    types
        Type of each cell, shape ``(n_cells,)``; cells without one (None, NaN) are left out.
    n_neighbours
        Neighbours of the local score, the cell itself included.

    Returns
    -------
    ``nmi`` and ``ari`` of k-means clusters with the types, ``silhouette_label`` and ``clisi``, each
    0 to 1 (``ari`` may fall below 0), larger is better.

    Raises
    ------
    RequestError
        If scib-metrics is not installed, the arrays do not belong together, there is one type,
        or ``n_neighbours`` is no whole number of at least one.
    """
    scib = _scib()
    points, (names,) = _inputs(latent, {"types": types})
    clusters = scib.nmi_ari_cluster_labels_kmeans(points, names)
    return {
        "nmi": float(clusters["nmi"]),
        "ari": float(clusters["ari"]),
        "silhouette_label": float(scib.silhouette_label(points, names)),
        "clisi": float(scib.clisi_knn(_neighbours(points, n_neighbours), names)),
    }


def modality_mixing(
    latent: ArrayLike,
    types: ArrayLike,
    modality: ArrayLike,
    *,
    n_neighbours: int = N_NEIGHBOURS,
) -> dict[str, float]:
    """How well modalities (or batches) mix, by scib-metrics :cite:p:`luecken2022`.

    Needs the extra ``metrics``. A constant or random latent space mixes perfectly: read it beside
    :func:`bio_conservation`.

    Parameters
    ----------
    latent
        Cells of all modalities, ``(n_cells, n_latent)``.
    types
        Type of each cell, shape ``(n_cells,)``.
    modality
        Modality or batch of each cell, shape ``(n_cells,)``. Cells without a type or modality
        (None, NaN) are left out.
    n_neighbours
        Neighbours of the local scores, the cell itself included.

    Returns
    -------
    ``ilisi``, ``silhouette_batch`` (within type) and ``graph_connectivity`` (of types,
    by 15 neighbours), each 0 to 1, larger is better.

    Raises
    ------
    RequestError
        If scib-metrics is not installed, the arrays do not belong together, there is one type or
        one modality, or ``n_neighbours`` is no whole number of at least one.
    """
    scib = _scib()
    points, (names, groups) = _inputs(latent, {"types": types, "modality": modality})
    neighbours = _neighbours(points, n_neighbours)
    return {
        "ilisi": float(scib.ilisi_knn(neighbours, groups)),
        "silhouette_batch": float(scib.silhouette_batch(points, names, groups)),
        "graph_connectivity": float(
            scib.graph_connectivity(_neighbours(points, N_CONNECTED), names)
        ),
    }
