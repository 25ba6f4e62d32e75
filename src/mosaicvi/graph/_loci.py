"""Where the genes of a modality lie: from their own ``var``, or looked up in an annotation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError
from mosaicvi._settings import logger
from mosaicvi.graph._annotation import read_annotation
from mosaicvi.graph._intervals import checked, columns_of, read_strands, strands
from mosaicvi.graph._match import check_species, diagnose, is_ensembl, without_version
from mosaicvi.graph._modality import column_names, gene_names, name_index, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

Annotation = str | Path | pd.DataFrame
CODING = "protein_coding"
_IDENTIFIERS = ("gene_id", "ensembl")


class Loci(NamedTuple):
    """Places of genes.

    Attributes
    ----------
    table
        Columns ``chrom``, ``start``, ``end``, ``strand`` and ``feature`` (number of the gene in its
        modality; a gene may have several loci), shape ``(n_loci, 5)``.
    sites
        The same four columns for all genes that the assembly can be checked by.
    chromosomes
        Names of chromosomes that have genes.
    reasons
        Columns ``reason`` and ``detail`` for each gene, empty for one that has a place, shape
        ``(n_genes, 2)``.
    assembly
        Assembly that the annotation names, or None.
    """

    table: pd.DataFrame
    sites: pd.DataFrame
    chromosomes: pd.Index
    reasons: pd.DataFrame
    assembly: str | None


def loci_of(
    var: pd.DataFrame,
    modality: str,
    annotation: Annotation | None,
    *,
    gene_symbols: str | None,
    needs_strand: bool,
) -> Loci:
    """Find the place of every gene.

    Raises
    ------
    DataError
        Neither ``var`` nor an annotation has coordinates, they are malformed, or no gene is in the
        annotation.
    """
    if annotation is None:
        return _from_var(var, modality, needs_strand=needs_strand)
    table = annotation if isinstance(annotation, pd.DataFrame) else read_annotation(annotation)
    assembly = table.attrs.get("assembly")
    table = _checked_annotation(table, modality, needs_strand=needs_strand)
    names = gene_names(var, gene_symbols, modality)
    return _looked_up(names, table, modality, assembly, needs_strand=needs_strand)


def _from_var(var: pd.DataFrame, modality: str, *, needs_strand: bool) -> Loci:
    table = columns_of(var, modality)
    if table is None:
        raise DataError(
            f"var has no coordinates of genes; its columns: {shown(var.columns) or 'none'}",
            modality=modality,
            key="annotation",
            expected="columns chrom, start, end and strand in var, or an annotation",
            remedy="pass annotation=mosaicvi.graph.fetch_annotation('hg38') (or 'hg19', 'mm10', "
            "'mm39'), or the path of a GTF",
        )
    known = ~table.isna().any(axis=1).to_numpy()
    names = name_index(var.index)
    placed = checked(table[known], names[known], modality)
    placed["strand"] = "."
    if "strand" in var.columns:
        column = pd.Series(var["strand"].astype(object).to_numpy())[known]
        placed["strand"] = strands(column, names[known], modality) if needs_strand else "."
    elif needs_strand:
        raise DataError(
            "var has coordinates but no strand, so which end of a gene is its promoter is unknown",
            modality=modality,
            key="strand",
            expected="a column strand of '+' and '-'",
            remedy="add the column, pass an annotation, or use a rule that needs no strand: "
            "rule=GeneBody(upstream=0)",
        )
    placed["feature"] = np.flatnonzero(known)
    reasons = _no_reasons(len(var))
    reasons.loc[~known, ["reason", "detail"]] = ["absent", "no coordinates in var"]
    return Loci(placed, placed, pd.Index(placed["chrom"].unique()), reasons, None)


def _no_reasons(n: int) -> pd.DataFrame:
    return pd.DataFrame("", index=pd.RangeIndex(n), columns=["reason", "detail"], dtype=object)


def _checked_annotation(table: pd.DataFrame, modality: str, *, needs_strand: bool) -> pd.DataFrame:
    needed = ["chrom", "start", "end", "gene", *(["strand"] if needs_strand else [])]
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise DataError(
            f"the annotation has no column {shown(missing)}, but {shown(table.columns, 9)}",
            modality=modality,
            key="annotation",
            expected="columns chrom, start, end (0-based, half-open), gene and strand",
            remedy="rename the columns, or read a GTF with mosaicvi.graph.read_annotation",
        )
    names = column_names(table["gene"])
    placed = checked(table[["chrom", "start", "end"]].reset_index(drop=True), names, modality)
    placed["gene"] = names
    placed["strand"] = "."
    if needs_strand:  # checked where a gene of the modality lies there
        placed["strand"] = table["strand"].astype(object).to_numpy()
    identifiers = next((name for name in _IDENTIFIERS if name in table.columns), None)
    placed["gene_id"] = "" if identifiers is None else column_names(table[identifiers])
    placed["biotype"] = column_names(table["biotype"]) if "biotype" in table.columns else ""
    return placed


def _looked_up(
    names: pd.Index,
    table: pd.DataFrame,
    modality: str,
    assembly: str | None,
    *,
    needs_strand: bool,
) -> Loci:
    """Loci of genes by symbol or, where the genes are Ensembl's, by identifier."""
    wanted, column = names, "gene"
    if is_ensembl(names) and (table["gene_id"] != "").any():
        wanted, column = without_version(names), "gene_id"
        table = table.assign(gene_id=without_version(pd.Index(table["gene_id"])))
    known = pd.Index(table.loc[table[column] != "", column].unique())
    check_species(wanted, known, modality=modality, source="the annotation")
    found = wanted.isin(known)
    if not found.any():
        why = diagnose(wanted[:1000], known)
        raise DataError(
            f"no gene is in the annotation: {shown(wanted[:3])} here, "
            f"{shown(known[:3]) or 'no genes'} there; "
            f"commonest reason: {why['reason'].value_counts().index[0]!r}",
            modality=modality,
            key="annotation",
            expected="the annotation's gene symbols, or Ensembl identifiers",
            remedy="name the column of var with the symbols by gene_symbols=, or use the "
            "annotation of this species",
        )
    # A gene without a name is none of those that the annotation does not name.
    rows = table[table[column].isin(wanted[found])]
    rows = _preferred(rows, column)
    # One row a locus and feature: names may repeat where gene_symbols is a column of var.
    numbers = pd.DataFrame({column: wanted.to_numpy(), "feature": np.arange(len(wanted))})
    loci = rows.merge(numbers, on=column, how="inner")
    if needs_strand:
        loci["strand"] = strands(loci["strand"], name_index(loci["gene"]), modality)
    reasons = _no_reasons(len(names))
    lost = np.flatnonzero(~found)
    why = diagnose(wanted[lost], known)
    reasons.loc[lost, "reason"] = why["reason"].to_numpy()
    reasons.loc[lost, "detail"] = [
        f"not in the annotation: {detail}" if detail else "not in the annotation"
        for detail in why["detail"]
    ]
    coding = (table["biotype"] == CODING).to_numpy()
    sites = table[coding] if coding.any() else table
    sites = sites.assign(strand=read_strands(sites["strand"]).fillna("."))
    keep = ["chrom", "start", "end", "strand"]
    chromosomes = pd.Index(table["chrom"].unique())
    return Loci(loci[[*keep, "feature"]], sites[keep], chromosomes, reasons, assembly)


