"""The feature graph of an atlas: whether assays need one, and how it is built."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi._settings import logger
from mosaicvi.graph import FeatureGraph, from_coordinates, from_names
from mosaicvi.graph._match import is_ensembl
from mosaicvi.model._ties import ENOUGH_PAIRS

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from mosaicvi.graph._loci import Annotation
    from mosaicvi.graph._rules import Rule

SYMBOLS = ("gene_symbols", "gene_symbol", "gene_name", "gene_names", "feature_name", "symbol")
"""Columns in which readers and archives keep symbols, where features are named by identifiers."""
RNA, PROTEIN, ATAC = "rna", "protein", "atac"


@dataclass(frozen=True)
class AtlasGraph:
    """How the graph of an atlas is built, where it needs one.

    Parameters
    ----------
    annotation, rule
        As in :func:`mosaicvi.graph.from_coordinates`.
    gene_symbols
        As there and in :func:`mosaicvi.graph.from_names`; None: found for the latter.
    """

    annotation: Annotation | None = None
    rule: Rule | None = None
    gene_symbols: str | None = None

    def check_unused(self) -> None:
        """Refuse settings that a graph which is given leaves without a use.

        Raises
        ------
        RequestError
            If there are such settings.
        """
        settings = {
            "annotation": self.annotation,
            "rule": self.rule,
            "gene_symbols": self.gene_symbols,
        }
        given = [key for key, value in settings.items() if value is not None]
        if given:
            raise RequestError(
                "a graph is given, so that none is built",
                key=given[0],
                expected=f"either graph= or {', '.join(given)}",
                remedy="leave one of them out, or give what it says to the builder of the graph, "
                "such as mosaicvi.graph.from_coordinates",
            )

    def needed(self, mdata: MuData) -> FeatureGraph | None:
        """Graph where few shared cells tie assays; None elsewhere, or if cells are all there is.

        Raises
        ------
        DataError
            If nothing ties two assays, or as the builders.
        RequestError
            If settings are for an assay that is not there, or as the builders.
        """
        if self.rule is not None and not {RNA, ATAC} <= set(mdata.mod):
            raise RequestError(
                f"it is for genes and peaks; the assays are {list(mdata.mod)}",
                key="rule",
                expected=f"assays called {RNA!r} and {ATAC!r}",
                remedy="leave rule out, or give the assays these names",
            )
        if len(tied(mdata, ENOUGH_PAIRS)) == 1:
            logger.info("shared cells tie all assays; no graph is needed.")
            return None
        try:
            return self.built(mdata)
        except DataError as error:
            if len(tied(mdata)) > 1:
                raise
            warnings.warn(
                f"only few cells tie the assays, and no graph could be built to help them: {error} "
                "Alignment rests on these cells alone; graph= would add what features say.",
                MosaicviWarning,
                stacklevel=3,
            )
            return None

    def built(self, mdata: MuData) -> FeatureGraph:
        """Graph of all pairs of modalities that a builder knows.

        A pair that shared cells tie may go without: nothing is asked of the user for it.

        Raises
        ------
        DataError, RequestError
            As for :meth:`needed`.
        """
        groups = tied(mdata, ENOUGH_PAIRS)
        asked = self.annotation is not None or self.rule is not None
        found, failed = [], None
        for other, build, may_fail in (
            (PROTEIN, self._names, True),
            (ATAC, self._coordinates, not asked),
        ):
            if not {RNA, other} <= set(mdata.mod):
                continue
            try:
                found.append(build(mdata))
            except DataError as error:
                if not may_fail or not any({RNA, other} <= group for group in groups):
                    raise
                logger.info("graph: no links of %r, which cells tie to %r: %s", other, RNA, error)
                failed = error
        if failed is not None and not found:
            raise failed
        linked = set().union(*(part.modalities for part in found))
        reached = set().union(*(group for group in groups if group & linked))
        lacking = [name for name in mdata.mod if name not in reached]
        if lacking:
            raise DataError(
                "nothing ties it to the other assays: they share no cell, and no graph can be "
                "built",
                modality=lacking[0],
                remedy="give graph=, such as mosaicvi.graph.from_table(...); or, if they are that, "
                "call the assays 'rna', 'protein' and 'atac', for which graphs are built",
            )
        others = {name: part.var_names for name, part in mdata.mod.items() if name not in linked}
        return found[0].union(*found[1:], FeatureGraph(others))

    def _coordinates(self, mdata: MuData) -> FeatureGraph:
        """Graph of peaks and the genes that they lie on."""
        logger.info("graph: genes linked to peaks by coordinates (graph.from_coordinates).")
        return from_coordinates(
            mdata,
            RNA,
            ATAC,
            annotation=self.annotation,
            rule=self.rule,
            gene_symbols=self.gene_symbols,
            chromosomes="auto",
        )

    def _names(self, mdata: MuData) -> FeatureGraph:
        """Graph of antibodies and the genes that their names name."""
        logger.info("graph: antibodies linked to genes by name (graph.from_names).")
        symbols = self.gene_symbols
        return from_names(
            mdata,
            RNA,
            PROTEIN,
            antigen_key="antigen" if "antigen" in mdata.mod[PROTEIN].var.columns else None,
            gene_symbols=_symbols(mdata.mod[RNA]) if symbols is None else symbols,
        )


def tied(mdata: MuData, least: float = 0.0) -> list[set[str]]:
    """Groups of modalities that shared cells tie, directly or through others.

    Parameters
    ----------
    mdata
        The MuData.
    least
        Share of the smaller modality's cells that must be shared for two modalities to be tied;
        zero: one cell is enough.
    """
    group = {name: {name} for name in mdata.mod}
    present = {name: np.asarray(mdata.obsmap[name]).ravel() > 0 for name in mdata.mod}
    for first, second in combinations(present, 2):
        shared = int((present[first] & present[second]).sum())
        if shared and shared >= least * min(present[first].sum(), present[second].sum()):
            joined = group[first] | group[second]
            group.update(dict.fromkeys(joined, joined))
    return list({id(each): each for each in group.values()}.values())


def _symbols(rna: AnnData) -> str | None:
    """Column with gene symbols, where genes are named by Ensembl identifiers and one is there."""
    if not is_ensembl(rna.var_names):
        return None
    return next((key for key in SYMBOLS if key in rna.var.columns), None)
