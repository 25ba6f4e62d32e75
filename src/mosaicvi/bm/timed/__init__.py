"""Methods of the comparison of speed. Adding one: a file here and a line in each table."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from mosaicvi._settings import logger
from mosaicvi.bm._method import find_method
from mosaicvi.bm.aligners._peers import PEAKS, PROTEIN, RNA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mosaicvi.bm.timed._base import Timed

TABLE = {
    "mosaicvi": "_mosaicvi:TimedMosaicVI",
    "totalvi": "_totalvi:TimedTotalVI",
    "multivi": "_multivi:TimedMultiVI",
    "scglue": "_scglue:TimedScglue",
}
"""Name of a method -> module and class, imported only by the worker that runs it."""

NEEDS = {"scglue": ("scglue", "pip install 'mosaicvi[benchmark]'")}
"""Method -> package that is no dependency of this one, and how to install it."""


def get(name: str) -> type[Timed]:
    """Class of a method.

    Raises
    ------
    RequestError
        If there is no method of that name; lists the known.
    """
    found: type[Timed] = find_method(TABLE, __name__, name)
    return found


def suiting(assays: Sequence[str | None], *, paired: bool, complete: bool) -> list[str]:
    """Methods that can be given such data.

    Parameters
    ----------
    assays
        Assays of both modalities, as ``ASSAYS`` of the alignment's peers calls them; None: another.
    paired
        Whether cells have both modalities.
    complete
        Whether all of them do.
    """
    if not paired:
        return ["mosaicvi", "scglue"]
    if not complete:
        return ["mosaicvi"]
    first, second = assays
    peers = {PROTEIN: ["totalvi"], PEAKS: ["multivi"]} if first == RNA else {}
    return ["mosaicvi", *peers.get(second or "", [])]


def installed(names: Sequence[str]) -> list[str]:
    """Methods whose packages are there; says of the others how to install them."""
    found = []
    for name in names:
        package, remedy = NEEDS.get(name, ("mosaicvi", ""))
        if find_spec(package) is None:
            logger.warning("%s is left out: %s is not installed. %s", name, package, remedy)
        else:
            found.append(name)
    return found
