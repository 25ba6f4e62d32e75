"""Methods of the alignment comparison. Adding one: a file here and a line in the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaicvi.bm._method import find_method

if TYPE_CHECKING:
    from mosaicvi.bm.aligners._base import Aligner

TABLE: dict[str, str] = {
    "mosaicvi": "_mosaicvi:MosaicVIAligner",
    "scglue": "_scglue:ScglueAligner",
    "multivi": "_multivi:MultiVIAligner",
    "smoothed": "_smoothed:SmoothedFeatures",
    "linked": "_linked:LinkedFeatures",
    "constant": "_trivial:Constant",
    "depth": "_trivial:Depth",
    "batch_depth": "_trivial:BatchDepth",
    "cca_all_pairs": "_cca:CorrelationOfAllPairs",
}
"""Name of a method -> module and class, imported only by the worker that runs it."""

CEILINGS = frozenset({"cca_all_pairs"})
"""Methods that are told the true pairs. Nothing else is told anything but the given pairs."""

LINKED = frozenset({"smoothed", "linked"})
"""Methods that know of nothing but linked features."""

PEERS = frozenset({"scglue", "multivi"})
"""Other packages' models: asked for by name, since they take long and one is an extra install."""


def defaults(*, paired: bool, linked: bool) -> tuple[str, ...]:
    """Methods of a comparison for which none are named.

    Parameters
    ----------
    paired
        Whether cells of the data have both modalities.
    linked
        Whether the feature graph links the modalities.
    """
    lacking = PEERS | (frozenset() if paired else CEILINGS) | (frozenset() if linked else LINKED)
    return tuple(name for name in TABLE if name not in lacking)


def get(name: str) -> type[Aligner]:
    """Class of a method.

    Raises
    ------
    RequestError
        If there is no method of that name; lists the known.
    """
    found: type[Aligner] = find_method(TABLE, __name__, name)
    return found
