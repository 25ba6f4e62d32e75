"""The feature graph that a comparison gives to methods."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mosaicvi import graph
from mosaicvi._errors import DataError, RequestError
from mosaicvi._settings import logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

GRAPH_FILE = "graph.csv"
KINDS = ("auto", "names", "coordinates", "links", "table", "none")
ASSEMBLIES = {"snareseq_cortex": "mm10"}
"""Assembly of the peaks of the package's own data."""
ANNOTATION_DIR = "MOSAICVI_ANNOTATION_DIR"
LINKS = "links"
_PROTEIN, _PEAKS = "protein", "atac"
UNKNOWN_NAMES = (
    f" (neither is called {_PROTEIN!r} or {_PEAKS!r}: for genes, then antibodies, by other names "
    "say --graph names, for genes, then peaks, --graph coordinates)"
)


def annotation_of(assembly: str) -> pd.DataFrame | Path:
    """Coordinates of the genes of an assembly.

    ``genes_<assembly>.tsv.gz`` of the folder that ``MOSAICVI_ANNOTATION_DIR`` names (columns as in
    :func:`mosaicvi.graph.from_coordinates`), else GENCODE's file, fetched.
    """
    folder = os.environ.get(ANNOTATION_DIR)
    path = None if folder is None else Path(folder) / f"genes_{assembly}.tsv.gz"
    if path is not None and path.is_file():
        return pd.read_csv(path, sep="\t")
    return graph.fetch_annotation(assembly)


def _automatic(mdata: MuData, modalities: tuple[str, str], table: Path | None) -> str:
    if table is not None:
        return "table"
    if _PROTEIN in modalities:
        return "names"
    if _PEAKS in modalities:
        return "coordinates"
    return "links" if LINKS in mdata.uns else "none"


def build_graph(
    mdata: MuData,
    modalities: tuple[str, str],
    kind: str = "auto",
    *,
    data: str = "",
    assembly: str | None = None,
    table: Path | None = None,
) -> graph.FeatureGraph:
    """Build the graph between two modalities.

    Parameters
    ----------
    mdata
        The data, with their tables of features.
    modalities
        First and second modality.
    kind
        ``"names"`` of antibodies, ``"coordinates"`` of genes and peaks, ``"links"`` of the data's
        own ``uns["links"]``, a ``"table"`` of the user's, or ``"none"``. ``"auto"``: the table
        where there is one, names for ``protein``, coordinates for ``atac``, else the data's own
        links or none.
    data
        Name of the data, which says the assembly of the package's own.
    assembly
        Assembly of the peaks, for ``"coordinates"``.
    table
        Table of pairs of features, first modality then second, with columns ``weight`` and
        ``sign`` where they are not all 1; separated by tabs (``.tsv``, ``.tsv.gz``) or commas.

    Raises
    ------
    RequestError
        The kind is not known, or what it needs is not given.
    DataError
        The data have no links, or as the builders.
    """
    if kind not in KINDS:
        raise RequestError(f"{kind!r}", key="graph", expected=f"one of {list(KINDS)}")
    chosen = _automatic(mdata, modalities, table) if kind == "auto" else kind
    hint = UNKNOWN_NAMES if kind == "auto" and chosen == "none" else ""
    logger.info("graph between %s: %s%s", " and ".join(modalities), chosen, hint)
    if chosen == "none":
        return graph.FeatureGraph({name: mdata.mod[name].var_names for name in modalities})
    if chosen in ("names", "coordinates"):
        other = _PROTEIN if chosen == "names" else _PEAKS
        second = other if other in modalities else modalities[1]
        first = next(name for name in modalities if name != second)
        if chosen == "names":
            return graph.from_names(mdata, first, second)
        stated = assembly or ASSEMBLIES.get(data)
        if stated is None:
            raise RequestError(
                "the assembly of the peaks is not given", key="assembly", remedy="--assembly mm10"
            )
        return graph.from_coordinates(
            mdata, first, second, annotation=annotation_of(stated), assembly=stated
        )
    return _from_rows(mdata, modalities, chosen, table)


def _from_rows(
    mdata: MuData, modalities: tuple[str, str], chosen: str, table: Path | None
) -> graph.FeatureGraph:
    """Graph of a table of pairs."""
    if chosen == "links":
        if LINKS not in mdata.uns:
            raise DataError(
                "the data have no table of links",
                key=f"uns[{LINKS!r}]",
                expected="a DataFrame, as mosaicvi.datasets.simulate writes it",
                remedy="--graph table --graph-table FILE reads pairs of features from a file",
            )
        rows = mdata.uns[LINKS]
    elif table is None or not table.is_file():
        raise RequestError(f"{table}", key="graph_table", expected="a file with pairs of features")
    else:
        rows = pd.read_csv(table, sep="\t" if ".tsv" in table.suffixes else ",")
    weight, sign = (key if key in rows.columns else None for key in ("weight", "sign"))
    return graph.from_table(mdata, rows, *modalities, weight=weight, sign=sign)


def write_graph(found: graph.FeatureGraph, folder: Path) -> None:
    """Write the edges of a graph to a folder, for :func:`read_graph`."""
    found.to_pandas().to_csv(folder / GRAPH_FILE, index=False)


def read_graph(folder: Path, mdata: MuData, modalities: Sequence[str]) -> graph.FeatureGraph:
    """Read what :func:`write_graph` wrote, over all features of some modalities."""
    features = {name: mdata.mod[name].var_names for name in modalities}
    edges = pd.read_csv(folder / GRAPH_FILE, keep_default_na=False)
    if not len(edges):
        return graph.FeatureGraph(features)
    return graph.FeatureGraph.from_pandas(edges, features)
