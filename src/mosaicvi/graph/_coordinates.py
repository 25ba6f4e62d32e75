"""Genes and peaks, linked by where they lie on the genome."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi.graph._assembly import OnMismatch, check_assembly
from mosaicvi.graph._edges import Edges
from mosaicvi.graph._feature_graph import FeatureGraph
from mosaicvi.graph._intervals import peak_intervals
from mosaicvi.graph._loci import Annotation, Loci, harmonised, loci_of
from mosaicvi.graph._match import not_linked
from mosaicvi.graph._modality import check_two, modality_var, name_index, shown
from mosaicvi.graph._rules import GeneBody, Rule

if TYPE_CHECKING:
    from mudata import MuData

Chromosomes = Literal["exact", "auto"] | Mapping[str, str]

_UNPLACED_SHARE = 0.1
_SITES_SHARE = 0.05
"""Share of genes of one base from where on their places are transcription starts, not genes."""


def from_coordinates(
    mdata: MuData,
    genes: str = "rna",
    peaks: str = "atac",
    *,
    annotation: Annotation | None = None,
    rule: Rule | None = None,
    gene_symbols: str | None = None,
    chromosomes: Chromosomes = "exact",
    assembly: str | None = None,
    on_mismatch: OnMismatch = "warn",
) -> FeatureGraph:
    """Link genes to the peaks that lie on or near them.

    Parameters
    ----------
    mdata
        The MuData; it is only read.
    genes, peaks
        Its modalities.
    annotation
        Where the genes lie: a GTF or GFF3 file, such as :func:`fetch_annotation` returns; or a
        table with columns ``chrom``, ``start``, ``end`` (0-based, half-open), ``gene`` and
        ``strand`` (of genes that the MuData has), and ``gene_id`` and ``biotype`` if known. None:
        the columns ``chrom``, ``start``, ``end`` and ``strand`` of the genes' ``var``, or
        ``interval`` (which Cell Ranger ARC fills with transcription starts) and ``strand``. Genes
        are looked up by Ensembl identifier if most are named so, else by symbol; of several loci of
        a symbol the protein-coding ones count, else all.
    rule
        Which peaks belong to a gene: :class:`GeneBody` (default: body and 2,000 bases of promoter)
        or :class:`Window`.
    gene_symbols
        Column of the genes' ``var`` to look up in the annotation; None: the feature names.
    chromosomes
        How chromosomes of peaks and genes agree: by ``"exact"`` name (default); ``"auto"``, which
        adds or removes ``chr`` and takes ``M`` and ``MT`` as one; or names of the peaks'
        chromosomes mapped to the genes'.
    assembly
        Assembly of the peaks (``"hg19"``, ``"hg38"``, ``"mm9"``, ``"mm10"``, ``"mm39"``), to be
        checked against the lengths of its chromosomes and against the annotation; None: not stated.
    on_mismatch
        What to do where no more peaks lie near transcription starts than by chance, which is what
        another assembly looks like: ``"warn"`` (default), ``"error"`` or ``"ignore"``.

    Returns
    -------
    Graph of all genes and peaks; edges have sign 1, weight and type from ``rule``. Metadata:
    ``chrom``, ``start``, ``end``, ``strand``, and ``reason`` and ``detail`` of what is not linked.
    Peaks are read from columns ``chrom``, ``start`` and ``end``, or ``interval``, of their ``var``,
    else from their names (``chr1:100-200``, ``chr1-100-200``, ``chr1_100_200``). Memory is
    O(edges + features).

    Raises
    ------
    DataError
        Coordinates are missing or malformed; the annotation is truncated or of another species; no
        chromosome is shared (the message offers the mapping); peaks lie beyond their chromosome's
        end in ``assembly``; or nothing is linked.
    RequestError
        A modality, column or option is not known.

    Warns
    -----
    MosaicviWarning
        Peaks look like those of another assembly, more than a tenth lie on chromosomes that the
        annotation lacks, or the places of genes in ``var`` are those of transcription starts where
        ``rule`` asks for bodies.

    Notes
    -----
    The idea of guidance by genomic overlap is GLUE's :cite:p:`cao2022`. Nearness to transcription
    starts is compared with the same peaks moved by 31 and 58 kilobases.

    Examples
    --------
    >>> annotation = mosaicvi.graph.fetch_annotation("mm10")
    >>> mosaicvi.graph.from_coordinates(mdata, annotation=annotation, assembly="mm10")
    """
    chosen = GeneBody() if rule is None else rule
    if isinstance(chosen, type) or not isinstance(chosen, Rule):
        raise RequestError(f"found {rule!r}", key="rule", expected="GeneBody(...) or Window(...)")
    gene_var = modality_var(mdata, genes, key="genes")
    peak_var = modality_var(mdata, peaks, key="peaks")
    check_two(genes, peaks, key="peaks")
    loci = loci_of(
        gene_var,
        genes,
        annotation,
        gene_symbols=gene_symbols,
        needs_strand=chosen.needs_strand,
    )
    if annotation is None and isinstance(chosen, GeneBody):
        _warn_of_sites(loci.table, genes)
    places = peak_intervals(peak_var, peaks)
    named = _same_names(places, loci, chromosomes, genes=genes, peaks=peaks)
    here = named["chrom"].isin(loci.chromosomes).to_numpy()
    check_assembly(
        named[here],
        loci.sites,
        modality=peaks,
        stated=assembly,
        of_annotation=loci.assembly,
        on_mismatch=on_mismatch,
    )
    gene, peak, weight, kind = _pairs(loci.table, named, chosen)
    features = {genes: name_index(gene_var.index), peaks: name_index(peak_var.index)}
    metadata = pd.concat(
        [
            _gene_metadata(loci, gene, len(gene_var)),
            _peak_metadata(places, peak, here),
        ],
        ignore_index=True,
    )
    if not len(gene):
        raise not_linked(
            peaks,
            "coordinates",
            metadata.iloc[len(gene_var) :][["reason", "detail"]],
            features[peaks],
            remedy="widen the rule, or compare the coordinates of genes and peaks",
        )
    edges = Edges.of(gene, peak + len(gene_var), 1, weight, kind)
    return FeatureGraph(features, edges, metadata=metadata, duplicates="strongest")


def _warn_of_sites(table: pd.DataFrame, modality: str) -> None:
    """Warn of places that are transcription starts, such as those of Cell Ranger ARC."""
    single = (table["end"] - table["start"]).eq(1)
    if not single.mean() > _SITES_SHARE:  # no genes: NaN
        return
    error = DataError(
        f"{int(single.sum())} of {len(table)} genes are one base long in var: these places are "
        "transcription starts (as Cell Ranger ARC writes them into 'interval'), and peaks on the "
        "bodies of genes are not linked",
        modality=modality,
        key="annotation",
        remedy="pass annotation=mosaicvi.graph.fetch_annotation('hg38') (or 'hg19', 'mm10', "
        "'mm39'), or the path of a GTF",
    )
    warnings.warn(str(error), MosaicviWarning, stacklevel=3)


def _same_names(
    places: pd.DataFrame, loci: Loci, chromosomes: Chromosomes, *, genes: str, peaks: str
) -> pd.DataFrame:
    """Peaks on the genes' names of chromosomes; warn of those that have none there."""
    theirs, known = pd.unique(places["chrom"]), loci.chromosomes
    offered = harmonised(theirs, known)
    if isinstance(chromosomes, str):
        if chromosomes not in ("exact", "auto"):
            raise RequestError(
                f"found {chromosomes!r}",
                key="chromosomes",
                expected="'exact', 'auto', or a mapping of the peaks' names to the genes'",
            )
        mapping: Mapping[str, str] = offered if chromosomes == "auto" else {}
    else:
        mapping = chromosomes
    named = places.assign(chrom=places["chrom"].map(lambda name: mapping.get(name, name)))
    lost = ~named["chrom"].isin(known).to_numpy()
    if not lost.any():
        return named
    found = (
        f"{int(lost.sum())} of {len(places)} peaks lie on chromosomes that the genes of modality "
        f"{genes!r} do not know: {shown(pd.unique(named['chrom'][lost]))} against {shown(known)}"
    )
    without = set(places["chrom"][lost])
    usable = {name: other for name, other in offered.items() if name in without and name != other}
    remedy = (
        f"the names differ only in style: pass chromosomes='auto', that is {_short(usable)}"
        if usable
        else "map them by chromosomes=, take an annotation that has them, or leave the peaks out"
    )
    error = DataError(found, modality=peaks, key="chromosomes", remedy=remedy)
    if lost.all():
        raise error
    if lost.mean() > _UNPLACED_SHARE:
        warnings.warn(str(error), MosaicviWarning, stacklevel=3)
    return named


