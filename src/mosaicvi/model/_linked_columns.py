"""Cells of two modalities on the features that a graph links, column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from mosaicvi import likelihoods
from mosaicvi.alignment import regress, smooth
from mosaicvi.model._inputs import encode_values, rows_read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData
    from mosaicvi.graph import FeatureGraph
    from mosaicvi.model._technical import Technical

N_SMOOTHED = 30
"""Cells of a modality over which sparse linked features are averaged."""

SPARSE_COUNTS = 5.0
"""Features with fewer counts a cell on average are smoothed over neighbours; an antibody that is
counted in every cell needs none."""

MANY_COLUMNS = 128
"""Linked features beyond this number are held in single precision."""


@dataclass(frozen=True)
class LinkedColumns:
    """Cells of two modalities on the linked features of one of them.

    Attributes
    ----------
    axis
        The modality with fewer linked features, whose features the columns are.
    features
        Names of these.
    sides
        Each of the two modalities to its cells, ``(n_kept, n_linked)``, in order.
    sparse
        Modalities that are too sparse to be read cell by cell.
    groups
        Which columns hang together by features that they share, such as clones of one antibody and
        the genes of a complex: number of the group, ``(n_linked,)``.
    """

    axis: str
    features: list[str]
    sides: Mapping[str, np.ndarray]
    sparse: list[str]
    groups: np.ndarray

    def freed(
        self,
        way: Callable[[ModalityData, np.ndarray, Technical, np.ndarray], np.ndarray],
        data: MosaicData,
        technical: Mapping[str, Technical],
        kept: Mapping[str, np.ndarray],
    ) -> list[np.ndarray]:
        """Columns of each modality without batch and depth; sparse ones freed of noise, too."""
        return [
            (way if name in self.sparse else plain)(
                data.modalities[name], values, technical[name], kept[name]
            )
            for name, values in self.sides.items()
        ]


def linked_columns(
    data: MosaicData,
    graph: FeatureGraph | None,
    both: tuple[str, str],
    kept: Mapping[str, np.ndarray],
) -> LinkedColumns | None:
    """Cells of two modalities on the linked features of the one that has fewer of them.

    The modality with fewer linked features keeps them, encoded by its likelihood; counts of the
    other are summed over each one's positive edges, less those over its negative ones.

    Returns
    -------
    Columns; None where the graph has no edge between the two.
    """
    if graph is None:
        return None
    between = _between(data, graph, both)
    linked = np.diff(between.indptr) > 0, np.diff(between.tocsc().indptr) > 0
    if not linked[0].any():
        return None
    # Where they have equally many, the narrower modality: not whichever was named first.
    n_linked, width = [int(side.sum()) for side in linked], [len(side) for side in linked]
    first_is_axis = (n_linked[0], width[0]) < (n_linked[1], width[1])
    axis, other = both if first_is_axis else both[::-1]
    onto = between[linked[0]].T if first_is_axis else between[:, linked[1]]
    columns = linked[0] if first_is_axis else linked[1]
    sides = {
        axis: _axis_values(data.modalities[axis], columns, kept[axis]),
        other: _onto(data.modalities[other], sp.csr_matrix(onto), kept[other]),
    }
    # Cells times thousands of features, several times over: half the digits will do.
    precision = np.float32 if int(columns.sum()) > MANY_COLUMNS else np.float64
    sparse = [
        name
        for name in both
        if is_sparse(data.modalities[name], columns if name == axis else None, kept[name])
    ]
    return LinkedColumns(
        axis,
        [str(name) for name in np.asarray(data.modalities[axis].var_names)[columns]],
        {name: sides[name].astype(precision, copy=False) for name in both},
        sparse,
        _hanging_together(sp.csr_matrix(onto)),
    )


def count_linked(data: MosaicData, graph: FeatureGraph, both: tuple[str, str]) -> int:
    """Linked features of the modality that has fewer of them."""
    between = _between(data, graph, both)
    return int(min((np.diff(side.indptr) > 0).sum() for side in (between, between.tocsc())))


def _between(data: MosaicData, graph: FeatureGraph, both: tuple[str, str]) -> sp.csr_matrix:
    """Signed weights of the edges from one modality's features to another's."""
    features = {name: list(data.modalities[name].var_names) for name in both}
    adjacency = sp.csr_matrix(graph.adjacency(features), dtype=np.float64)
    split = len(features[both[0]])
    return sp.csr_matrix(adjacency[:split, split:])


def _hanging_together(onto: sp.csr_matrix) -> np.ndarray:
    """Connected component of each column of edges ``(n_other_features, n_linked)``."""
    n_other = onto.shape[0]
    graph = sp.bmat([[None, onto], [onto.T, None]], format="csr")
    found = np.asarray(connected_components(graph != 0, directed=False)[1])[n_other:]
    return np.asarray(np.unique(found, return_inverse=True)[1])


def plain(
    modality: ModalityData, values: np.ndarray, technical: Technical, rows: np.ndarray
) -> np.ndarray:
    """Linked features without batch and depth."""
    return technical.take_from(modality, values, rows)


def smoothed(
    modality: ModalityData, values: np.ndarray, technical: Technical, rows: np.ndarray
) -> np.ndarray:
    """The same, averaged over alike cells first."""
    near = smooth(values, technical.residuals[rows], N_SMOOTHED)
    return technical.take_from(modality, near, rows)


def regressed(
    modality: ModalityData, values: np.ndarray, technical: Technical, rows: np.ndarray
) -> np.ndarray:
    """The same, regressed on the modality's components afterwards."""
    return regress(technical.take_from(modality, values, rows), technical.residuals[rows])


def is_sparse(modality: ModalityData, columns: np.ndarray | None, rows: np.ndarray) -> bool:
    """Whether linked features are too sparse to be read cell by cell."""
    if not likelihoods.get(modality.spec.likelihood).is_count:
        return False
    values = rows_read(modality, rows)
    return float((values if columns is None else values[:, columns]).mean()) < SPARSE_COUNTS


def _axis_values(modality: ModalityData, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    depth = modality.depth
    target = 1.0 if depth is None else float(np.median(depth[depth > 0]))
    encoded = encode_values(modality, target, rows, rows_read(modality, rows))
    chosen = encoded[:, columns]
    dense = chosen if isinstance(chosen, np.ndarray) else chosen.toarray()
    if not likelihoods.get(modality.spec.likelihood).uses_library_size and depth is not None:
        # Counts that no library size has scaled: centred log-ratios.
        dense = dense - np.asarray(encoded.mean(1)).reshape(-1, 1)
    filled: np.ndarray = np.nan_to_num(dense - np.nanmean(dense, 0))
    return filled


def _onto(modality: ModalityData, weights: sp.csr_matrix, rows: np.ndarray) -> np.ndarray:
    """Log-normalised sums over positive edges minus those over negative ones.

    Of values that are no counts: sums of them as they are, or of the rates of pairs.
    """
    counts = likelihoods.get(modality.spec.likelihood).shown(rows_read(modality, rows))
    if isinstance(counts, np.ndarray):
        filled = np.nan_to_num(counts - np.nanmean(counts, 0))
        return np.asarray(filled @ weights)
    total = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1.0)
    scale = sp.diags(1e4 / total)
    result = np.zeros((counts.shape[0], weights.shape[1]))
    for part, change in ((weights.maximum(0.0), np.add), ((-weights).maximum(0.0), np.subtract)):
        if part.nnz:
            sums = (scale @ (counts @ part)).toarray()
            change(result, np.log1p(sums, out=sums), out=result)
    return result
