"""Genes linked to the sets they belong to."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError, RequestError
from mosaicvi.graph._edges import Edges
from mosaicvi.graph._feature_graph import FeatureGraph
from mosaicvi.graph._match import check_species, diagnose, not_linked
from mosaicvi.graph._modality import modality_var, name_index, names_by_modality, shown
from mosaicvi.graph._parts import HUB

if TYPE_CHECKING:
    from mudata import MuData

GeneSets = str | Path | Mapping[str, Iterable[str]] | pd.DataFrame

TYPE = "gene set"


def from_gene_sets(
    mdata: MuData,
    gene_sets: GeneSets,
    modalities: str | Sequence[str] = "rna",
    *,
    set_modality: str = "gene_set",
    min_genes: int = 1,
    gene_symbols: str | None = None,
) -> FeatureGraph:
    """Link each gene to the sets that it is a member of.

    Sets become features of a modality of their own, without data: a set of n genes costs n edges,
    where linking its genes to each other would cost n (n - 1) / 2. Given several modalities (genes
    and, say, proteins named by gene), the sets join their features.

    :class:`~mosaicvi.MosaicVI` reads edges between features that have data, and warns of others;
    sets tie no modalities there. :class:`~mosaicvi.FactorVI` takes sets as priors of named factors,
    by ``gene_sets``.

    Parameters
    ----------
    mdata
        The MuData; it is only read.
    gene_sets
        A GMT file, plain or gzip (a line a set: name, description, genes, separated by tabs);
        genes by set (a string is one gene); or a DataFrame, long (columns ``source`` and
        ``target``, as decoupler has them) or wide (genes x sets; a gene belongs where the value is
        not zero).
    modalities
        Modality, or modalities, whose features are genes.
    set_modality
        Name of the sets' modality in the graph.
    min_genes
        Leave out sets with fewer members among the features than this.
    gene_symbols
        Column of ``var``, of the modalities that have it, with the genes' names; None: the feature
        names.

    Returns
    -------
    Graph of all features of the modalities and the sets; edges have sign 1, weight 1 and type
    ``"gene set"``. Metadata: ``reason`` and ``detail`` of what is not linked; ``hub``, True for the
    sets. For their place in an order of features: ``graph.names(set_modality)``. Memory is
    O(edges + features).

    Raises
    ------
    DataError
        The file is not there, not GMT or truncated; a set is named twice; the genes agree only when
        case is ignored (mixed species); or none is a member of a set.
    RequestError
        A modality or column is not known, or ``set_modality`` is one of the MuData.

    Examples
    --------
    >>> mosaicvi.graph.from_gene_sets(mdata, "hallmark.gmt")
    """
    chosen = [modalities] if isinstance(modalities, str) else list(modalities)
    if not chosen:
        raise RequestError("found none", key="modalities", expected="one or more modalities")
    vars_ = {m: modality_var(mdata, m, key="modalities") for m in chosen}
    if set_modality in mdata.mod:
        raise RequestError(
            "the MuData has a modality of that name",
            modality=set_modality,
            key="set_modality",
            expected="a name that no modality has",
        )
    sets = read_sets(gene_sets)
    number = np.repeat(np.arange(len(sets)), [len(genes) for genes in sets.values()])
    member = name_index(gene for genes in sets.values() for gene in genes)
    known = member.unique()
    gene, of_set, reasons, start = [], [], [], 0
    for modality, names in names_by_modality(vars_, gene_symbols).items():
        check_species(names, known, modality=modality, source="the gene sets")
        pairs = pd.DataFrame({"name": names, "gene": np.arange(len(names)) + start}).merge(
            pd.DataFrame({"name": member, "set": number}), on="name"
        )
        why = _reasons(names, known)
        if not len(pairs):
            raise not_linked(modality, "the gene sets", why, names)
        gene.append(pairs["gene"].to_numpy())
        of_set.append(pairs["set"].to_numpy())
        reasons.append(why)
        start += len(names)
    genes, found = np.concatenate(gene), np.concatenate(of_set)
    large = np.bincount(found, minlength=len(sets)) >= max(min_genes, 1)
    if not large.any():
        raise DataError(
            f"no set has {min_genes} members among the features",
            modality=chosen[0],
            key="min_genes",
            remedy="lower min_genes",
        )
    keep = large[found]
    features = {m: name_index(var.index) for m, var in vars_.items()}
    features[set_modality] = name_index(np.array(list(sets), dtype=object)[large])
    place = np.cumsum(large) - 1
    reasons.append(_empty(int(large.sum())))
    metadata = pd.concat(reasons, ignore_index=True)
    metadata[HUB] = np.arange(len(metadata)) >= start
    lonely = np.setdiff1d(np.arange(start), genes[keep])
    lonely = lonely[metadata["reason"].to_numpy()[lonely] == ""]
    metadata.loc[lonely, ["reason", "detail"]] = ["small set", "only in sets below min_genes"]
    edges = Edges.of(genes[keep], place[found[keep]] + start, 1, 1.0, TYPE)
    return FeatureGraph(features, edges, metadata=metadata)


def _empty(n: int) -> pd.DataFrame:
    return pd.DataFrame("", index=range(n), columns=["reason", "detail"], dtype=object)


def _reasons(names: pd.Index, known: pd.Index) -> pd.DataFrame:
    reasons = _empty(len(names))
    lost = ~names.isin(known)
    reasons.loc[lost, ["reason", "detail"]] = diagnose(names[lost], known).to_numpy()
    reasons.loc[lost & (reasons["reason"] == "absent").to_numpy(), "detail"] = "in no gene set"
    return reasons


def read_sets(gene_sets: GeneSets) -> dict[str, list[str]]:
    """Genes by set, each once.

    Raises
    ------
    DataError
        If there is no set, none has a gene, sets have no names, or a file or table is not what is
        expected.
    """
    if isinstance(gene_sets, pd.DataFrame):
        sets = _read_table(gene_sets)
    elif isinstance(gene_sets, Mapping):
        sets = {
            str(name): _genes([x] if isinstance(x, str) else x) for name, x in gene_sets.items()
        }
    elif isinstance(gene_sets, str | Path):
        sets = _read_gmt(Path(gene_sets))
    else:
        raise DataError(
            f"found {type(gene_sets).__name__}",
            key="gene_sets",
            expected="a dict of genes by set, a GMT file, or a DataFrame",
            remedy="name the sets: {'T cell': ['CD3D', 'CD3E'], ...}",
        )
    if not sets:
        raise DataError("there is no gene set", key="gene_sets", expected="one or more sets")
    if not any(sets.values()):
        raise DataError(
            f"no gene in any of {len(sets)} sets", key="gene_sets", expected="names of genes"
        )
    return sets


def _read_table(table: pd.DataFrame) -> dict[str, list[str]]:
    """Sets of a long table or of a wide one."""
    if {"source", "target"} <= set(table.columns):
        return {
            str(name): _genes(part["target"])
            for name, part in table.groupby("source", sort=False, observed=True)
        }
    if not all(kind.kind in "biuf" for kind in table.dtypes):
        raise DataError(
            f"found a DataFrame with the columns {list(table.columns)[:5]}",
            key="gene_sets",
            expected="columns 'source' (set) and 'target' (gene), or genes x sets of numbers",
        )
    _check_once(table.columns)
    return {
        str(name): _genes(table.index[(column.notna() & column.ne(0)).to_numpy(dtype=bool)])
        for name, column in table.items()
    }


def _genes(names: Iterable[Any]) -> list[str]:
    """Each gene once; a missing name is none."""
    written = (str(name) for name in names if isinstance(name, str) or not pd.isna(name))
    return [gene for gene in dict.fromkeys(written) if gene]


def _check_once(names: pd.Index) -> None:
    if not names.is_unique:
        raise DataError(
            f"the DataFrame has the columns {shown(names[names.duplicated()])} a second time",
            key="gene_sets",
            expected="each set once",
            remedy="give the columns different names",
        )


def _read_gmt(file: Path) -> dict[str, list[str]]:
    try:
        content = file.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        lines = content.decode("utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise DataError(
            f"there is no file {str(file)!r}",
            key="gene_sets",
            expected="a GMT file, plain or gzip",
            remedy="correct the path, or pass genes by set: {'T cell': ['CD3D', 'CD3E'], ...}",
        ) from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise _not_gmt(file, f"it is truncated or no text ({error})") from error
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        genes = [gene for gene in fields[2:] if gene]
        if not fields[0] or not genes:
            raise _not_gmt(file, f"line {number} has no name, or no gene after its description")
        if fields[0] in sets:
            raise _not_gmt(file, f"line {number} names the set {fields[0]!r} a second time")
        sets[fields[0]] = list(dict.fromkeys(genes))
    return sets


def _not_gmt(file: Path, what: str) -> DataError:
    return DataError(
        f"the file {str(file)!r} cannot be read as GMT: {what}",
        key="gene_sets",
        expected="a line a set: name, description, genes, separated by tabs",
        remedy="download it again, or pass a dict of genes by set",
    )
