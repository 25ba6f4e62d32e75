"""MuData on disk, and a source that says how much was read of it at once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import h5py
import mudata
from anndata.io import sparse_dataset

import mosaicvi
from mosaicvi.data._formats import CompressedRows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

KINDS = ("backed", "lazy", "zarr", "dask")


def on_disk(mdata: mudata.MuData, folder: Path, kind: str) -> mudata.MuData:
    """Write a MuData, and open it in one of the ways that users have."""
    path = folder / ("mosaic.zarr" if kind in {"zarr", "dask"} else "mosaic.h5mu")
    if not path.exists():
        (mdata.write_zarr if path.suffix == ".zarr" else mdata.write)(path)
    if kind == "backed":
        return mudata.read_h5mu(path, backed="r")
    opened = mosaicvi.read_lazy(path)
    if kind == "dask":
        import dask.array as da
        from anndata.experimental import read_elem_lazy

        for adata in opened.mod.values():
            group = getattr(adata.X, "group", adata.X)
            chunks = (7, adata.n_vars)
            adata.X = read_elem_lazy(group, chunks=chunks)
            assert isinstance(adata.X, da.Array)
    return opened


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Record how many rows each read of CSR counts hands out."""
    reads: list[int] = []
    read, take = CompressedRows.read, CompressedRows.take

    def counted_read(self: CompressedRows, start: int, stop: int) -> object:
        reads.append(stop - start)
        return read(self, start, stop)

    def counted_take(self: CompressedRows, rows: object) -> object:
        reads.append(len(rows))  # type: ignore[arg-type]
        return take(self, rows)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(CompressedRows, "read", counted_read)
        patch.setattr(CompressedRows, "take", counted_take)
        yield reads


def sparse_group(path: Path, name: str) -> object:
    """A matrix of a file as anndata's reference to it."""
    return sparse_dataset(h5py.File(path, "r")[name])
