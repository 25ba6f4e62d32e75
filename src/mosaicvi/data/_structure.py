"""Checks of the MuData itself, and the maps from its cells and features to the modalities'."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from mudata import MuData

from mosaicvi._errors import DataError, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

UPDATE = "call mdata.update(), then run the setup again"
_SHOWN = 5


def shown(names: Iterable[object]) -> str:
    """Return the first few names, for a message."""
    listed = [str(name) for name in names]
    text = ", ".join(repr(name) for name in listed[:_SHOWN])
    return text + (f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else "")


def check_object(mdata: object) -> None:
    """Refuse what is not a whole MuData that shares cells.

    Raises
    ------
    DataError
        For another type, a view, a MuData along features, or duplicated cell names.
    """
    if not isinstance(mdata, MuData):
        remedy = 'wrap it: mudata.MuData({"rna": adata})' if isinstance(mdata, AnnData) else None
        raise DataError(f"found {type(mdata).__name__}", expected="a MuData", remedy=remedy)
    if mdata.is_view:
        raise DataError("the MuData is a view", remedy="mdata = mdata.copy()")
    if getattr(mdata, "axis", 0) != 0:
        raise DataError(
            f"the MuData has axis={mdata.axis}",
            expected="axis=0, modalities that share cells",
            remedy="build it with MuData(..., axis=0)",
        )
    _check_unique(mdata.obs_names, "cell", None)


def check_known(mdata: MuData, names: Sequence[str]) -> None:
    """Refuse modalities that the MuData lacks.

    Raises
    ------
    RequestError
        Lists the known modalities.
    """
    unknown = [name for name in names if name not in mdata.mod]
    if unknown:
        raise RequestError(
            f"the MuData has no modality {shown(unknown)}",
            key="modalities",
            expected=f"some of {list(mdata.mod)}",
        )
    if "" in names:
        raise RequestError(
            "a modality has no name",
            key="modalities",
            remedy='mdata.mod["rna"] = mdata.mod.pop(""), then mdata.update()',
        )


def check_modality(adata: AnnData, name: str) -> None:
    """Refuse a modality that is a view, is empty, or names a cell or feature twice.

    Raises
    ------
    DataError
        Says what to do.
    """
    if not isinstance(adata, AnnData):
        raise DataError(
            f"the modality is a {type(adata).__name__}",
            modality=name,
            expected="an AnnData",
            remedy="make its modalities those of the outer MuData",
        )
    if adata.is_view:
        raise DataError(
            "the modality is a view",
            modality=name,
            remedy=f'mdata.mod["{name}"] = mdata.mod["{name}"].copy(), then mdata.update()',
        )
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise DataError(
            f"the modality is empty: {adata.n_obs} cells x {adata.n_vars} features",
            modality=name,
            remedy="leave it out of modalities, or out of the MuData",
        )
    _check_unique(adata.obs_names, "cell", name)
    _check_unique(adata.var_names, "feature", name)


def _check_unique(names: pd.Index, kind: str, modality: str | None) -> None:
    if names.is_unique:
        return
    repeated = names[names.duplicated()].unique()
    function = "obs_names_make_unique()" if kind == "cell" else "var_names_make_unique()"
    raise DataError(
        f"{len(repeated)} duplicated {kind} names: {shown(repeated)}",
        modality=modality,
        expected=f"each {kind} name once",
        remedy=f"call .{function} on the modality, then mdata.update()",
    )


def rows_of(mdata: MuData, name: str) -> np.ndarray:
    """Row of a modality for each cell of the MuData, from ``mdata.obsmap``.

    ``obsmap`` is 1-based and unsigned with 0 for absent, so it is widened before one is taken
    off. It goes stale silently when a modality is filtered or reordered; this is found here.

    Parameters
    ----------
    mdata
        The MuData.
    name
        The modality.

    Returns
    -------
    Shape ``(n_cells,)``, int64, -1 where the modality lacks the cell.

    Raises
    ------
    DataError
        If the map is stale.
    """
    adata = mdata.mod[name]
    if name not in mdata.obsmap:
        raise _stale(name, "the MuData's obsmap does not know the modality")
    rows = np.asarray(mdata.obsmap[name]).ravel().astype(np.int64) - 1
    present = rows[rows >= 0]
    if len(rows) != mdata.n_obs:
        raise _stale(name, f"obsmap has {len(rows)} entries for {mdata.n_obs} cells")
    if len(present) and int(present.max()) >= adata.n_obs:
        raise _stale(name, f"obsmap points to row {int(present.max()) + 1} of {adata.n_obs}")
    if len(present) != adata.n_obs or len(np.unique(present)) != adata.n_obs:
        raise _stale(name, f"obsmap maps {len(np.unique(present))} of {adata.n_obs} rows")
    theirs = adata.obs_names.to_numpy()[present]
    ours = mdata.obs_names.to_numpy()[rows >= 0]
    different = np.flatnonzero(theirs != ours)
    if len(different):
        first = different[0]
        raise _stale(
            name,
            f"obsmap maps {len(different)} cells to rows of another cell, the first "
            f"{str(ours[first])!r} to {str(theirs[first])!r}",
        )
    return rows


def _stale(name: str, found: str) -> DataError:
    return DataError(
        f"the map from cells to rows (mdata.obsmap) is stale: {found}",
        modality=name,
        expected="mod.obs_names[obsmap - 1] == mdata.obs_names",
        remedy=UPDATE,
    )


def columns_of(mdata: MuData, name: str) -> np.ndarray:
    """Column of a modality for each feature of the MuData, from ``mdata.varmap``.

    Features of ``mdata.var`` are in an order of their own once those of a modality were reordered.

    Parameters
    ----------
    mdata
        The MuData.
    name
        The modality.

    Returns
    -------
    Shape ``(n_features,)``, int64, -1 where the feature is not of the modality.

    Raises
    ------
    DataError
        If the map is stale.
    """
    ours = mdata.mod[name].var_names.to_numpy().astype(str)
    # 1-based and unsigned, 0 for absent.
    given = mdata.varmap[name] if name in mdata.varmap else np.zeros(mdata.n_vars)
    columns = np.asarray(given).ravel().astype(np.int64) - 1
    held = np.flatnonzero(columns >= 0)
    if (
        len(columns) != mdata.n_vars
        or not np.array_equal(np.sort(columns[held]), np.arange(len(ours)))
        or (ours[columns[held]] != mdata.var_names.to_numpy().astype(str)[held]).any()
    ):
        raise DataError(
            "the map from features of the MuData to those of the modality is stale",
            modality=name,
            key="varmap",
            expected="mod.var_names[varmap - 1] == mdata.var_names",
            remedy=UPDATE,
        )
    return columns


def absent_rows(n_cells: int) -> np.ndarray:
    """Row map of a modality that a MuData lacks, shape ``(n_cells,)``, all -1."""
    return np.full(n_cells, -1, dtype=np.int64)
