"""Where each modality's cells lie in the latent space, given that modality alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from mosaicvi._errors import RequestError
from mosaicvi.tl._measured import prepared, registered

if TYPE_CHECKING:
    from mudata import MuData
    from numpy.typing import NDArray

    from mosaicvi.model import MosaicVI

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Places:
    """Where cells lie, given one modality.

    Attributes
    ----------
    latent
        Posterior means, float64 ``(n_cells, n_latent)``.
    shared
        Scores on the directions that modalities share, of one length, ``(n_cells, n_directions)``:
        what the latent space was made from, before networks brought modalities together. The latent
        where a model has none.
    own
        All that the modality says of its cells, batch and depth left out, for neighbours within it,
        ``(n_cells, n_components)``. The latent where a model has none.
    variance
        Posterior variances, ``(n_cells, n_latent)``; zero where they are not known.
    """

    latent: Floats
    shared: Floats
    own: Floats
    variance: Floats

    @classmethod
    def of(cls, latent: Floats, variance: Floats | None = None) -> Places:
        """Places of which the latent is all that is known, but for how well."""
        return cls(latent, latent, latent, np.zeros_like(latent) if variance is None else variance)

    def __len__(self) -> int:
        return len(self.latent)

    def part(self, chosen: NDArray[np.bool_] | Ints) -> Places:
        """Some of the cells, by a mask or by their numbers."""
        return Places(
            self.latent[chosen], self.shared[chosen], self.own[chosen], self.variance[chosen]
        )


@dataclass(frozen=True)
class UnimodalCells:
    """Cells of one modality.

    Attributes
    ----------
    modality
        Its name.
    rows
        Rows of the MuData that have it, shape ``(n_modality_cells,)``.
    names
        Names of these cells.
    places
        Where they lie, given this modality alone.
    """

    modality: str
    rows: Ints
    names: NDArray[np.str_]
    places: Places

    @property
    def latent(self) -> Floats:
        """Posterior means given this modality alone, float64 ``(n_modality_cells, n_latent)``."""
        return self.places.latent

    def by_name(self) -> UnimodalCells:
        """The same cells sorted by name: what is drawn among them is then no matter of rows."""
        order = np.argsort(self.names, kind="stable")
        return UnimodalCells(
            self.modality, self.rows[order], self.names[order], self.places.part(order)
        )

    def __len__(self) -> int:
        return len(self.rows)


def unimodal_cells(
    model: MosaicVI, modality: str, adata: MuData | None, *, key: str
) -> UnimodalCells:
    """Embed the cells that have a modality, from that modality alone.

    Raises
    ------
    RequestError
        The model has no such modality, or no cell has it.
    """
    data = registered(model, adata)
    if modality not in data.modalities:
        raise RequestError(
            f"the model has no modality {modality!r}",
            key=key,
            expected="one of " + ", ".join(map(repr, data.modalities)),
        )
    rows = np.flatnonzero(data.modalities[modality].present)
    if not len(rows):
        raise RequestError(
            "no cell has it",
            modality=modality,
            key=key,
            expected="one cell or more that holds the modality",
        )
    names = np.asarray(data.obs_names)[rows].astype(str)
    return UnimodalCells(modality, rows, names, _places(model, adata, modality, rows))


def _places(model: MosaicVI, adata: MuData | None, modality: str, rows: Ints) -> Places:
    latent, variance = (
        np.asarray(part, dtype=np.float64)
        for part in model.get_latent_representation(
            adata, rows, from_modalities=[modality], return_dist=True
        )
    )
    # Factor models have none.
    aligned = dict(getattr(model.module, "aligned", {}).items()).get(modality)
    if aligned is None:
        return Places.of(latent, variance)
    read = encoder_inputs(model, adata, modality, rows)
    n_own, n_shared = aligned.widths
    return Places(latent, read[:, -n_shared:], read[:, :n_own], variance)


def encoder_inputs(model: MosaicVI, adata: MuData | None, modality: str, rows: Ints) -> Floats:
    """What a modality's encoder reads of cells that have it, ``(n_rows, n_inputs)``, float64."""
    cells = prepared(model, adata)
    places = cells.data.modalities[modality].rows[rows]
    return np.asarray(cells.dataset.encoder_inputs[modality][places], dtype=np.float64)


def own_scores(model: MosaicVI, adata: MuData | None, modality: str, rows: Ints) -> Floats:
    """What a modality says of its cells before any network, ``(n_rows, n_scores)``.

    Of aligned models batch and depth are left out; of others it is all that the encoder reads.
    """
    read = encoder_inputs(model, adata, modality, rows)
    aligned = dict(model.module.aligned.items()).get(modality)
    return read if aligned is None else read[:, : aligned.widths[0]]


def two_modalities(
    model: MosaicVI, source: str, target: str, adata: MuData | None
) -> tuple[UnimodalCells, UnimodalCells]:
    """Cells of a source and of a target modality, which must differ, each sorted by name."""
    if source == target:
        raise RequestError(
            f"source and target are both {source!r}", key="target", expected="another modality"
        )
    return (
        unimodal_cells(model, source, adata, key="source").by_name(),
        unimodal_cells(model, target, adata, key="target").by_name(),
    )


def nearest(points: Floats, reference: Floats, k: int) -> tuple[Floats, Ints]:
    """Euclidean distances and rows of the k nearest reference points, nearest first.

    The search works on blocks of points, so memory is O(points x k).

    Returns
    -------
    Both ``(n_points, min(k, n_reference))``.
    """
    search = NearestNeighbors(n_neighbors=min(k, len(reference))).fit(reference)
    distance, index = search.kneighbors(points)
    return np.asarray(distance), np.asarray(index, dtype=np.int64)


def nearest_others(points: Floats, k: int) -> tuple[Floats, Ints]:
    """Nearest points of the same set, each point itself left out; shapes as :func:`nearest`."""
    search = NearestNeighbors(n_neighbors=max(min(k, len(points) - 1), 1)).fit(points)
    distance, index = search.kneighbors()
    return np.asarray(distance), np.asarray(index, dtype=np.int64)
