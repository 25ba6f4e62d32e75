"""Open a MuData file without reading its matrices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import mudata
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset

from mosaicvi._errors import FileError

if TYPE_CHECKING:
    from mudata import MuData

_TABLES = ("obs", "var", "obsm", "varm", "obsp", "varp", "uns")
_MAPS = ("obsmap", "varmap")


def read_lazy(path: str | Path) -> MuData:
    """Open an ``.h5mu`` file or a zarr store, and leave ``X`` and layers on disk.

    Tables (``obs``, ``var``), embeddings and ``uns`` are read; ``X`` and layers become references
    that hand out rows on demand, which setup, training and getters know how to use. ``.raw`` is
    left out. The file stays open, and must stay where it is, for as long as the MuData is used.

    Parameters
    ----------
    path
        File or folder that ``MuData.write`` or ``MuData.write_zarr`` wrote.

    Returns
    -------
    MuData with the stored cells, features and row maps.

    Raises
    ------
    FileError
        If there is no such file, or it holds no MuData.

    Examples
    --------
    >>> mdata = mosaicvi.read_lazy("atlas.h5mu")
    >>> mosaicvi.MosaicVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    """
    path = Path(path).expanduser()
    root = _open(path)
    if "mod" not in root:
        raise FileError(
            f"{path} holds no MuData",
            expected="modalities in the group 'mod'",
            remedy="wrap an AnnData first: mudata.MuData({'rna': adata}).write(path)",
        )
    modalities = root["mod"]
    order = modalities.attrs.get("mod-order")
    names = [str(name) for name in (list(modalities) if order is None else order)]
    parts = {name: _modality(modalities[name]) for name in names}
    tables = {key: read_elem(root[key]) for key in (*_TABLES, *_MAPS) if key in root}
    return mudata.MuData(parts, axis=int(root.attrs.get("axis", 0)), **tables)


def _open(path: Path) -> Any:
    if not path.exists():
        raise FileError(f"there is no {path}", expected="an .h5mu file or a zarr store")
    if path.is_dir():
        import zarr

        try:
            return zarr.open_group(str(path), mode="r")
        except (FileNotFoundError, ValueError) as error:
            raise FileError(
                f"{path} is no zarr store",
                expected="a folder that mdata.write_zarr wrote, or an .h5mu file",
            ) from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise FileError(
            f"{path} is no HDF5 file, or is damaged",
            expected="an .h5mu file or a zarr store",
            remedy="write or copy it again",
        ) from error


def _modality(group: Any) -> AnnData:
    tables = {key: read_elem(group[key]) for key in _TABLES if key in group}
    layers = {name: _matrix(group["layers"][name]) for name in group.get("layers", {})}
    matrix = _matrix(group["X"]) if "X" in group else None
    return AnnData(X=matrix, layers=layers, **tables)


def _matrix(stored: Any) -> Any:
    kind = str(stored.attrs.get("encoding-type", ""))
    if kind == "null":  # X of an AnnData that has layers alone
        return None
    return sparse_dataset(stored) if kind in {"csr_matrix", "csc_matrix"} else stored
