"""What a builder reads of a MuData: the names and the ``var`` of one modality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from mosaicvi._errors import DataError, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SHOWN = 5


def shown(names: Iterable[object], n_shown: int = _SHOWN) -> str:
    """Return the first few names, for a message."""
    listed = [str(name) for name in names]
    text = ", ".join(repr(name) for name in listed[:n_shown])
    return text + (f" and {len(listed) - n_shown} more" if len(listed) > n_shown else "")


def modality_var(mdata: Any, modality: str, *, key: str) -> pd.DataFrame:
    """Return ``mdata.mod[modality].var``, untouched, or say what is wrong with it.

    Parameters
    ----------
    mdata
        The MuData.
    modality
        The modality.
    key
        The argument that named it, for messages.

    Raises
    ------
    DataError
        ``mdata`` is no MuData, or the modality names a feature twice or has none.
    RequestError
        The MuData has no such modality.
    """
    modalities = getattr(mdata, "mod", None)
    if modalities is None:
        raise DataError(
            f"found {type(mdata).__name__}",
            key="mdata",
            expected="a MuData",
            remedy='wrap the modalities: mudata.MuData({"rna": rna, "atac": atac})',
        )
    if modality not in modalities:
        raise RequestError(
            "the MuData has no such modality",
            modality=modality,
            key=key,
            expected=f"one of {shown(modalities)}",
        )
    var: pd.DataFrame = modalities[modality].var
    if not len(var):
        raise DataError(
            "the modality has no features",
            modality=modality,
            key=key,
            expected="one feature or more",
            remedy="build the MuData without it",
        )
    check_unique(var.index, modality)
    return var


def check_two(first: str, second: str, *, key: str) -> None:
    """Refuse one modality in the place of two.

    Raises
    ------
    RequestError
        They are the same.
    """
    if first == second:
        raise RequestError(
            "the same modality is given twice", modality=second, key=key, expected="another one"
        )


def check_unique(names: pd.Index, modality: str) -> None:
    """Refuse names that occur twice.

    Raises
    ------
    DataError
        Shows the repeated names.
    """
    if names.is_unique:
        return
    repeated = names[names.duplicated()].unique()
    raise DataError(
        f"{len(repeated)} duplicated feature names: {shown(repeated)}",
        modality=modality,
        expected="each feature name once",
        remedy="call .var_names_make_unique() on the modality, then mdata.update()",
    )


def name_index(names: Iterable[object]) -> pd.Index:
    """Names as an index of str.

    Raises
    ------
    DataError
        One string stands where several names should.
    """
    if isinstance(names, str):
        raise DataError(
            f"found the string {names!r}", expected="a list of names", remedy=f"[{names!r}]"
        )
    return pd.Index([str(name) for name in names], dtype=object)


def column_names(column: pd.Series) -> pd.Index:
    """Names of a column as an index of str; a missing one is empty, which names nothing."""
    return name_index(column.astype(object).where(column.notna(), ""))


def gene_names(var: pd.DataFrame, gene_symbols: str | None, modality: str) -> pd.Index:
    """Name of each gene as the outside world knows it, empty where missing, ``(n_genes,)``.

    Parameters
    ----------
    var
        The modality's ``var``.
    gene_symbols
        Column with the names; None: the feature names themselves.
    modality
        The modality, for messages.

    Raises
    ------
    RequestError
        There is no such column.
    """
    if gene_symbols is None:
        return name_index(var.index)
    if gene_symbols not in var.columns:
        raise RequestError(
            "gene_symbols names a column that var does not have",
            modality=modality,
            key=gene_symbols,
            expected=f"one of {shown(var.columns) or 'none: var has no columns'}",
            remedy="leave gene_symbols out if the feature names are the names of the genes",
        )
    return column_names(var[gene_symbols])


def names_by_modality(
    vars_: Mapping[str, pd.DataFrame], gene_symbols: str | None
) -> dict[str, pd.Index]:
    """:func:`gene_names` of several modalities, of which only some need to have the column.

    Raises
    ------
    RequestError
        None has it.
    """
    if gene_symbols is not None and not any(gene_symbols in var.columns for var in vars_.values()):
        columns = dict.fromkeys(name for var in vars_.values() for name in var.columns)
        raise RequestError(
            f"gene_symbols names a column that no var of {shown(vars_)} has",
            key=gene_symbols,
            expected=f"one of {shown(columns) or 'none: var has no columns'}",
            remedy="leave gene_symbols out if the feature names are the names of the genes",
        )
    return {
        modality: gene_names(var, gene_symbols if gene_symbols in var.columns else None, modality)
        for modality, var in vars_.items()
    }
