"""Cells of two modalities side by side, on the features that a graph links."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mosaicvi import likelihoods
from mosaicvi.alignment import regress, smooth, unit
from mosaicvi.model._inputs import encode, rows_read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData
    from mosaicvi.graph import FeatureGraph
    from mosaicvi.model._technical import Technical

N_SMOOTHED = 30
"""Cells of a modality over which sparse linked features are averaged."""

SPARSE_COUNTS = 5.0
"""Features with fewer counts a cell on average are smoothed over neighbours; an antibody that is
counted in every cell needs none."""

MANY_LINKED = 32
"""From so many linked features on, sparse ones are also regressed on their modality's components;
with 12 that made matches worse (decisions, "What the fourth round changed")."""

MAX_LINKED = 128
"""Linked features beyond this number are reduced to as many principal components."""


def linked_features(
    data: MosaicData,
    graph: FeatureGraph | None,
    both: tuple[str, str],
    technical: Mapping[str, Technical],
    kept: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray] | None:
    """Cells of two modalities on the linked features of the one that has fewer of them.

    The modality with fewer linked features keeps them, encoded by its likelihood; counts of the
    other are summed over each one's positive edges, less those over its negative ones. Sparse ones
    are averaged over neighbours in their own modality, and where there are many of them also
    regressed on its components: two ways to free them of noise, which count alike. Batch and depth
    are regressed out.

    Returns
    -------
    ``(n_kept, n_columns)`` of each: the linked features standardised, or principal components of
    many; a part for each way where there are two, rows of unit length within parts; None where the
    graph has no edge between the two.
    """
    if graph is None:
        return None
    features = {name: list(data.modalities[name].var_names) for name in both}
    adjacency = sp.csr_matrix(graph.adjacency(features), dtype=np.float64)
    split = len(features[both[0]])
    between = sp.csr_matrix(adjacency[:split, split:])
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
    precision = np.float32 if int(columns.sum()) > MAX_LINKED else np.float64
    sides = {name: each.astype(precision, copy=False) for name, each in sides.items()}
    sparse = [
        name
        for name in both
        if is_sparse(data.modalities[name], columns if name == axis else None, kept[name])
    ]
    several = bool(sparse) and int(columns.sum()) >= MANY_LINKED
    ways = (_smoothed, _regressed) if several else (_smoothed,)
    found = []
    for way in ways:
        # One way at a time, and what is done with is let go.
        ready = [
            (way if name in sparse else _plain)(
                data.modalities[name], sides[name], technical[name], kept[name]
            )
            for name in both
        ]
        found.append(_reduced(ready))
    if not several:
        return found[0]
    left, right = (
        np.concatenate([unit(one), unit(two)], axis=1) for one, two in zip(*found, strict=True)
    )
    return left, right


def linked_sides(
    data: MosaicData,
    graph: FeatureGraph | None,
    technical: Mapping[str, Technical],
    kept: Mapping[str, np.ndarray],
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """:func:`linked_features` of every two modalities that the graph links."""
    return {
        both: sides
        for both in combinations(data.modalities, 2)
        if (sides := linked_features(data, graph, both, technical, kept)) is not None
    }


def _plain(
    modality: ModalityData, values: np.ndarray, technical: Technical, rows: np.ndarray
) -> np.ndarray:
    """Linked features without batch and depth."""
    return technical.take_from(modality, values, rows)


def _smoothed(
    modality: ModalityData, values: np.ndarray, technical: Technical, rows: np.ndarray
) -> np.ndarray:
    """The same, averaged over alike cells first."""
    near = smooth(values, technical.residuals[rows], N_SMOOTHED)
    return technical.take_from(modality, near, rows)


def _regressed(
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
    encoded = encode(modality, target, rows, rows_read(modality, rows))
    chosen = encoded[:, columns]
    dense = chosen if isinstance(chosen, np.ndarray) else chosen.toarray()
    if not likelihoods.get(modality.spec.likelihood).uses_library_size and depth is not None:
        # Counts that no library size has scaled: centred log-ratios.
        dense = dense - np.asarray(encoded.mean(1)).reshape(-1, 1)
    filled: np.ndarray = np.nan_to_num(dense - np.nanmean(dense, 0))
    return filled


def _onto(modality: ModalityData, weights: sp.csr_matrix, rows: np.ndarray) -> np.ndarray:
    """Log-normalised sums over positive edges minus those over negative ones."""
    counts = rows_read(modality, rows)
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


def _reduced(sides: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Standardise the columns, and reduce many of them to principal components of both.

    The arrays are overwritten.
    """
    for values in sides:
        spread = values.std(0)
        values -= values.mean(0)
        values /= np.where(spread > 1e-9, spread, 1.0)
    left, right = sides
    if left.shape[1] <= MAX_LINKED:
        return left, right
    for values in sides:
        values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    n_cells = sum(len(values) for values in sides)
    center = sum(values.sum(0, dtype=np.float64) for values in sides) / n_cells
    for values in sides:
        values -= center.astype(values.dtype)
    _, axes = np.linalg.eigh(np.asarray(left.T @ left + right.T @ right, dtype=np.float64))
    kept = axes[:, -MAX_LINKED:].astype(left.dtype)
    return left @ kept, right @ kept
