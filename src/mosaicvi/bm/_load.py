"""Data of a comparison: a dataset of the package by name, or a file."""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import mudata
import pandas as pd
from mudata import MuData

from mosaicvi import datasets
from mosaicvi._errors import DataError, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anndata import AnnData


def load(data: str) -> MuData:
    """Load ``data``: the name of a function in ``mosaicvi.datasets``, or an ``.h5mu`` file.

    Raises
    ------
    RequestError
        If it is neither; lists the known names.
    """
    path = Path(data)
    if path.suffix == ".h5mu":
        if not path.is_file():
            raise RequestError(f"no file {data!r}", key="data", expected="an .h5mu file")
        return read(path)
    known = sorted(datasets.__all__)
    if data not in known:
        raise RequestError(
            f"{data!r} is neither a dataset nor an .h5mu file",
            key="data",
            expected=f"a path that ends in .h5mu, or one of {known}",
        )
    loaded = getattr(datasets, data)()
    if not isinstance(loaded, MuData):
        raise RequestError(f"{data!r} gives {type(loaded).__name__}", key="data", expected="MuData")
    return loaded


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
