"""Cells of two modalities side by side, on the features that a graph links."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi.alignment import unit
from mosaicvi.model._linked_columns import linked_columns, regressed, smoothed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.data._mosaic_data import MosaicData
    from mosaicvi.graph import FeatureGraph
    from mosaicvi.model._technical import Technical

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

    Columns are those of :func:`~mosaicvi.model._linked_columns.linked_columns`. Sparse ones
    are averaged over neighbours in their own modality, and where there are many of them also
    regressed on its components: two ways to free them of noise, which count alike. Batch and depth
    are regressed out.

    Returns
    -------
    ``(n_kept, n_columns)`` of each: the linked features standardised, or principal components of
    many; a part for each way where there are two, rows of unit length within parts; None where the
    graph has no edge between the two.
    """
    columns = linked_columns(data, graph, both, kept)
    if columns is None:
        return None
    several = bool(columns.sparse) and len(columns.features) >= MANY_LINKED
    ways = (smoothed, regressed) if several else (smoothed,)
    # One way at a time, and what is done with is let go.
    found = [reduced(columns.freed(way, data, technical, kept)) for way in ways]
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


def reduced(sides: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
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
