"""Pairs of cells that two modalities' linked features point to, before any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mosaicvi._types import Float
from mosaicvi.alignment._canonical import Canonical, fit_canonical
from mosaicvi.alignment._neighbours import CellPairs, mutual_neighbours, spread, unit

Modalities = tuple[str, str]


@dataclass(frozen=True)
class AnchorSpec:
    """How anchors are sought.

    Attributes
    ----------
    n_neighbours
        Neighbours on either side among which mutual ones are taken.
    n_directions
        Canonical directions.
    n_rounds
        Rounds of pairs and directions; the first sees linked features alone.
    """

    n_neighbours: int = 15
    n_directions: int = 20
    n_rounds: int = 3


@dataclass(frozen=True)
class Anchors:
    """Pairs of cells, and the directions that they share.

    Attributes
    ----------
    canonical
        Directions.
    pairs
        Two modalities to the pairs of the last round, true pairs included.
    """

    canonical: Canonical
    pairs: Mapping[Modalities, CellPairs]


def find_anchors(
    representations: Mapping[str, Float[np.ndarray, "..."]],
    linked: Mapping[Modalities, tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]],
    true_pairs: Mapping[Modalities, CellPairs],
    spec: AnchorSpec,
) -> Anchors:
    """Find pairs from linked features, learn directions from pairs, pair again by both.

    What linked features say weakly of single genes, all features of both modalities together say
    well once a few right pairs tell which directions belong together (MaxFuse, Chen et al. 2023).

    Parameters
    ----------
    representations
        Modality to components of its cells, ``(n_cells, n_components)``, without batch and depth.
    linked
        Two modalities to their cells on linked features, ``(n_cells, n_linked)`` each, columns that
        belong together, standardised.
    true_pairs
        Two modalities to cells that are known to be the same.
    spec
        Settings.
    """
    units = {both: tuple(unit(side) for side in sides) for both, sides in linked.items()}
    spaces: Mapping[Modalities, tuple[np.ndarray, ...]] = units
    for _ in range(spec.n_rounds):
        pairs = {}
        for both in dict.fromkeys([*linked, *true_pairs]):
            found = CellPairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
            if both in spaces:
                found = mutual_neighbours(*spaces[both], n_neighbours=spec.n_neighbours)
            pairs[both] = _with_true(found, true_pairs.get(both))
        canonical = fit_canonical(representations, pairs, spec.n_directions)
        scores = {
            name: unit(canonical.scores(name, values))
            for name, values in representations.items()
            if name in canonical.weights
        }
        spaces = {
            both: tuple(
                np.concatenate([scores[name], side], axis=1)
                for name, side in zip(both, sides, strict=True)
            )
            for both, sides in units.items()
        }
    return Anchors(canonical, pairs)


def _with_true(found: CellPairs, true: CellPairs | None) -> CellPairs:
    """Pairs found among cells whose partner is not known, and the true pairs, each of weight one.

    One true pair carries the noise of one cell, which found pairs share out over several: true
    pairs that weigh more make the directions worse.
    """
    if true is None or not len(true):
        return found
    free = ~(np.isin(found.left, true.left) | np.isin(found.right, true.right))
    left, right = found.left[free], found.right[free]
    return CellPairs(
        np.concatenate([left, true.left]),
        np.concatenate([right, true.right]),
        np.concatenate([spread(left, right), np.ones(len(true))]),
    )
