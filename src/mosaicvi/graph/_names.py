"""Antibodies linked to the genes that code for what they bind, by name."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi._settings import logger
from mosaicvi._species import by_species
from mosaicvi.graph._antigens import Antigen, Reading, Species, key_of, read_antibody
from mosaicvi.graph._edges import Edges
from mosaicvi.graph._feature_graph import FeatureGraph
from mosaicvi.graph._match import is_ensembl, not_linked
from mosaicvi.graph._modality import (
    check_two,
    column_names,
    gene_names,
    modality_var,
    name_index,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mudata import MuData

_FEW = 10
_CLEAR = 0.85
_CLONE = "clone"


def from_names(
    mdata: MuData,
    genes: str = "rna",
    proteins: str = "protein",
    *,
    species: Species | None = None,
    gene_symbols: str | None = None,
    antigen_key: str | None = None,
    antigens: Mapping[str, str | Iterable[str]] | None = None,
) -> FeatureGraph:
    """Link antibodies to the genes of the antigens that their names say.

    The package's own table of common antigens and their aliases is used; a name that it does not
    have is taken as a gene symbol if the genes have it. Complexes have several genes (CD3: CD3D,
    CD3E, CD3G). Isotype controls are left without edges, and so is what is not known: nothing is
    guessed, and ``reason`` and ``detail`` say why.

    Parameters
    ----------
    mdata
        The MuData; it is only read.
    genes, proteins
        Its modalities.
    species
        ``"human"`` or ``"mouse"``; None: by the case of gene names (ACTB, Actb), which must be
        clear.
    gene_symbols
        Column of the genes' ``var`` with symbols; None: the feature names.
    antigen_key
        Column of the proteins' ``var`` with the antigens' names; None: the feature names. These may
        carry what labs put around them: ``ADT_CD102_A0104``, ``CD3_TotalSeqB``, ``cd3.1``,
        ``Hu.CD4_RPA.T4``.
    antigens
        Genes by antigen, to add to the table or overrule it: ``{"CD16": ["FCGR3A"]}``.

    Returns
    -------
    Graph of all genes and antibodies; edges have sign 1, weight 1 and as type the kind of antigen:
    ``"protein"``, ``"complex"``, ``"isoform"`` (counts of the gene do not tell the form, as with
    CD45RA) or ``"enzyme"`` (the gene makes the antigen but does not code for it, as FUT4 does for
    CD15); reweight these two at will. Metadata: ``antigen``, ``clone`` (column ``clone`` of the
    proteins' ``var``, else what the name ends in, a digit or a well-known clone), ``reason``,
    ``detail``.

    Raises
    ------
    DataError
        The species cannot be told or genes of both are there, or no antibody is linked.
    RequestError
        A modality, column or species is not known.

    Warns
    -----
    MosaicviWarning
        No antibody is read as one of ``antigens``.

    Notes
    -----
    The table is written from general knowledge of the antigens, with gene symbols of HGNC and MGI.

    Examples
    --------
    >>> graph = mosaicvi.graph.from_names(mdata, "rna", "protein")
    >>> graph.check(mdata)
    """
    gene_var = modality_var(mdata, genes, key="genes")
    protein_var = modality_var(mdata, proteins, key="proteins")
    check_two(genes, proteins, key="proteins")
    symbols = gene_names(gene_var, gene_symbols, genes)
    chosen = _species(symbols, species, genes)
    extra = _extra(antigens)
    names = _antibody_names(protein_var, antigen_key, proteins)
    by_symbol = _by_symbol(symbols)
    rows: list[tuple[int, int, str]] = []
    table, read = [], set()
    for number, name in enumerate(names):
        reading = read_antibody(name, chosen, extra)
        read.add(reading.antigen)
        reading = _as_symbol(reading, symbols, by_symbol)
        found, lost = _genes_of(reading, symbols)
        rows += [(gene, number, str(_kind(reading))) for gene in found]
        table.append(_metadata_row(reading, found, lost, chosen))
    metadata = pd.DataFrame(table, columns=["antigen", _CLONE, "reason", "detail"], dtype=object)
    if _CLONE in protein_var.columns:
        metadata[_CLONE] = column_names(protein_var[_CLONE])
    if not rows:
        raise not_linked(
            proteins,
            "the names of antibodies",
            metadata,
            names,
            remedy="name the column with antigens by antigen_key=, say what they bind by "
            "antigens={'CD16': ['FCGR3A']}, or measure their genes",
        )
    unread = [antigen.name for antigen in extra.values() if antigen not in read]
    if unread:
        warnings.warn(
            f"modality {proteins!r}, key 'antigens': no antibody is read as {shown(unread)}; the "
            f"antibodies are called {shown(names)}. Remedy: write these antigens as the antibodies "
            "are called, or leave them out.",
            MosaicviWarning,
            stacklevel=2,
        )
    unlinked = metadata["reason"].isin(["unknown antigen", "ambiguous antigen"]).to_numpy()
    if unlinked.any():
        logger.info("%d antibodies are not known: %s", unlinked.sum(), shown(names[unlinked]))
    gene, antibody, kind = (np.array(column) for column in zip(*rows, strict=True))
    linked = np.isin(np.arange(len(symbols)), gene)
    gene_rows = pd.DataFrame("", index=range(len(symbols)), columns=metadata.columns, dtype=object)
    gene_rows.loc[~linked, ["reason", "detail"]] = ["no antibody", "no antibody binds its product"]
    features = {genes: name_index(gene_var.index), proteins: name_index(protein_var.index)}
    edges = Edges.of(gene, antibody + len(symbols), 1, 1.0, kind.astype(object))
    joined = pd.concat([gene_rows, metadata], ignore_index=True)
    return FeatureGraph(features, edges, metadata=joined, duplicates="strongest")


def _antibody_names(var: pd.DataFrame, antigen_key: str | None, modality: str) -> pd.Index:
    if antigen_key is None:
        return name_index(var.index)
    if antigen_key not in var.columns:
        raise RequestError(
            "antigen_key names a column that var does not have",
            modality=modality,
            key=antigen_key,
            expected=f"one of {shown(var.columns) or 'none: var has no columns'}",
        )
    return column_names(var[antigen_key])


def _species(symbols: pd.Index, stated: str | None, modality: str) -> Species:
    """Species as stated, or by the case of gene names where that is clear."""
    if is_ensembl(symbols):
        raise DataError(
            f"the genes are named by identifiers: {shown(symbols[:3])}",
            modality=modality,
            key="gene_symbols",
            expected="gene symbols, such as 'CD4'",
            remedy="name the column of var with symbols by gene_symbols= (from_names); "
            "tl.build_atlas finds one that is called gene_symbols",
        )
    found = by_species(symbols)
    n_human, n_mouse = len(found["human"]), len(found["mouse"])
    share = max(n_human, n_mouse) / max(n_human + n_mouse, 1)
    clear = n_human + n_mouse >= _FEW and share >= _CLEAR
    looks: Species = "human" if n_human >= n_mouse else "mouse"
    counts = f"{n_human} gene names look human (ACTB), {n_mouse} look like mouse (Actb)"
    if stated is not None:
        if stated not in ("human", "mouse"):
            raise RequestError(f"found {stated!r}", key="species", expected="'human' or 'mouse'")
        if clear and looks != stated:
            raise DataError(
                f"species={stated!r}, but {counts}",
                modality=modality,
                key="species",
                expected=f"gene names of {stated}",
                remedy=f"pass species={looks!r}, or name the column with symbols by gene_symbols=",
            )
        return "human" if stated == "human" else "mouse"
    if not clear:
        mixed = n_human + n_mouse >= _FEW
        raise DataError(
            ("mixed species: " if mixed else "the species cannot be told: ") + counts,
            modality=modality,
            key="species",
            expected="gene symbols of one species",
            remedy="pass species='human' or 'mouse', or name the column with symbols by "
            "gene_symbols=",
        )
    return looks


def _extra(antigens: Mapping[str, str | Iterable[str]] | None) -> dict[str, Antigen]:
    """Make antigens of the user's own."""
    found = {}
    for name, genes in (antigens or {}).items():
        listed = [genes] if isinstance(genes, str) else [str(gene) for gene in genes]
        kind = "none" if not listed else "protein" if len(listed) == 1 else "complex"
        found[key_of(name)] = Antigen(str(name), tuple((gene,) for gene in listed), kind)
    return found


def _by_symbol(symbols: pd.Index) -> dict[str, str]:
    return {key_of(name): name for name in reversed(symbols) if name}


def _as_symbol(reading: Reading, symbols: pd.Index, by_symbol: Mapping[str, str]) -> Reading:
    """Read a name that the table does not have as a gene symbol, if the genes have it."""
    if reading.reason != "unknown antigen":
        return reading
    gene = by_symbol.get(key_of(reading.written))
    if gene is None or gene.casefold() != reading.written.casefold():
        return reading
    return Reading(Antigen(gene, ((gene,),), "protein"), reading.written, reading.clone)


def _genes_of(reading: Reading, symbols: pd.Index) -> tuple[list[int], list[str]]:
    """Numbers of an antigen's genes, and the genes that the modality lacks."""
    found: list[int] = []
    lost: list[str] = []
    for names in () if reading.antigen is None else reading.antigen.genes:
        here = np.flatnonzero(symbols.isin(names[:1]))
        if not len(here):
            here = np.flatnonzero(symbols.isin(names))
        found += here.tolist()
        lost += [] if len(here) else [names[0]]
    return found, lost


def _kind(reading: Reading) -> str:
    return "" if reading.antigen is None else reading.antigen.kind


def _metadata_row(
    reading: Reading, found: list[int], lost: list[str], species: str
) -> tuple[str, str, str, str]:
    """Antigen, clone, and why there is no edge."""
    if reading.antigen is None:
        return reading.written, reading.clone, reading.reason, reading.detail
    reason = detail = ""
    if not reading.antigen.genes:
        reason, detail = "no gene", f"no gene of {species} is known for it"
    elif not found:
        reason, detail = "gene not measured", f"its genes are {', '.join(lost)}"
    return reading.antigen.name, reading.clone, reason, detail
