"""What ties the modalities of a model together, and so how they are aligned."""

from __future__ import annotations

import re
import warnings
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi._settings import logger
from mosaicvi.data._names import check_one_species
from mosaicvi.graph import FeatureGraph
from mosaicvi.graph._parts import HUB

if TYPE_CHECKING:
    from mosaicvi.data._mosaic_data import MosaicData

ALIGNMENTS = ("auto", "anchors", "pairs", "none")

ENOUGH_PAIRS = 0.5
"""Share of the smaller modality's cells that must be paired for pairs to align without anchors."""

LIKE_NAMES = 0.5
"""Share of the smaller modality's barcodes that another one has, if both are of the same cells."""

_BASES = re.compile(r"[ACGT]{12,}")

FEW_PAIRS = 0.05
"""Share of the smaller modality's cells below which pairs may be names that coincide by chance."""


def choose_alignment(data: MosaicData, graph: FeatureGraph | None, alignment: str) -> str:
    """Decide how modalities are aligned, and say so.

    Parameters
    ----------
    data
        Registered data.
    graph
        Feature graph, or None.
    alignment
        ``"auto"``, ``"anchors"``, ``"pairs"`` or ``"none"``, see
        :class:`~mosaicvi.model.MosaicVI`.

    Returns
    -------
    ``"anchors"``, ``"pairs"`` or ``"none"``.

    Raises
    ------
    RequestError
        If the alignment is unknown, or needs a graph that is not given, or the graph is none.
    DataError
        If nothing ties some modalities to the others, or some are of another species and no edge
        links any of them to these.
    """
    if alignment not in ALIGNMENTS:
        raise RequestError(
            f"{alignment!r}", key="alignment", expected="one of " + ", ".join(map(repr, ALIGNMENTS))
        )
    if graph is not None and not isinstance(graph, FeatureGraph):
        raise RequestError(
            f"found {type(graph).__name__}",
            key="graph",
            expected="a mosaicvi.graph.FeatureGraph",
            remedy="build it by mosaicvi.graph.from_names, from_coordinates or from_table",
        )
    names = list(data.modalities)
    alone = len(names) == 1 or alignment == "none"
    unlinked = dict.fromkeys(combinations(names, 2), 0)
    edges = unlinked if graph is None or alone else _edges_between(data, graph, names)
    check_one_species(
        {name: data.modalities[name].species for name in names},
        [both for both, count in edges.items() if count],
    )
    if graph is not None:
        _warn_hubs(graph)
    if alone:
        if graph is not None:
            logger.info("there is nothing to align: the feature graph is not used.")
        return "none"
    pairs = {
        both: int((data.modalities[both[0]].present & data.modalities[both[1]].present).sum())
        for both in combinations(names, 2)
    }
    if alignment == "anchors" and not any(edges.values()):
        raise RequestError(
            "anchors rest on features that belong together, and no edge of a graph links any two "
            "modalities",
            key="alignment",
            remedy="pass graph=, from mosaicvi.graph.from_names, from_coordinates or from_table",
        )
    _warn_like_names(data, pairs)
    usable = pairs if alignment == "pairs" else {b: pairs[b] + edges[b] for b in pairs}
    _check_tied(names, usable, given=graph is not None)
    if alignment != "auto":
        chosen = alignment
    else:
        chosen = "anchors" if _wants_anchors(data, edges) else "pairs"
    said = "; ".join(
        f"{first} and {second}: {pairs[first, second]} cells hold both, "
        f"{edges[first, second]} edges link their features"
        for first, second in pairs
    )
    logger.info("alignment=%r (%s)", chosen, said)
    _warn_few_pairs(data, edges)
    return chosen


def _warn_hubs(graph: FeatureGraph) -> None:
    """Tell of edges to features without data, such as gene sets, which nothing here reads."""
    features = graph.features
    if HUB not in features:
        return
    hubs = features[HUB].eq(True).to_numpy(dtype=bool)
    count = int((hubs[graph.edges.source] | hubs[graph.edges.target]).sum())
    if count:
        names = ", ".join(repr(name) for name in features["modality"][hubs].unique())
        warnings.warn(
            f"{count} of {graph.n_edges} edges of the feature graph lead to features without data, "
            f"of {names}: MosaicVI does not use these, and they tie no modalities. Remedy: link "
            "features themselves; gene sets are priors of mosaicvi.FactorVI(mdata, gene_sets=...).",
            MosaicviWarning,
            stacklevel=3,
        )


