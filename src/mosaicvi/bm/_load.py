"""Data of a comparison: a dataset of the package by name, or a file."""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import mudata
import pandas as pd
from mudata import MuData

from mosaicvi import datasets
from mosaicvi._errors import DataError, FileError, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anndata import AnnData


LOADERS = (
    "pbmc10k_cite",
    "pbmc5k_rna",
    "pbmc_mosaic",
    "simulate",
    "simulate_cite",
    "sln_unpaired",
    "snareseq_cortex",
)
"""Functions of ``mosaicvi.datasets`` that give a MuData without being told anything."""


def load(data: str) -> MuData:
    """Load ``data``: one of :data:`LOADERS`, or an ``.h5mu`` file.

    Raises
    ------
    RequestError
        If it is neither; lists the known names.
    FileError
        If the file holds no MuData.
    """
    path = Path(data)
    if path.suffix == ".h5mu":
        if not path.is_file():
            raise RequestError(f"no file {data!r}", key="data", expected="an .h5mu file")
        if not holds_mudata(path):
            raise FileError(
                f"{path} holds no MuData",
                key="data",
                expected="modalities in the group 'mod'",
                remedy="wrap an AnnData first: mudata.MuData({'rna': adata}).write(path)",
            )
        return read(path)
    if data not in LOADERS:
        raise RequestError(
            f"{data!r} is neither a dataset nor an .h5mu file",
            key="data",
            expected=f"a path that ends in .h5mu, or one of {list(LOADERS)}",
        )
    loaded: MuData = getattr(datasets, data)()
    return loaded


def holds_mudata(path: Path) -> bool:
    """Whether an HDF5 file is that of a MuData, whatever its name ends in.

    Raises
    ------
    FileError
        If it is no HDF5 file.
    """
    try:
        with h5py.File(path, "r") as root:
            return "mod" in root
    except OSError as error:
        raise FileError(
            f"{path} is no HDF5 file, or is damaged",
            expected="an .h5mu file",
            remedy="write or copy it again",
        ) from error


_LOCK = threading.RLock()


@contextmanager
def quiet_mudata() -> Iterator[None]:
    """Silence remarks of mudata that are no news here.

    A gene and its protein may bear one name (mudata keeps them apart by modality), and tables of
    this comparison have no columns that 0.3 could pull up. Filters of warnings are global to the
    process, so threads that write the input of workers take turns.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="From 0.4 .update", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*names are not unique")
        warnings.filterwarnings("ignore", message="Cannot join columns with the same name")
        yield


def combine(tables: Mapping[str, AnnData], obs: pd.DataFrame) -> MuData:
    """MuData of some tables, with columns for every cell.

    Parameters
    ----------
    tables
        Modality -> cells x features; cells are matched by name.
    obs
        Columns by cell; rows of other cells are left out.
    """
    with quiet_mudata():
        mdata = MuData(dict(tables))
    for name in obs.columns:
        mdata.obs[name] = obs.loc[mdata.obs_names, name].to_numpy()
    return mdata


def read(path: Path) -> MuData:
    """Read an ``.h5mu`` file."""
    with quiet_mudata():
        return mudata.read_h5mu(path)


def column(mdata: MuData, key: str) -> pd.Series | None:
    """Column of all cells, shape ``(n_cells,)``, or None if no table holds it.

    ``mdata.obs`` first, else coalesced over the modalities' own tables (mudata 0.4 does not pull
    their columns up). Cells without an entry are NaN.
    """
    if key in mdata.obs:
        return pd.Series(mdata.obs[key].astype(object))
    found = pd.Series(index=mdata.obs_names, dtype=object)
    known = False
    for modality in mdata.mod.values():
        if key in modality.obs:
            known = True
            found = found.combine_first(modality.obs[key].astype(object)).reindex(mdata.obs_names)
    return found if known else None


def check_modalities(
    mdata: MuData,
    names: tuple[str, ...],
    data: str,
    *,
    option: str = "--source or --target",
) -> None:
    """Refuse data that lack a modality.

    Raises
    ------
    DataError
        Listing the modalities there are.
    """
    for name in names:
        if name not in mdata.mod:
            raise DataError(
                f"{data!r} has no such modality",
                modality=name,
                expected=f"one of {sorted(mdata.mod)}",
                remedy=f"name it with {option}",
            )