def _preferred(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Keep protein-coding loci of a name that has such and others; all loci of the rest."""
    coding = rows["biotype"] == CODING
    has_coding = coding.groupby(rows[column]).transform("any")
    kept: pd.DataFrame = rows[coding | ~has_coding]
    several = kept[column].duplicated(keep=False)
    if several.any():
        logger.info(
            "%d genes have several loci in the annotation and are linked by each: %s",
            kept.loc[several, column].nunique(),
            shown(pd.unique(kept.loc[several, column])),
        )
    return kept


def plain_chromosome(name: str) -> str:
    """A chromosome's name without ``chr``, the mitochondrial one as ``M``."""
    bare = name.removeprefix("chr").removeprefix("Chr")
    return "M" if bare == "MT" else bare


def harmonised(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Names of chromosomes to other names of the same, by ``chr`` and ``M``/``MT`` alone.

    Returns
    -------
    From each of ``names`` that has exactly one counterpart among ``known``.
    """
    counterparts: dict[str, list[str]] = {}
    for name in dict.fromkeys(known):
        counterparts.setdefault(plain_chromosome(name), []).append(name)
    pairs = {name: counterparts.get(plain_chromosome(name), []) for name in dict.fromkeys(names)}
    return {name: found[0] for name, found in pairs.items() if len(found) == 1}