def _warn_like_names(data: MosaicData, pairs: dict[tuple[str, str], int]) -> None:
    """Tell of modalities that share barcodes and no cell: cells named in two ways."""
    for (first, second), count in pairs.items():
        if count:
            continue
        barcodes = [
            {_barcode(cell): cell for cell in data.obs_names[data.modalities[name].present]}
            for name in (first, second)
        ]
        both = sorted(barcodes[0].keys() & barcodes[1].keys())
        if len(both) >= LIKE_NAMES * min(map(len, barcodes)):
            named = [each[both[0]] for each in barcodes]
            warnings.warn(
                f"no cell holds both {first!r} and {second!r}, but {len(both)} barcodes are in "
                f"both, as in {named[0]!r} and {named[1]!r}. If these are the same cells, give "
                "them the same names in both modalities and build the MuData anew.",
                MosaicviWarning,
                stacklevel=2,
            )


def _barcode(cell: str) -> str:
    """Barcode in the name of a cell, else the name."""
    found = _BASES.search(str(cell))
    return found.group() if found else str(cell)


def _warn_few_pairs(data: MosaicData, edges: dict[tuple[str, str], int]) -> None:
    """Tell of so few cells that hold two modalities that it may be chance that names coincide.

    Cells that hold a third modality too do not count: there the overlap is a part of a larger one.
    """
    present = {name: each.present for name, each in data.modalities.items()}
    number = np.sum(list(present.values()), axis=0)
    for first, second in edges:
        count = int((present[first] & present[second] & (number == 2)).sum())
        smaller = min(data.modalities[name].n_cells for name in (first, second))
        if 0 < count < FEW_PAIRS * smaller:
            warnings.warn(
                f"only {count} cells hold both {first!r} and {second!r} ({count / smaller:.1%} of "
                "the smaller modality). If these are different cells that have one name by chance, "
                "as barcodes of two captures may, everything that ties the modalities is wrong: "
                f"give the cells of each names of their own, such as {second!r} before each name. "
                "If they are the same cells, they are few to learn from"
                + (
                    "."
                    if edges[first, second]
                    else ": pass graph= (mosaicvi.graph.from_names, from_coordinates or "
                    "from_table), which adds what features say."
                ),
                MosaicviWarning,
                stacklevel=2,
            )


def _wants_anchors(data: MosaicData, edges: dict[tuple[str, str], int]) -> bool:
    """Whether some two linked modalities have too few pairs to be aligned by pairs alone."""
    return any(edges[both] > 0 and few_pairs(data, both) for both in edges)


def few_pairs(data: MosaicData, both: tuple[str, str]) -> bool:
    """Whether fewer cells hold both modalities than :data:`ENOUGH_PAIRS` says."""
    first, second = (data.modalities[name] for name in both)
    count = int((first.present & second.present).sum())
    return count < ENOUGH_PAIRS * min(first.n_cells, second.n_cells)


def _edges_between(
    data: MosaicData, graph: FeatureGraph, names: list[str]
) -> dict[tuple[str, str], int]:
    """Edges between the features of each two modalities."""
    for name in names:
        if name not in graph.modalities:
            raise DataError(
                "the feature graph has no features of it",
                modality=name,
                key="graph",
                expected=f"features of {', '.join(map(repr, names))}",
                remedy="build the graph from this MuData, with the names of its modalities",
            )
    edges = graph.align({name: list(data.modalities[name].var_names) for name in names}).edges
    ends = np.cumsum([data.modalities[name].n_features for name in names])
    sides = (np.searchsorted(ends, side, side="right") for side in (edges.source, edges.target))
    low, high = np.sort(np.stack(list(sides)), axis=0)
    return {
        (names[i], names[j]): int(((low == i) & (high == j)).sum())
        for i, j in combinations(range(len(names)), 2)
    }


def _check_tied(
    names: list[str],
    usable: dict[tuple[str, str], int],
    *,
    given: bool,
) -> None:
    """Every modality must be tied to every other, through others if need be."""
    group = {name: name for name in names}
    for (first, second), count in usable.items():
        if count:
            old, new = group[second], group[first]
            group = {name: new if tied == old else tied for name, tied in group.items()}
    apart = [name for name in names if group[name] != group[names[0]]]
    if apart:
        raise DataError(
            f"nothing ties {', '.join(map(repr, apart))} to {names[0]!r}: no cell holds both, and "
            + (
                "no edge of the feature graph links their features"
                if given
                else "no feature graph links their features"
            ),
            modality=apart[0],
            key="graph",
            remedy="pass graph=, which says which features belong together (mosaicvi.graph."
            "from_names, from_coordinates or from_table), or cells that hold both; "
            "alignment='none' gives each modality a latent space of its own",
        )


def warn_refused(both: tuple[str, str], n_pairs: int) -> None:
    """Say that the cells which two modalities share do not look like the same cells."""
    first, second = both
    warnings.warn(
        f"the {n_pairs} cells that hold both {first!r} and {second!r} agree no more than strangers "
        "along what their linked features share, so they do not guide the alignment. Are the cells "
        f"of both named rightly, and in the right order? If not, rename the cells of {second!r}, "
        "so that the two share none; if they are right, the graph links the wrong features",
        MosaicviWarning,
        stacklevel=2,
    )
