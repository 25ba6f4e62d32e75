"""Where features lie on the genome: from columns of ``var``, or from their names.

Coordinates are 0-based and half-open, as in BED: ``chr1:100-200`` covers 100 bases.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError
from mosaicvi.graph._modality import shown

_COLUMNS = {
    "chrom": ("chrom", "chromosome", "chr", "seqname", "seqnames"),
    "start": ("start", "chromStart", "chrom_start"),
    "end": ("end", "chromEnd", "chrom_end", "stop"),
}
_INTERVAL = "interval"  # how readers of 10x files keep both genes' and peaks' places
_PATTERN = r"^(?P<chrom>.+)[:_-](?P<start>\d+)[-_](?P<end>\d+)$"
_STRANDS = {"+": "+", "-": "-", "1": "+", "-1": "-"}
_FORMS = "such as 'chr1:100-200', 'chr1-100-200' or 'chr1_100_200'"


def peak_intervals(var: pd.DataFrame, modality: str) -> pd.DataFrame:
    """Place of every peak.

    Parameters
    ----------
    var
        The modality's ``var``: columns ``chrom``, ``start``, ``end``, or ``interval``, or feature
        names that are intervals.
    modality
        The modality, for messages.

    Returns
    -------
    Columns ``chrom`` (str), ``start``, ``end`` (int64), shape ``(n_peaks, 3)``.

    Raises
    ------
    DataError
        Some of the columns are missing, or coordinates are malformed.
    """
    table = columns_of(var, modality)
    if table is None:
        table = parse_names(pd.Series(var.index.astype(str)), modality, "var_names")
    lost = table.isna().any(axis=1).to_numpy()
    if lost.any():
        raise _malformed(var.index[lost], modality, "no coordinates", int(lost.sum()))
    return checked(table, var.index, modality)


def columns_of(var: pd.DataFrame, modality: str) -> pd.DataFrame | None:
    """Columns ``chrom``, ``start``, ``end`` of ``var``, under their usual names, or None.

    Raises
    ------
    DataError
        Some are there and others are not.
    """
    found = {
        key: next((name for name in names if name in var.columns), None)
        for key, names in _COLUMNS.items()
    }
    if all(found.values()):
        table = pd.DataFrame({key: var[name].to_numpy() for key, name in found.items()})
        return table.assign(chrom=_names(table["chrom"]))
    if any(found.values()):
        missing = [key for key, name in found.items() if name is None]
        raise DataError(
            f"var has {shown([x for x in found.values() if x])} but no column for {shown(missing)}",
            modality=modality,
            key=missing[0],
            expected="all of chrom, start and end, or none of them and names that are intervals",
            remedy=f"add the column to mdata.mod[{modality!r}].var",
        )
    if _INTERVAL not in var.columns:
        return None
    written = pd.Series(var[_INTERVAL].astype(object).to_numpy(), dtype=object)
    empty = written.isna() | written.astype(str).isin(["", "NA", "nan", "None"])
    table = pd.DataFrame(index=pd.RangeIndex(len(var)), columns=["chrom", "start", "end"])
    table = table.astype(object)
    parsed = parse_names(written[~empty].astype(str), modality, _INTERVAL)
    table.loc[~empty.to_numpy(), ["chrom", "start", "end"]] = parsed.to_numpy(dtype=object)
    return table


def _names(column: pd.Series) -> pd.Series:
    """Values as str; missing ones stay missing."""
    values = column.astype(object)
    return values.where(values.isna(), values.astype(str))


def parse_names(names: pd.Series, modality: str, key: str) -> pd.DataFrame:
    """Read intervals out of names.

    The last two numbers are start and end; all before them is the chromosome, so that those of
    scaffolds (``chrUn_GL000220v1_10_20``) may contain the separators.

    Raises
    ------
    DataError
        Shows names that are no intervals.
    """
    parts = names.str.extract(_PATTERN)
    bad = parts["chrom"].isna().to_numpy()
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(names)} names are no genomic intervals: {shown(names[bad])}",
            modality=modality,
            key=key,
            expected=f"names {_FORMS}, or columns chrom, start and end in var",
            remedy="add the columns, or leave these features out",
        )
    return parts.astype({"start": np.int64, "end": np.int64}).reset_index(drop=True)


def checked(table: pd.DataFrame, names: pd.Index, modality: str) -> pd.DataFrame:
    """Return coordinates as whole numbers, or refuse them.

    Raises
    ------
    DataError
        Numbers that are none, negative starts, intervals that end before they begin.
    """
    whole = {}
    for key in ("start", "end"):
        numbers = pd.to_numeric(table[key], errors="coerce").to_numpy(dtype=np.float64)
        bad = ~np.isfinite(numbers) | (numbers != np.floor(numbers))
        if bad.any():
            raise _malformed(names[bad], modality, f"a {key} that is no whole number", bad.sum())
        whole[key] = numbers.astype(np.int64)
    start, end = whole["start"], whole["end"]
    for bad, what in (
        (start < 0, "a negative start"),
        (end <= start, "an end not after the start"),
    ):
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            what = f"{what} (start {start[first]}, end {end[first]})"
            raise _malformed(names[bad], modality, what, bad.sum())
    chrom = table["chrom"].astype(str).to_numpy(dtype=object)
    return pd.DataFrame({"chrom": chrom, "start": start, "end": end})


def _malformed(names: pd.Index, modality: str, what: str, n: int) -> DataError:
    return DataError(
        f"{int(n)} features have {what}: {shown(names)}",
        modality=modality,
        key="start",
        expected="0-based half-open intervals, start < end, in bases",
        remedy="correct these coordinates, or leave the features out",
    )


def read_strands(column: pd.Series) -> pd.Series:
    """Strands as ``+`` and ``-`` (also read from 1 and -1), NaN where there is none."""
    return column.astype(str).str.removesuffix(".0").map(_STRANDS)


def strands(column: pd.Series, names: pd.Index, modality: str) -> np.ndarray:
    """Strands as ``+`` and ``-`` (also read from 1 and -1), shape ``(n,)``, object.

    Raises
    ------
    DataError
        Other values.
    """
    read = read_strands(column)
    bad = read.isna().to_numpy()
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{int(bad.sum())} features have no strand, the first {str(names[first])!r} with "
            f"{column.iloc[first]!r}",
            modality=modality,
            key="strand",
            expected="'+' or '-'",
            remedy="give the strand, or use a rule that needs none: GeneBody(upstream=0)",
        )
    return read.to_numpy(dtype=object)
