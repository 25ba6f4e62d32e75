"""Which genes code for what an antibody binds: the package's own table, and how names are read.

``antigens.tsv`` has a row an antigen: its names, separated by ``|``; its genes in human and mouse,
separated by commas, with older symbols of the same gene after a slash; and its kind. ``gene``: what
genes code for, one a ``protein``, several a ``complex``. ``isoform``: a form that counts of the
whole gene cannot tell from others (CD45RA). ``enzyme``: no gene product, but what an enzyme makes
(CD15 by FUT4). ``none``: no gene is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Species = Literal["human", "mouse"]

_GREEK = str.maketrans("αβγδεζκλθ", "abgdezklq")
_SPELT = re.compile(r"alpha|beta|gamma|delta|epsilon|kappa|lambda")
_PREFIX = re.compile(
    r"^(?:(?:adt|prot|protein|ab|anti|totalseq(?:[ ._-]?[abcd])?|humsrt|hums|hu|ms|human|mouse"
    r"|[abcd]\d{4})[ ._:/-]+)+",
    re.I,
)
_SUFFIX = re.compile(
    r"(?:[ ._-]+(?:total(?:seq)?[ ._-]?[abcd]?|adt|prot|protein|antibody|[abcd]\d{4}))+$", re.I
)
_CLONE = re.compile(r"^(?P<antigen>.*[^\d\s._-].*?)[._-](?P<clone>\d)$")
_ABSEQ = re.compile(r"^(?P<antigen>[^|:]+)(?::(?P<clone>[^|]+))?\|.*\|pAbO$", re.I)
"""BD's antibodies for Rhapsody: antigen, clone, gene and number, ``CD4:SK3|CD4|AHS0032|pAbO``."""
_NAMED_CLONES = (
    *("UCHT1", "OKT3", "SK7", "HIT3a", "RPA-T4", "OKT4", "SK3", "RPA-T8", "OKT8", "SK1", "HIT8a"),
    *("M5E2", "63D3", "HCD14", "HIT2", "HB-7", "HI30", "2D1", "HI100", "UCHL1", "2H7", "HIB19"),
    *("SJ25C1", "3G8", "HCD56", "5.1H11", "QA17A16", "NCAM16.2", "CMSSB", "QA17A04", "HP-3G10"),
    *("A019D5", "BC96", "M-A251", "O323", "M-T271", "6H6", "S-HCL-3", "Bu15", "ICRF44", "L161"),
    *("L243", "EH12.2H7", "A15153G", "G043H7", "G025H7", "J252D4", "DREG-56", "FN50", "IM7"),
    *("WM53", "WM59", "145-2C11", "17A2", "GK1.5", "RM4-5", "53-6.7", "30-F11", "RA3-6B2", "6D5"),
    *("M1/70", "N418", "1A8", "HK1.4", "RB6-8C5", "BM8", "PK136", "H57-597", "GL3", "MEL-14"),
)
"""Clones that panels with two antibodies against an antigen name them by."""
_PARENTHESES = re.compile(r"^(?P<outside>[^()]*)\((?P<inside>[^()]*)\)?\s*(?P<after>[^()]*)$")
_ANTI = re.compile(r"(?:^|[ ._-])anti[ ._-]", re.I)
_FILLERS = frozenset(
    {"human", "mouse", "rat", "recombinant", "antibody", "mab", "total", "surface"}
)
_ISOTYPE = re.compile(
    r"isotype"
    r"|(?:^|[ ._-])iso(?:$|[ ._-])|^iso[ ._-]?ig"
    r"|(?:^|[ ._-])(?:ctrl|control)(?:$|[ ._-])"
    r"|(?:mouse|rat|rag|hamster|armenian|goat|rabbit)[ ._-]*ig[gma]"
    r"|ig[gm]\d?[abc]?[ ._-]+(?:mouse|rat|hamster)"
    r"|^[mr]?igg-?[123][abc]?[kκ]?(?:$|[ ._,-])"
    r"|^(?:mopc|mpc|rtk|htk|g0114f7)[ ._-]?\d*",
    re.I,
)


@dataclass(frozen=True)
class Antigen:
    """A row of the table, in one species.

    Attributes
    ----------
    name
        The antigen's own name.
    genes
        Its genes, each with older symbols after the current one.
    kind
        ``protein``, ``complex``, ``isoform``, ``enzyme`` or ``none``.
    """

    name: str
    genes: tuple[tuple[str, ...], ...]
    kind: str


@dataclass(frozen=True)
class Reading:
    """What the name of an antibody was read as.

    Attributes
    ----------
    antigen
        The antigen, None if unknown or an isotype control.
    written
        The name without what labs put around it.
    clone
        The clone that the name ends in, a number or one of the well-known, else empty.
    reason, detail
        Why there is no antigen, else empty.
    """

    antigen: Antigen | None
    written: str
    clone: str
    reason: str = ""
    detail: str = ""