def _short(mapping: Mapping[str, str]) -> str:
    items = [f"{name!r}: {other!r}" for name, other in list(mapping.items())[:3]]
    return "{" + ", ".join([*items, "..."] if len(mapping) > 3 else items) + "}"


def _pairs(
    loci: pd.DataFrame, places: pd.DataFrame, rule: Rule
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gene, peak, weight and type of every pair that the rule links, each ``(n_pairs,)``."""
    import bioframe

    low, high = rule.reach(loci)
    regions = pd.DataFrame({"chrom": loci["chrom"].to_numpy(), "start": low, "end": high})
    shared = set(regions["chrom"]) & set(places["chrom"])
    if not shared:
        empty = np.empty(0, dtype=np.int64)
        return empty, empty, np.empty(0), np.empty(0, dtype=object)
    found = bioframe.overlap(
        regions, places, how="inner", return_input=False, return_index=True, ensure_int=False
    )
    locus = found["index"].to_numpy(dtype=np.int64)
    peak = found["index_"].to_numpy(dtype=np.int64)
    start, end = places["start"].to_numpy()[peak], places["end"].to_numpy()[peak]
    weight, kind = rule.weigh(loci.take(locus), start, end)
    return loci["feature"].to_numpy()[locus], peak, weight, kind


def _gene_metadata(loci: Loci, linked: np.ndarray, n: int) -> pd.DataFrame:
    first = loci.table.drop_duplicates("feature").set_index("feature").reindex(np.arange(n))
    table = pd.concat([first[["chrom", "start", "end", "strand"]], loci.reasons], axis=1)
    return _with_far(table, linked, "no peak within reach")


def _peak_metadata(places: pd.DataFrame, linked: np.ndarray, here: np.ndarray) -> pd.DataFrame:
    table = places.assign(strand=".", reason="", detail="")
    table.loc[~here, "reason"] = "chromosome"
    table.loc[~here, "detail"] = [
        f"the genes do not know chromosome {name!r}" for name in places["chrom"][~here]
    ]
    return _with_far(table, linked, "no gene within reach")


def _with_far(table: pd.DataFrame, linked: np.ndarray, detail: str) -> pd.DataFrame:
    far = np.ones(len(table), dtype=bool)
    far[linked] = False
    far &= (table["reason"] == "").to_numpy()
    table.loc[far, ["reason", "detail"]] = ["far", detail]
    return table.astype({"start": "Int64", "end": "Int64"})
