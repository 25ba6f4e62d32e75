"""Features linked by a table: contacts, eQTL, targets of transcription factors, and the like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError, RequestError
from mosaicvi._settings import logger
from mosaicvi.graph._edges import Duplicates, Edges
from mosaicvi.graph._feature_graph import FeatureGraph
from mosaicvi.graph._match import check_species, diagnose, not_linked
from mosaicvi.graph._modality import modality_var, name_index, names_by_modality, shown

if TYPE_CHECKING:
    from mudata import MuData

Rescale = Literal["max", "rank"]
UnknownSign = Literal["error", "drop", "positive"]
SIGNS = {"+": 1, "-": -1}


def from_table(
    mdata: MuData,
    table: pd.DataFrame,
    source_modality: str,
    target_modality: str,
    *,
    source: str | None = None,
    target: str | None = None,
    weight: str | None = None,
    sign: str | None = None,
    type: str = "table",
    rescale: Rescale | None = None,
    unknown_sign: UnknownSign = "error",
    duplicates: Duplicates = "error",
    gene_symbols: str | None = None,
) -> FeatureGraph:
    """Link features by a table with one row a pair.

    Rows that name a feature which the MuData lacks are left out; how many is logged. A table of
    orthologues links genes of two species, each in a modality of its own.

    Parameters
    ----------
    mdata
        The MuData; it is only read.
    table
        The table.
    source_modality, target_modality
        Modalities of the two columns; they may be the same one.
    source, target
        Columns with the features; None: the first and the second column.
    weight
        Column with weights in [0, 1]; None: all 1.
    sign
        Column with signs 1 and -1, or ``+`` and ``-``; None: all 1.
    type
        Type of the edges.
    rescale
        How scores that are no weights become some: ``"max"`` divides by the largest score,
        ``"rank"`` takes the rank among the scores, over their number (ties share their mean
        rank; infinite scores have one). Over the whole table, before rows are left out. None: they
        are weights.
    unknown_sign
        What to do with rows whose sign is 0 or missing: ``"error"`` (default), ``"drop"`` them, or
        count them as ``"positive"``.
    duplicates
        What to do with a pair that occurs twice: ``"error"`` (default), or keep the
        ``"strongest"``. Conflicting signs are an error always.
    gene_symbols
        Column of ``var``, of both modalities where they have it, with the names that the table
        uses; None: the feature names.

    Returns
    -------
    Graph of all features of both modalities; ``reason`` and ``detail`` say why one has no edge.

    Raises
    ------
    DataError
        A column has missing names or values that are no numbers; weights are outside [0, 1] or
        scores negative or infinite; signs are unknown; a pair occurs twice; a feature is linked to
        itself; genes agree only when case is ignored (mixed species); or no feature is linked.
    RequestError
        A modality, column or option is not known.

    Examples
    --------
    >>> table = pd.DataFrame({"source": ["CD3E", "CD19"], "target": ["CD3", "CD19"]})
    >>> mosaicvi.graph.from_table(mdata, table, "rna", "protein")
    """
    _check_options(rescale, unknown_sign)
    if not isinstance(table, pd.DataFrame):
        raise DataError(f"found {table.__class__.__name__}", key="table", expected="a DataFrame")
    columns = _columns(table, source=source, target=target, weight=weight, sign=sign)
    modalities = tuple(dict.fromkeys((source_modality, target_modality)))
    vars_ = {m: modality_var(mdata, m, key="source_modality") for m in modalities}
    names = names_by_modality(vars_, gene_symbols)
    for modality, own in names.items():
        _check_names(own, modality, gene_symbols)
    weights = _weights(table, columns.get("weight"), rescale)
    signs, keep = _signs(table, columns.get("sign"), unknown_sign)
    keep &= weights > 0
    ends, lost = [], ~keep
    for end, modality in (("source", source_modality), ("target", target_modality)):
        given = name_index(table[columns[end]])
        check_species(names[modality], given.unique(), modality=modality, source="the table")
        ends.append(_places(names[modality], given))
        lost |= ends[-1] < 0
    if (lost & keep).any():
        logger.info(
            "%d of %d rows name features that the MuData lacks", (lost & keep).sum(), len(table)
        )
    offset = 0 if len(modalities) == 1 else len(names[source_modality])
    edges = Edges.of(
        ends[0][~lost], ends[1][~lost] + offset, signs[~lost], weights[~lost], str(type)
    )
    linked = np.unique(np.concatenate([edges.source, edges.target]))
    metadata = _reasons(table, columns, names, (source_modality, target_modality), linked)
    if lost.all():
        _refuse(metadata, names, (source_modality, target_modality), table, columns)
    features = {m: name_index(var.index) for m, var in vars_.items()}
    return FeatureGraph(features, edges, metadata=metadata, duplicates=duplicates)


def _check_options(rescale: object, unknown_sign: object) -> None:
    if rescale not in (None, "max", "rank"):
        raise RequestError(f"found {rescale!r}", key="rescale", expected="None, 'max' or 'rank'")
    if unknown_sign not in ("error", "drop", "positive"):
        raise RequestError(
            f"found {unknown_sign!r}",
            key="unknown_sign",
            expected="'error', 'drop' or 'positive'",
        )


def _columns(table: pd.DataFrame, **named: str | None) -> dict[str, str]:
    """Columns by role; source and target default to the first two."""
    if len(table.columns) < 2:
        raise DataError(
            f"the table has columns {shown(table.columns) or 'none'}",
            key="table",
            expected="two columns with features",
        )
    defaults = {"source": table.columns[0], "target": table.columns[1]}
    chosen = {role: defaults.get(role) if name is None else name for role, name in named.items()}
    found = {role: name for role, name in chosen.items() if name is not None}
    missing = [name for name in found.values() if name not in table.columns]
    if missing:
        raise RequestError(
            f"the table has no column {shown(missing)}",
            key="table",
            expected=f"some of {shown(table.columns, 9)}",
        )
    for role in ("source", "target"):
        lost = table[found[role]].isna()
        if lost.any():
            raise DataError(
                f"{int(lost.sum())} of {len(table)} names are missing",
                key=str(found[role]),
                expected="a feature in every row",
                remedy=f"table.dropna(subset=[{found[role]!r}])",
            )
    return found


def _check_names(names: pd.Index, modality: str, gene_symbols: str | None) -> None:
    repeated = names[names.duplicated() & (names != "")].unique()
    if len(repeated):
        raise DataError(
            f"{len(repeated)} names stand for several features: {shown(repeated)}",
            modality=modality,
            key=gene_symbols,
            expected="each name once",
            remedy="use a column whose values are unique, or the feature names",
        )


def _places(names: pd.Index, given: pd.Index) -> np.ndarray:
    """Place of each given name among ``names``; -1 for one that is not there, or is empty."""
    places = pd.Series(np.arange(len(names)), index=names)[names != ""]
    return places.reindex(given, fill_value=-1).to_numpy()


def _weights(table: pd.DataFrame, column: str | None, rescale: Rescale | None) -> np.ndarray:
    if column is None:
        return np.ones(len(table))
    scores = pd.to_numeric(table[column], errors="coerce")
    if scores.isna().any():
        raise DataError(
            f"{int(scores.isna().sum())} of {len(table)} weights are missing or no numbers",
            key=str(column),
            expected="numbers",
            remedy=f"table.dropna(subset=[{column!r}]), or leave weight= out",
        )
    values = scores.to_numpy(dtype=np.float64)
    negative = int((values < 0).sum())
    if negative:
        raise DataError(
            f"{negative} of {len(values)} weights are negative, the least {values.min():g}",
            key=str(column),
            expected="weights in [0, 1]; direction belongs into the sign",
            remedy=f"table['sign'] = numpy.sign(table[{column!r}]), table[{column!r}] = "
            f"table[{column!r}].abs(), and pass sign='sign'",
        )
    if rescale == "rank":
        return (scores.rank(method="average") / len(scores)).to_numpy()
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise DataError(
            f"{infinite} of {len(values)} weights are infinite",
            key=str(column),
            expected="finite numbers",
            remedy="rescale='rank' takes ranks; or put a large finite score in their place",
        )
    if rescale == "max":
        return values / max(float(values.max(initial=0.0)), np.finfo(np.float64).tiny)
    over = int((values > 1).sum())
    if over:
        raise DataError(
            f"{over} of {len(values)} weights are above 1, the largest {values.max():g}",
            key=str(column),
            expected="weights in [0, 1]",
            remedy="these look like scores: rescale='max' divides by the largest, rescale='rank' "
            "takes ranks",
        )
    return values


def _signs(
    table: pd.DataFrame, column: str | None, unknown_sign: UnknownSign
) -> tuple[np.ndarray, np.ndarray]:
    """Sign of each row, and whether it is kept."""
    keep = np.ones(len(table), dtype=bool)
    if column is None:
        return np.ones(len(table)), keep
    given = table[column]
    if given.dtype.kind not in "biuf":
        given = pd.Series([SIGNS.get(str(each), each) for each in given], dtype=object)
    read = pd.to_numeric(given, errors="coerce").to_numpy(dtype=np.float64)
    words = np.isnan(read) & given.notna().to_numpy()
    other = words | ~(np.isnan(read) | np.isin(read, (-1.0, 0.0, 1.0)))
    if other.any():
        raise DataError(
            f"{int(other.sum())} of {len(read)} signs are neither 1 nor -1, the first "
            f"{given[other].tolist()[0]!r}",
            key=str(column),
            expected="1 or -1 (or '+' and '-'), 0 or missing where unknown",
            remedy=f"table[{column!r}] = table[{column!r}].map({{...}}), each word to 1, -1 or 0"
            if words.any()
            else f"table[{column!r}] = numpy.sign(table[{column!r}]), with the size as weight=",
        )
    read = np.nan_to_num(read, nan=0.0)
    unknown = read == 0
    if unknown.any() and unknown_sign == "error":
        raise DataError(
            f"{int(unknown.sum())} of {len(read)} signs are unknown (0 or missing)",
            key=str(column),
            expected="1 or -1 in every row",
            remedy="unknown_sign='drop' leaves these rows out, unknown_sign='positive' counts them "
            "as 1",
        )
    if unknown_sign == "drop":
        keep = ~unknown
    return np.where(unknown, 1.0, read), keep


def _reasons(
    table: pd.DataFrame,
    columns: dict[str, str],
    names: dict[str, pd.Index],
    modalities: tuple[str, str],
    linked: np.ndarray,
) -> pd.DataFrame:
    """``reason`` and ``detail`` of every feature that has no edge, in the order of nodes."""
    tables = []
    for modality, own in names.items():
        sides = [
            name_index(table[columns[end]].unique())
            for end, of in zip(("source", "target"), modalities, strict=True)
            if of == modality
        ]
        known = sides[0].append(sides[1:]).unique() if len(sides) > 1 else sides[0]
        reasons = pd.DataFrame(
            "", index=range(len(own)), columns=["reason", "detail"], dtype=object
        )
        there = own.isin(known)
        why = diagnose(own[~there], known)
        reasons.loc[~there, ["reason", "detail"]] = why.to_numpy()
        reasons.loc[there, ["reason", "detail"]] = [
            "partner",
            "the table links it only to features that the MuData lacks, or without sign or weight",
        ]
        tables.append(reasons)
    joined = pd.concat(tables, ignore_index=True)
    joined.loc[linked, ["reason", "detail"]] = ""
    return joined


def _refuse(
    metadata: pd.DataFrame,
    names: dict[str, pd.Index],
    modalities: tuple[str, str],
    table: pd.DataFrame,
    columns: dict[str, str],
) -> None:
    """Raise for the modality of which the table names no feature, else for the target's."""
    unnamed = [
        modality
        for end, modality in zip(("source", "target"), modalities, strict=True)
        if not names[modality].isin(name_index(table[columns[end]])).any()
    ]
    modality = unnamed[0] if unnamed else modalities[1]
    start = 0
    for name, own in names.items():
        if name == modality:
            raise not_linked(name, "the table", metadata.iloc[start : start + len(own)], own)
        start += len(own)