def key_of(name: str) -> str:
    """Bring spellings of an antigen together: ``CD66a/c/e``, ``cd66a.c.e`` and ``CD66ace``.

    Case, Greek letters and separators do not count, except that a separator between digits stays:
    ``cd3.1`` is a clone of CD3 and not CD31.
    """
    text = name.casefold().translate(_GREEK)
    text = _SPELT.sub(lambda found: found.group()[0], text)
    text = re.sub(r"(?<=\d)[^0-9a-z]+(?=\d)", ".", text)
    return re.sub(r"[^0-9a-z.]|\.(?!\d)|(?<!\d)\.", "", text)


@cache
def _rows() -> tuple[tuple[str, str, str, str], ...]:
    text = resources.files("mosaicvi.graph").joinpath("antigens.tsv").read_text(encoding="utf-8")
    return tuple(
        (names, human, mouse, kind)
        for names, human, mouse, kind in (line.split("\t") for line in text.splitlines()[1:])
    )


@cache
def _clone_keys() -> frozenset[str]:
    return frozenset(key_of(clone) for clone in _NAMED_CLONES)


@cache
def antigens(species: Species) -> Mapping[str, Antigen]:
    """Antigens of a species by the keys of their names."""
    table: dict[str, Antigen] = {}
    for names, human, mouse, kind in _rows():
        written = human if species == "human" else mouse
        if not written and kind != "none":
            continue
        genes = tuple(tuple(gene.split("/")) for gene in written.split(",") if gene)
        aliases = names.split("|")
        if kind == "gene":
            kind = "protein" if len(genes) == 1 else "complex"
        antigen = Antigen(aliases[0], genes, kind)
        for alias in aliases:
            table.setdefault(key_of(alias), antigen)
    return table


def is_isotype(name: str) -> bool:
    """Whether an antibody is an isotype control by name, such as ``Mouse IgG1, k isotype Ctrl``."""
    bare = _stripped(name)
    # "anti-mouse IgM" binds IgM, "mouse IgM" is a control.
    return bool(_ISOTYPE.search(bare) or (not _ANTI.search(name) and _ISOTYPE.search(name)))


def read_antibody(
    name: str, species: Species, extra: Mapping[str, Antigen] | None = None
) -> Reading:
    """Find the antigen of an antibody by its name.

    Tried in turn: the whole name; the name without a last digit, which counts clones, or without a
    well-known clone; what stands before and within parentheses; and its words, where all that mean
    something mean the same.

    Parameters
    ----------
    name
        The name, such as ``ADT_CD115(CSF-1R)_A0105``, ``PD-1_TotalSeqB``, ``cd3.1`` or
        ``Hu.CD4_RPA.T4``.
    species
        ``"human"`` or ``"mouse"``.
    extra
        Antigens that go before the table's, by :func:`key_of` their names.
    """
    table = {**antigens(species), **(extra or {})}
    written = _stripped(name)
    own = (extra or {}).get(key_of(name))
    if own is not None:
        return Reading(own, written, "")
    if key_of(written) not in (extra or {}) and is_isotype(name):
        return Reading(None, written, "", "isotype control", "an isotype control by name")
    told = ""
    coded = _ABSEQ.match(written)
    if coded is not None:
        written, told = coded["antigen"], coded["clone"] or ""
    for text, clone in _forms(written):
        found = table.get(key_of(text))
        if found is not None:
            return Reading(found, written, clone or told)
    for separators in (r"[/,;()]+", r"[\s/,;_()]+", r"[\s/,;._()-]+"):
        words = [word.strip() for word in re.split(separators, written) if len(word.strip()) > 1]
        meant = {word: table[key_of(word)] for word in words if key_of(word) in table}
        rest = [word for word in words if word not in meant and word.casefold() not in _FILLERS]
        different = {antigen.name for antigen in meant.values()}
        if len(different) == 1 and not rest:
            return Reading(next(iter(meant.values())), written, "")
        if len(different) > 1:
            detail = f"reads as any of {', '.join(sorted(different))}"
            return Reading(None, written, "", "ambiguous antigen", detail)
    return Reading(None, written, "", "unknown antigen", f"{written!r} is not in the table")


def _stripped(name: str) -> str:
    plain = name.replace("™", "").replace("®", "")
    return _SUFFIX.sub("", _PREFIX.sub("", plain.strip())).strip()


def _forms(written: str) -> Iterator[tuple[str, str]]:
    """Spellings to look up, the most telling first, each with the number of a clone."""
    yield written, ""
    numbered = _CLONE.match(written)
    if numbered:
        yield numbered["antigen"], numbered["clone"]
    for found in re.finditer(r"[ ._-]+", written):
        clone = written[found.end() :]
        if key_of(clone) in _clone_keys():
            yield written[: found.start()], clone
    parts = _PARENTHESES.match(written)
    if parts is None:
        return
    outside = parts["outside"].strip()
    numbered = _CLONE.match(outside)
    yield outside, ""
    if numbered:
        yield numbered["antigen"], numbered["clone"]
    for inside in (parts["inside"], *re.split(r"[,/;]", parts["inside"])):
        yield inside.strip(), ""
