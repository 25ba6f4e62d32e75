"""What brings modalities together: pairs of cells, directions they share, and losses on them."""

from mosaicvi.alignment._anchors import Anchors, AnchorSpec, FewLinks, find_anchors
from mosaicvi.alignment._canonical import Canonical, fit_canonical
from mosaicvi.alignment._edge_confidence import (
    edge_confidence,
    edge_correlation,
    group_cells,
    group_means,
)
from mosaicvi.alignment._held_out import LEAST_PAIRS, falling, pair_correlation
from mosaicvi.alignment._infonce import infonce
from mosaicvi.alignment._neighbours import CellPairs, mutual_neighbours, regress, smooth, unit

__all__ = [
    "LEAST_PAIRS",
    "AnchorSpec",
    "Anchors",
    "Canonical",
    "CellPairs",
    "FewLinks",
    "edge_confidence",
    "edge_correlation",
    "falling",
    "find_anchors",
    "fit_canonical",
    "group_cells",
    "group_means",
    "infonce",
    "mutual_neighbours",
    "pair_correlation",
    "regress",
    "smooth",
    "unit",
]
