"""What the names of features say: species, isotype controls, genomic intervals."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mosaicvi._errors import DataError
from mosaicvi.data._structure import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ENSEMBL = {"human": re.compile(r"^ENSG\d{6,}"), "mouse": re.compile(r"^ENSMUSG\d{6,}")}
_GENOME_PREFIX = re.compile(r"^(?:GRCh\d+|GRCm\d+|hg\d+|mm\d+)_+", re.IGNORECASE)
# ACTB, HLA-DRA, C1orf112: no lower case but for "orf".
_HUMAN = re.compile(r"^(?=.*[A-Z]{2})[A-Z][A-Z0-9.-]*(?:orf[A-Z0-9.-]+)?$")
# Actb, mt-Nd1, H2-Ab1, 1700012B09Rik: a capital, then no capital.
_MOUSE = re.compile(r"^(?:mt-|H2-)?[A-Z][a-z][a-z0-9.-]*$|^[A-Z0-9]+Rik$")
_INTERVAL = re.compile(r"^(?:chr)?\w+[:_-]\d+[-_]\d+$")
_ISOTYPE = re.compile(
    r"isotype|igg[ ._-]?[123][abc]?|hamster[ ._-]*igg|(?:^|[ ._-])(?:ctrl|control)(?:$|[ ._-])",
    re.IGNORECASE,
)

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
    return tuple(name for name in names if _ISOTYPE.search(name))


def _classify(names: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"human": [], "mouse": []}
    for name in names:
        for species, pattern in _ENSEMBL.items():
            if pattern.match(name):
                found[species].append(name)
                break
        else:
            bare = _GENOME_PREFIX.sub("", name)
            if _HUMAN.match(bare):
                found["human"].append(name)
            elif _MOUSE.match(bare):
                found["mouse"].append(name)
    return found


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
    found = _classify(names)
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
    found = _classify(names)
    n_mouse = len(found["mouse"])
    return n_mouse >= 5 and n_mouse >= 0.8 * len(names)


def check_one_species(species: Mapping[str, str | None]) -> None:
    """Refuse modalities of different species.

    Raises
    ------
    DataError
        Names the modalities.
    """
    known = {name: kind for name, kind in species.items() if kind is not None}
    if len(set(known.values())) > 1:
        raise DataError(
            "mixed species by the case of gene names: "
            + ", ".join(f"modality {name!r} looks like {kind}" for name, kind in known.items()),
            expected="modalities of one species",
            remedy="set up a model for each species, or map orthologues to one naming first",
        )
