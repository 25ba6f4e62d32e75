"""How much shared directions are worth, by counts that the search for anchors did not see."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch

from mosaicvi.alignment import AnchorSpec, falling, find_anchors, pair_correlation
from mosaicvi.model._inputs import (
    fit_modality_projection,
    project,
    rows_read,
    target_sum,
)
from mosaicvi.model._linked_columns import is_sparse
from mosaicvi.model._linked_features import linked_sides
from mosaicvi.model._technical import explain_technical
from mosaicvi.nn._aligned_inputs import AlignedInputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData
    from mosaicvi.graph import FeatureGraph

SEEN = 0.7
"""Share of the counts among which anchors are sought."""

CELLS_WANTED = 9_000
"""Cells of the smaller modality, counted once for each division of the counts."""

MOST_DIVISIONS = 3
"""Divisions of the counts over which correlations are averaged, at most."""


def thin(
    data: MosaicData, kept: Mapping[str, np.ndarray], *, seed: int
) -> tuple[MosaicData, MosaicData] | None:
    """Divide every count in two at random: 70 % of the molecules in one part, the rest in another.

    Parts of a Poisson count are independent given its rate (Neufeld et al. 2024, *count
    splitting*): what the noise of one says of a cell, the noise of the other does not.

    Parameters
    ----------
    data
        Registered data.
    kept
        Modality to the rows wanted.
    seed
        Seed of the division.

    Returns
    -------
    The wanted rows twice, without a cell that holds two modalities. None where some modality is not
    one of sparse counts: such counts vary by more than Poisson, and one part tells the noise of the
    other.
    """
    rng = np.random.default_rng(seed)
    parts: tuple[dict[str, ModalityData], dict[str, ModalityData]] = ({}, {})
    for name, modality in data.modalities.items():
        rows = kept[name]
        if modality.representation is not None or not is_sparse(modality, None, rows):
            return None
        values = rows_read(modality, rows)
        if not sp.issparse(values) or np.iscomplexobj(values):
            return None
        counts = sp.csr_matrix(values)
        seen = counts.copy()
        drawn = rng.binomial(np.rint(counts.data).astype(np.int64), SEEN)
        seen.data = drawn.astype(counts.dtype)
        for part, each in zip(parts, (seen, counts - seen), strict=True):
            part[name] = _with_counts(modality, rows, sp.csr_matrix(each))
    first, second = (replace(data, modalities=part) for part in parts)
    return first, second


def _with_counts(modality: ModalityData, rows: np.ndarray, counts: sp.csr_matrix) -> ModalityData:
    """Some rows of a modality with other counts; no cell of the MuData is known to hold them."""
    counts.eliminate_zeros()
    counts.sort_indices()
    total = np.asarray(counts.sum(axis=1)).ravel().astype(np.float32)
    return replace(
        modality,
        values=counts,
        rows=np.arange(len(rows)),
        library_size=total,
        batch=modality.batch[rows],
    )


def unseen_correlation(
    data: MosaicData,
    graph: FeatureGraph,
    kept: Mapping[str, np.ndarray],
    spec: AnchorSpec,
    *,
    widths: Mapping[str, int],
    n_neighbours: Mapping[tuple[str, str], int],
    seed: int,
) -> np.ndarray | None:
    """Correlation along canonical directions, by their rank, over counts not used to find anchors.

    Anchors are chosen for agreeing, so they agree along directions of no meaning too. Found in one
    part of the counts, they do so by the noise of that part; scores of the other part agree along
    such directions no more than those of strangers. A part of the counts is noisier than all of
    them, so correlations are too low, but it is their ratios that weigh directions.

    Parameters
    ----------
    data
        Registered data.
    graph
        Which features belong together, over exactly the registered features.
    kept
        Modality to the rows among which anchors are sought.
    spec
        How anchors are sought.
    widths
        Modality to the components of its frozen projection.
    n_neighbours
        As in :func:`mosaicvi.alignment.find_anchors`.
    seed
        Seed of the divisions.

    Returns
    -------
    Falling, ``(n_directions,)``. None where counts cannot be divided (:func:`thin`), the graph
    leaves two modalities without an edge, or nothing agrees.
    """
    n_cells = min(len(rows) for rows in kept.values())
    n_divisions = int(np.clip(CELLS_WANTED // max(n_cells, 1), 1, MOST_DIVISIONS))
    found = []
    for division in range(n_divisions):
        parts = thin(data, kept, seed=seed + division)
        each = None if parts is None else _agreement(*parts, graph, spec, widths, n_neighbours)
        if each is None:
            return None
        found.append(each)
    correlation = falling(np.mean(found, axis=0))
    return correlation if correlation[0] > 0 else None


def _agreement(
    seen: MosaicData,
    unseen: MosaicData,
    graph: FeatureGraph,
    spec: AnchorSpec,
    widths: Mapping[str, int],
    n_neighbours: Mapping[tuple[str, str], int],
) -> np.ndarray | None:
    """Correlation of the unseen part over pairs, and along directions, of the seen one."""
    rows = {name: np.arange(each.n_cells) for name, each in seen.modalities.items()}
    technical, others = {}, {}
    for name, modality in seen.modalities.items():
        scale = target_sum(modality)
        projection = fit_modality_projection(
            modality,
            n_components=widths[name],
            target_sum=scale,
            seed=0,
            rows=rows[name],
            values=rows_read(modality, rows[name]),
        )
        technical[name] = explain_technical(modality, project(modality, projection, scale), seed=0)
        held = unseen.modalities[name]
        inputs = AlignedInputs(
            *technical[name].effects, np.zeros(widths[name]), np.zeros((widths[name], 1))
        )
        projected = torch.as_tensor(project(held, projection, scale))
        others[name] = inputs.residuals(projected, torch.as_tensor(held.batch.copy())).numpy()
    linked = linked_sides(seen, graph, technical, rows)
    if len(linked) < len(rows) * (len(rows) - 1) // 2:
        return None
    values = {name: each.residuals for name, each in technical.items()}
    anchors = find_anchors(values, linked, {}, spec, n_neighbours=n_neighbours)
    scores = {name: anchors.canonical.scores(name, each) for name, each in others.items()}
    found = [
        pair_correlation(scores[first][pairs.left], scores[second][pairs.right], pairs.weight)
        for (first, second), pairs in anchors.pairs.items()
    ]
    return np.asarray(np.mean(found, axis=0))
