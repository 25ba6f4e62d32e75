"""The cells of one modality that belong to those of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from mosaicvi._errors import RequestError
from mosaicvi.data._columns import labels
from mosaicvi.data._structure import rows_of
from mosaicvi.tl._counterparts import alignment_confidence_of
from mosaicvi.tl._latents import Floats, Ints, UnimodalCells, nearest, two_modalities
from mosaicvi.tl._write import mudata_of

if TYPE_CHECKING:
    from mudata import MuData

    from mosaicvi.model import MosaicVI

LARGEST_ASSIGNMENT = 25_000_000
"""Distances of an assignment, 200 MB: 5,000 cells to 5,000."""
WIDTH_NEIGHBOUR = 10
"""A cell's scale is its distance to this neighbour of the other modality."""


class _Found(NamedTuple):
    """Matches within one group, a row a match; numbers are positions within the modality."""

    source: Ints
    target: Ints
    rank: Ints
    distance: Floats
    similarity: Floats
    mutual: np.ndarray


def match_cells(
    model: MosaicVI,
    source: str = "rna",
    target: str = "protein",
    *,
    k: int = 1,
    group_key: str | None = None,
    one_to_one: bool = False,
    adata: MuData | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    r"""For each cell of one modality, its best matches among those of another.

    Cells are placed by their own modality alone, so a cell that has both is no match of itself by
    construction.

    Parameters
    ----------
    model
        Fitted model.
    source, target
        Modality whose cells are matched, and modality of the matches.
    k
        Matches of each source cell.
    group_key
        Column, in ``mdata.obs`` or the modalities' ``obs``, within whose values cells are matched,
        such as the donor; None: among all.
    one_to_one
        Each cell is matched once at most, so that the sum of squared distances is least (linear
        assignment; Crouse 2016). Needs ``k=1``, and at most 25 million pairs of cells a group.
    adata
        MuData with the cells; None: the one the model was built on. It is not changed.
    seed
        Seed of the alignment confidence.

    Returns
    -------
    DataFrame, a row a match, sorted by source cell and rank:

    - ``source``, ``target``: names of the cells;
    - ``rank``: from 1, the nearest;
    - ``distance``: Euclidean, in the latent space, where the prior has standard deviation 1;
    - ``similarity``: ``exp(-distance^2 / (s_i s_j))``, with s the distance of either cell to its
      tenth neighbour of the other modality (Zelnik-Manor and Perona 2004): 1 at the same place,
      above .37 nearer than that neighbour, towards 0 beyond;
    - ``mutual``: whether the source cell is among the k nearest source cells of its match, too;
    - ``confidence``: alignment confidence of the source cell (:func:`alignment_confidence`), among
      all cells: low where the target modality lacks its type, and the match means little.

    Source cells in whose group there is no target cell, or that an assignment leaves over, have no
    row.

    Raises
    ------
    RequestError
        If a modality is unknown, both are the same, ``k`` is no whole number or below 1,
        ``one_to_one`` is asked for with ``k`` above 1 or for too many cells, or no group has cells
        of both.
    DataError
        If the column is missing, or has no value for a cell.

    Examples
    --------
    >>> matches = mosaicvi.tl.match_cells(model, "rna", "atac", group_key="donor")
    >>> matches[matches["mutual"]]
    """
    if not isinstance(k, int | np.integer) or k < 1 or (one_to_one and k > 1):
        expected = "1 with one_to_one" if one_to_one else "a whole number, at least 1"
        raise RequestError(f"{k}", key="k", expected=expected)
    left, right = two_modalities(model, source, target, adata)
    groups = _groups(mudata_of(model, adata), group_key, left, right)
    found = []
    for name in sorted(set(groups[0]) & set(groups[1])):
        rows = np.flatnonzero(groups[0] == name), np.flatnonzero(groups[1] == name)
        here = find_matches(left.latent[rows[0]], right.latent[rows[1]], k, one_to_one=one_to_one)
        found.append(here._replace(source=rows[0][here.source], target=rows[1][here.target]))
    if not found:
        raise RequestError(
            f"no group has cells of {source!r} and of {target!r}",
            key="group_key",
            expected="values that cells of both modalities have, such as donors",
            remedy="name another column, or leave group_key out",
        )
    matches = _Found(*(np.concatenate(part) for part in zip(*found, strict=True)))
    order = np.lexsort([matches.rank, left.rows[matches.source]])
    confidence = alignment_confidence_of(left.places, right.places, seed=seed)
    table = {
        "source": left.names[matches.source],
        "target": right.names[matches.target],
        "rank": matches.rank,
        "distance": matches.distance,
        "similarity": matches.similarity,
        "mutual": matches.mutual,
        "confidence": confidence[matches.source],
    }
    return pd.DataFrame(table).iloc[order].reset_index(drop=True)


def find_matches(source: Floats, target: Floats, k: int, *, one_to_one: bool) -> _Found:
    """Match the cells of one group."""
    far, there = nearest(source, target, max(k, WIDTH_NEIGHBOUR))
    back_far, back = nearest(target, source, max(k, WIDTH_NEIGHBOUR))
    width = far[:, min(WIDTH_NEIGHBOUR, far.shape[1]) - 1]
    back_width = back_far[:, min(WIDTH_NEIGHBOUR, back_far.shape[1]) - 1]
    if one_to_one:
        rows, columns = _assign(source, target)
        distance, rank = np.linalg.norm(source[rows] - target[columns], axis=1), np.ones_like(rows)
    else:
        taken = there[:, :k]
        rows, columns = np.repeat(np.arange(len(source)), taken.shape[1]), taken.ravel()
        distance = far[:, :k].ravel()
        rank = np.tile(np.arange(1, taken.shape[1] + 1), len(source))
    scale = np.maximum(width[rows] * back_width[columns], np.finfo(float).tiny)
    mutual = (back[columns, :k] == rows[:, None]).any(axis=1)
    return _Found(rows, columns, rank, distance, np.exp(-np.square(distance) / scale), mutual)


def _assign(source: Floats, target: Floats) -> tuple[Ints, Ints]:
    if len(source) * len(target) > LARGEST_ASSIGNMENT:
        raise RequestError(
            f"{len(source)} x {len(target)} cells",
            key="one_to_one",
            expected=f"at most {LARGEST_ASSIGNMENT} pairs of cells in a group",
            remedy="give a group_key, or take the rows where mutual is true of one_to_one=False",
        )
    rows, columns = linear_sum_assignment(cdist(source, target, "sqeuclidean"))
    return rows.astype(np.int64), columns.astype(np.int64)


def _groups(
    mdata: MuData, key: str | None, left: UnimodalCells, right: UnimodalCells
) -> tuple[np.ndarray, np.ndarray]:
    """Group of each cell of both modalities."""
    if key is None:
        return np.full(len(left), ""), np.full(len(right), "")
    rows = {part.modality: rows_of(mdata, part.modality) for part in (left, right)}
    column = labels(mdata, key, rows, option="group_key")
    return column[left.rows].astype(str), column[right.rows].astype(str)
