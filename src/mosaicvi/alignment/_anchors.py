"""Pairs of cells that two modalities' linked features point to, before any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mosaicvi._types import Float
from mosaicvi.alignment._canonical import Canonical, fit_canonical
from mosaicvi.alignment._held_out import Modalities, join, weigh_by_held_out
from mosaicvi.alignment._neighbours import CellPairs, mutual_neighbours, spread, unit


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
    true_weight
        Weight of a true pair beside found ones when directions are fitted last.
    """

    n_neighbours: int = 15
    n_directions: int = 20
    n_rounds: int = 3
    true_weight: float = 3.0


@dataclass(frozen=True)
class FewLinks:
    """What ties two modalities that few features link.

    Attributes
    ----------
    number
        Linked features of the modality that has fewer of them.
    doubt
        How far pairs of cells found by them are in doubt, from 0 to 1.
    """

    number: int
    doubt: float


@dataclass(frozen=True)
class Anchors:
    """Pairs of cells, and the directions that they share.

    Attributes
    ----------
    canonical
        Directions.
    pairs
        Two modalities to the pairs of the last round, true pairs included.
    refused
        Two modalities of which true pairs were given that agree no more than strangers, and so are
        not among the pairs.
    few
        Two modalities that few features link to what is known of these; whoever knows of the
        features says so.
    """

    canonical: Canonical
    pairs: Mapping[Modalities, CellPairs]
    refused: tuple[Modalities, ...] = ()
    few: Mapping[Modalities, FewLinks] = field(default_factory=dict)


def find_anchors(
    representations: Mapping[str, Float[np.ndarray, "..."]],
    linked: Mapping[Modalities, tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]],
    true_pairs: Mapping[Modalities, CellPairs],
    spec: AnchorSpec,
    *,
    n_neighbours: Mapping[Modalities, int] | None = None,
    worth: Float[np.ndarray, " directions"] | None = None,
) -> Anchors:
    """Find pairs from linked features, learn directions from pairs, pair again by both.

    What linked features say weakly of single genes, all features of both modalities together say
    well once a few right pairs tell which directions belong together (MaxFuse, Chen et al. 2023).

    True pairs of linked modalities take no part in the search. They join the found ones when
    directions are fitted last, and say how much each direction is worth: found pairs were chosen
    for agreeing along all of them, so that the correlations over found pairs are too high, and too
    much alike (:func:`~mosaicvi.alignment._held_out.weigh_by_held_out`). True pairs that agree no
    more than strangers along directions that linked features found are not used at all.

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
    n_neighbours
        Two modalities to another number of neighbours than the settings'.
    worth
        Correlation along directions by their rank, ``(n_directions,)``, where it is known from
        elsewhere: weighs them where true pairs do not.
    """
    known = {both: pairs for both, pairs in true_pairs.items() if len(pairs)}
    alone = {both: pairs for both, pairs in known.items() if both not in linked}
    neighbours = {both: (n_neighbours or {}).get(both, spec.n_neighbours) for both in linked}
    units = {both: tuple(unit(side) for side in sides) for both, sides in linked.items()}
    pairs = {**_matched(units, neighbours), **alone}
    canonical = fit_canonical(representations, pairs, spec.n_directions)
    for _ in range(spec.n_rounds - 1):
        spaces = _with_scores(units, representations, canonical)
        pairs = {**_matched(spaces, neighbours), **alone}
        canonical = fit_canonical(representations, pairs, spec.n_directions)
    weighed: Canonical | None = None
    refused: tuple[Modalities, ...] = ()
    if known:
        found = {
            both: _without(each, known.get(both)) for both, each in pairs.items() if both in linked
        }
        weighed = weigh_by_held_out(
            representations,
            found,
            known,
            spec.n_directions,
            true_weight=spec.true_weight,
            otherwise=worth,
        )
        if weighed is None:
            known, refused = {}, tuple(known)
    if weighed is None and worth is not None:
        weighed = canonical.weighed(worth[: len(canonical.correlation)])
    if weighed is None:
        return Anchors(canonical, pairs, refused)
    again = _matched(_with_scores(units, representations, weighed), neighbours)
    found = {both: _without(each, known.get(both)) for both, each in again.items()}
    pairs = {both: join(found.get(both), known.get(both)) for both in {**found, **known}}
    return Anchors(weighed, pairs, refused)


def _matched(
    spaces: Mapping[Modalities, tuple[np.ndarray, ...]], n_neighbours: Mapping[Modalities, int]
) -> dict[Modalities, CellPairs]:
    return {
        both: mutual_neighbours(*sides, n_neighbours=n_neighbours[both])
        for both, sides in spaces.items()
    }


def _with_scores(
    units: Mapping[Modalities, tuple[np.ndarray, ...]],
    representations: Mapping[str, Float[np.ndarray, "..."]],
    canonical: Canonical,
) -> dict[Modalities, tuple[np.ndarray, ...]]:
    """Linked features and scores side by side."""
    scores = {
        name: unit(canonical.scores(name, values))
        for name, values in representations.items()
        if name in canonical.weights
    }
    return {
        both: tuple(
            np.concatenate([scores[name], side], axis=1)
            for name, side in zip(both, sides, strict=True)
        )
        for both, sides in units.items()
    }


def _without(found: CellPairs, true: CellPairs | None) -> CellPairs:
    """Pairs found among cells whose partner is not known."""
    if true is None:
        return found
    free = ~(np.isin(found.left, true.left) | np.isin(found.right, true.right))
    left, right = found.left[free], found.right[free]
    return CellPairs(left, right, spread(left, right))
