"""Why a name is not among other names: case, naming, other intervals, or plainly absent."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError
from mosaicvi.graph._modality import name_index

CASE, NAMING, ASSEMBLY, ABSENT = "case", "naming", "assembly", "absent"
"""Reasons for which a name is not found."""

_VERSION = re.compile(r"^(ENS[A-Z]*[GTP]\d{6,})\.\d+$")
_ENSEMBL = re.compile(r"^ENS[A-Z]*[GTP]\d{6,}(?:\.\d+)?$")
_GENOME = re.compile(r"^(?:GRCh\d+|GRCm\d+|hg\d+|mm\d+)_+", re.IGNORECASE)
_INTERVAL = re.compile(r"^(?P<chrom>.+)[:_-](?P<start>\d+)[-_](?P<end>\d+)$")
_FEW = 10


def is_ensembl(names: pd.Index) -> bool:
    """Whether most names are Ensembl identifiers."""
    sample = names[:10_000]
    return bool(len(sample)) and sum(bool(_ENSEMBL.match(x)) for x in sample) > len(sample) / 2


def is_interval(name: str) -> bool:
    """Whether a name reads as a genomic interval."""
    return bool(_INTERVAL.match(name))


def without_version(names: pd.Index) -> pd.Index:
    """Ensembl identifiers without their version; other names as they are."""
    return name_index(_VERSION.sub(r"\1", name) for name in names)


def _plain(name: str) -> str:
    """Remove what differs between habits of naming: version, genome, separators, ``chr``, case."""
    bare = _GENOME.sub("", _VERSION.sub(r"\1", name.strip()))
    bare = re.sub(r"[\s:_./-]+", "_", bare).casefold()
    return bare.removeprefix("chr") if is_interval(name) else bare


def _first(keys: list[str], known: pd.Index, wanted: set[str]) -> dict[str, str]:
    """First known name of each wanted key."""
    found: dict[str, str] = {}
    for key, name in zip(keys, known, strict=True):
        if key in wanted:
            found.setdefault(key, name)
    return found


def diagnose(names: pd.Index, known: pd.Index) -> pd.DataFrame:
    """Say for each of some names that are not known why that may be.

    Parameters
    ----------
    names
        Names that are not in ``known``, shape ``(n_names,)``.
    known
        The names that were expected.

    Returns
    -------
    Columns ``reason`` (``case``: a known name differs in case only; ``naming``: in version, prefix
    or separators, or the one side has Ensembl identifiers and the other has not; ``assembly``: both
    sides are intervals, but this one is not known; ``absent``) and ``detail`` (the known name,
    where there is one), shape ``(n_names, 2)``.
    """
    folded, plain = [x.casefold() for x in names], [_plain(x) for x in names]
    by_case = _first([x.casefold() for x in known], known, set(folded))
    by_plain = _first([_plain(x) for x in known], known, set(plain))
    other_ids = len(known) > 0 and is_ensembl(names) != is_ensembl(known)
    intervals = len(known) > 0 and is_interval(str(known[0]))
    rows = []
    for name, low, bare in zip(names, folded, plain, strict=True):
        if low in by_case:
            rows.append((CASE, f"{by_case[low]!r} differs in case"))
        elif bare in by_plain:
            rows.append((NAMING, f"{by_plain[bare]!r} is named otherwise"))
        elif intervals and is_interval(name):
            rows.append((ASSEMBLY, "an interval of another assembly or peak set"))
        elif other_ids and bool(_ENSEMBL.match(name)) != is_ensembl(known):
            rows.append((NAMING, "Ensembl identifiers on one side, symbols on the other"))
        else:
            rows.append((ABSENT, ""))
    return pd.DataFrame(rows, columns=["reason", "detail"], dtype=object)


def check_species(names: pd.Index, known: pd.Index, *, modality: str, source: str) -> None:
    """Refuse genes of one species against those of another, which differ in case (ACTB, Actb).

    Parameters
    ----------
    names
        Genes of the modality.
    known
        Genes of the other side.
    modality, source
        The modality and what the other side is, for messages.

    Raises
    ------
    DataError
        More names agree after ignoring case than agree as they are.
    """
    exact = names.isin(known)
    folded = {name.casefold(): name for name in known}
    rest = names[~exact]
    other = [(name, folded[name.casefold()]) for name in rest if name.casefold() in folded]
    if len(other) <= int(exact.sum()) or (len(other) < _FEW and exact.any()):
        return
    pairs = "; ".join(f"{left!r} here, {right!r} there" for left, right in other[:3])
    raise DataError(
        f"{len(other)} of {len(names)} names agree with {source} only when case is ignored "
        f"({pairs}), {int(exact.sum())} as they are: mixed species, or names in another case",
        modality=modality,
        expected="genes of one species, in its own case",
        remedy=f"take {source} of the modality's species, map orthologues to one naming first, or "
        "bring one side to the case of the other",
    )


def not_linked(
    modality: str,
    source: str,
    reasons: pd.DataFrame,
    names: pd.Index,
    *,
    remedy: str = "compare the names of both sides, and rename one",
) -> DataError:
    """Return the error for a builder that links nothing, with the commonest reasons.

    Parameters
    ----------
    modality
        The modality of which no feature is linked.
    source
        What was to link them.
    reasons
        Columns ``reason`` and ``detail``, shape ``(n_features, 2)``.
    names
        The features.
    remedy
        What to do about it.
    """
    counted = reasons["reason"].value_counts()
    lines = []
    for reason, n in counted.items():
        first = int(np.flatnonzero(reasons["reason"].to_numpy() == reason)[0])
        detail = reasons["detail"].iloc[first]
        lines.append(
            f"{n} for the reason {reason!r} (such as {names[first]!r}"
            + (f": {detail})" if detail else ")")
        )
    return DataError(
        f"no feature is linked by {source}: " + "; ".join(lines),
        modality=modality,
        expected="one linked feature or more",
        remedy=remedy,
    )
