"""What the names of features say: species, isotype controls, genomic intervals."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mosaicvi._errors import DataError
from mosaicvi._species import by_species
from mosaicvi.data._structure import shown
from mosaicvi.graph._antigens import is_isotype

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_INTERVAL = re.compile(r"^(?:chr)?\w+[:_-]\d+[-_]\d+$")
_FEW = 10
"""Fewer recognised names than this say nothing about the species."""

_MINORITY_SHARE, _MINORITY_COUNT = 0.15, 3
"""From where on names of the other species are no longer a species' own odd names. In Ensembl, 8 %
of the mouse's names are in capitals (clones such as BC005537), next to none of the human's in title
case; panels of antibodies hold a few of either."""


def is_interval(name: str) -> bool:
    """Whether a feature is named as a genomic interval, such as ``chr1:100-200``."""
    return bool(_INTERVAL.match(name))


def find_isotypes(names: Sequence[str]) -> tuple[str, ...]:
    """Features that are isotype controls by name."""
    return tuple(name for name in names if is_isotype(name))


def species_of(names: Sequence[str], modality: str) -> str | None:
    """Guess the species of a gene modality from the case of gene names.

    Human symbols are upper case (ACTB), mouse symbols title case (Actb).

    Returns
    -------
    ``"human"``, ``"mouse"``, or None where too few names say.

    Raises
    ------
    DataError
        If both kinds are there.
    """
    found = by_species(names)
    n_human, n_mouse = len(found["human"]), len(found["mouse"])
    if n_human + n_mouse < _FEW:
        return None
    major, minor = ("human", "mouse") if n_human >= n_mouse else ("mouse", "human")
    n_minor = len(found[minor])
    if n_minor >= _MINORITY_COUNT and n_minor >= _MINORITY_SHARE * (n_human + n_mouse):
        raise DataError(
            f"mixed species by the case of gene names: {n_human} names look human "
            f"({shown(found['human'][:3])}) and {n_mouse} look like mouse "
            f"({shown(found['mouse'][:3])})",
            modality=modality,
            expected="genes of one species",
            remedy="keep one species, or map orthologues to one naming first",
        )
    return major


def looks_mouse(names: Sequence[str]) -> bool:
    """Whether a small panel is named as mouse genes; upper case says nothing there (CD4)."""
    found = by_species(names)
    n_mouse = len(found["mouse"])
    return n_mouse >= 5 and n_mouse >= 0.8 * len(names)


def check_one_species(
    species: Mapping[str, str | None], linked: Iterable[tuple[str, str]] = ()
) -> None:
    """Refuse modalities of different species, save where features of the two are linked.

    Parameters
    ----------
    species
        Species of each modality, None where it cannot be told.
    linked
        Modalities between whose features a graph has edges.

    Raises
    ------
    DataError
        Names the modalities.
    """
    known = {name: kind for name, kind in species.items() if kind is not None}
    if len(set(known.values())) < 2 or any(
        len({known.get(name) for name in both} - {None}) > 1 for both in linked
    ):
        return
    first = next(iter(known))
    second = next(name for name, kind in known.items() if kind != known[first])
    raise DataError(
        "mixed species by the case of gene names: "
        + ", ".join(f"modality {name!r} looks like {kind}" for name, kind in known.items()),
        modality=second,
        key="graph",
        expected="modalities of one species, or a graph that links orthologues",
        remedy="MosaicVI(mdata, graph=mosaicvi.graph.from_table(mdata, orthologues, "
        f"{first!r}, {second!r})), with a table of the features of the one and of the other; else "
        "set up a model for each species, or map orthologues to one naming first",
    )
