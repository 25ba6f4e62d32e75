"""Small MuData built by hand, and a fingerprint that shows any change of one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import anndata
import mudata
import numpy as np
import pandas as pd
import scipy.sparse as sp

SCVI_UNS_KEYS = ("_scvi_uuid", "_scvi_manager_uuid")
"""The two slots that registration with scvi-tools writes."""

GENES = tuple(f"GENE{i}" for i in range(12))
PROTEINS = ("cd3", "cd4", "cd8", "cd19", "cd14")


def pulling_nothing() -> AbstractContextManager[Any]:
    """Turn mudata 0.3's pulling of columns off; 0.4 has the option elsewhere, and off."""
    options = getattr(mudata, "set_options", None)
    return nullcontext() if options is None else options(pull_on_update=False)


def make_mudata(modalities: Mapping[str, anndata.AnnData]) -> mudata.MuData:
    """Build a MuData that pulls nothing from its modalities, as mudata 0.4 does."""
    with pulling_nothing():
        return mudata.MuData(dict(modalities))


def counts_modality(
    cells: Sequence[str],
    features: Sequence[str] = GENES,
    *,
    seed: int = 0,
    mean: float = 3.0,
    dtype: Any = np.float32,
    kind: str = "csr",
    batch: Mapping[str, str] | None = None,
) -> anndata.AnnData:
    """Poisson counts that belong to cell and feature names, whatever their order.

    ``kind``: ``csr``, ``csc``, ``csr_array`` or ``dense``.
    """
    counts = np.empty((len(cells), len(features)))
    for row, cell in enumerate(cells):
        key = hashlib.blake2b(f"{seed}|{cell}".encode(), digest_size=8).digest()
        generator = np.random.default_rng(int.from_bytes(key, "little"))
        drawn = dict(
            zip(sorted(features), generator.poisson(mean, size=len(features)), strict=True)
        )
        counts[row] = [drawn[name] for name in features]
    counts = counts.astype(dtype)
    makers = {
        "csr": sp.csr_matrix,
        "csc": sp.csc_matrix,
        "csr_array": sp.csr_array,
        "dense": np.asarray,
    }
    adata = anndata.AnnData(makers[kind](counts))
    adata.obs_names, adata.var_names = list(cells), list(features)
    if batch is not None:
        adata.obs["batch"] = pd.Categorical([batch[cell] for cell in cells])
    return adata


def cell_names(n_cells: int) -> list[str]:
    """Names ``c00``, ``c01``, ..."""
    return [f"c{i:02d}" for i in range(n_cells)]


def mosaic(
    n_cells: int = 30,
    *,
    kind: str = "csr",
    dtype: Any = np.float32,
    reverse: Iterable[str] = ("protein",),
) -> mudata.MuData:
    """RNA in the first two thirds of cells, protein in the last two thirds.

    Batches ``a`` and ``b`` alternate between cells, in each modality's own ``obs``. Modalities in
    ``reverse`` hold their cells in reversed order.
    """
    cells = cell_names(n_cells)
    batch = {cell: "ab"[i % 2] for i, cell in enumerate(cells)}
    third = n_cells // 3
    of = {"rna": cells[: 2 * third], "protein": cells[third:]}
    for name in reverse:
        of[name] = of[name][::-1]
    return make_mudata(
        {
            "rna": counts_modality(of["rna"], GENES, seed=1, kind=kind, dtype=dtype, batch=batch),
            "protein": counts_modality(
                of["protein"], PROTEINS, seed=2, kind=kind, dtype=dtype, batch=batch
            ),
        }
    )


def fingerprint(mdata: mudata.MuData) -> dict[str, str]:
    """Hash of every slot of a MuData and its modalities, but scvi-tools' registration keys."""
    slots = _slots("", mdata)
    for name, adata in mdata.mod.items():
        slots |= _slots(f"mod/{name}/", adata)
        slots[f"mod/{name}/X"] = _hash(adata.X)
        for layer in adata.layers:
            if layer is not None:
                slots[f"mod/{name}/layers/{layer}"] = _hash(adata.layers[layer])
        if adata.raw is not None:
            slots[f"mod/{name}/raw"] = _hash(adata.raw.X) + _hash(adata.raw.var)
    for name in mdata.obsmap:
        slots[f"obsmap/{name}"] = _hash(np.asarray(mdata.obsmap[name]))
    slots["mod"] = ",".join(mdata.mod)
    return slots


def _slots(prefix: str, holder: Any) -> dict[str, str]:
    slots = {
        f"{prefix}obs": _hash(holder.obs),
        f"{prefix}var": _hash(holder.var),
        f"{prefix}obs_names": _hash(holder.obs_names.to_numpy()),
        f"{prefix}var_names": _hash(holder.var_names.to_numpy()),
        f"{prefix}uns": _hash({k: v for k, v in holder.uns.items() if k not in SCVI_UNS_KEYS}),
    }
    for slot in ("obsm", "varm", "obsp", "varp"):
        mapping = getattr(holder, slot)
        for key in mapping:
            slots[f"{prefix}{slot}/{key}"] = _hash(mapping[key])
    return slots


def _hash(value: Any) -> str:
    if value is None:
        return "none"
    if sp.issparse(value):
        parts = (value.data, value.indices, value.indptr)
        return f"{type(value).__name__}{value.shape}" + "".join(_hash(part) for part in parts)
    if isinstance(value, pd.DataFrame):
        types = str({str(name): str(kind) for name, kind in value.dtypes.items()})
        return _digest((types + value.to_csv()).encode())
    if isinstance(value, Mapping):
        return _digest(repr([(str(key), _hash(item)) for key, item in value.items()]).encode())
    array = np.asarray(value)
    if array.dtype.kind in "biufc":
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        return f"{array.dtype}{array.shape}{order}" + _digest(array.tobytes())
    return _digest(repr(array.tolist()).encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
