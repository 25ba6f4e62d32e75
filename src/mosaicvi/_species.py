"""Which species names of genes look like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_ENSEMBL = {"human": re.compile(r"^ENSG\d{6,}"), "mouse": re.compile(r"^ENSMUSG\d{6,}")}
_GENOME_PREFIX = re.compile(r"^(?:GRCh\d+|GRCm\d+|hg\d+|mm\d+)_+", re.IGNORECASE)
# ACTB, HLA-DRA, C1orf112: no lower case but for "orf".
_HUMAN = re.compile(r"^(?=.*[A-Z]{2})[A-Z][A-Z0-9.-]*(?:orf[A-Z0-9.-]+)?$")
# Actb, mt-Nd1, H2-Ab1, 1700012B09Rik: a capital, then no capital.
_MOUSE = re.compile(r"^(?:mt-|H2-)?[A-Z][a-z][a-z0-9.-]*$|^[A-Z0-9]+Rik$")


def by_species(names: Iterable[str]) -> dict[str, list[str]]:
    """Names that look human (ACTB, ENSG...) and mouse (Actb, ENSMUSG...); others are left out."""
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
