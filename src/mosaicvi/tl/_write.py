"""Where tools write, and what they leave about themselves."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from mudata import MuData

from mosaicvi import _keys
from mosaicvi.__about__ import __version__
from mosaicvi._errors import RequestError
from mosaicvi._scvi import layer_names
from mosaicvi.tl._measured import check_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.model import MosaicVI


def mudata_of(model: MosaicVI, adata: MuData | None) -> MuData:
    """Return the MuData that is asked about: the given one, or the model's."""
    check_model(model)
    mdata = model.adata if adata is None else adata
    if mdata is None:
        raise RequestError(
            "the model was loaded without data", key="adata", remedy="pass adata=mdata"
        )
    return mdata


def spread(values: np.ndarray, rows: np.ndarray, n_cells: int) -> np.ndarray:
    """Numbers of some cells in a column of all; NaN elsewhere, float64 ``(n_cells,)``."""
    column = np.full(n_cells, np.nan)
    column[rows] = values
    return column


def write(
    mdata: MuData,
    columns: Mapping[str, Any],
    *,
    tool: str,
    parameters: Mapping[str, Any],
    obsm: Mapping[str, np.ndarray] | None = None,
    copy: bool,
) -> MuData | None:
    """Write columns of cells, and the parameters to ``uns["mosaicvi"][tool]``.

    Returns
    -------
    A copy with them, or None where ``mdata`` itself was written to.
    """
    target = copied(mdata) if copy else mdata
    for key, values in columns.items():
        target.obs[key] = values
    for key, values in (obsm or {}).items():
        target.obsm[key] = values
    before = dict(target.uns.get(_keys.UNS, {}))
    target.uns[_keys.UNS] = {**before, tool: {**parameters, "version": __version__}}
    return target if copy else None


def copied(mdata: MuData) -> MuData:
    """Copy of a MuData that shares what lies on disk with it: nothing is read, nor written there.

    ``raw`` of such a MuData is left out, as :func:`mosaicvi.read_lazy` does.
    """
    layers = {
        name: {key: part.layers[key] for key in layer_names(part)}
        for name, part in mdata.mod.items()
    }
    stored = [m for name, part in mdata.mod.items() for m in (part.X, *layers[name].values())]
    if not mdata.isbacked and all(hasattr(m, "copy") for m in stored if m is not None):
        return mdata.copy()
    parts = {
        name: AnnData(
            _own(part.X), layers={k: _own(m) for k, m in layers[name].items()}, **_tables(part)
        )
        for name, part in mdata.mod.items()
    }
    maps = {"obsmap": dict(mdata.obsmap), "varmap": dict(mdata.varmap)}
    return MuData(parts, axis=mdata.axis, **_tables(mdata), **maps)


def _own(matrix: Any) -> Any:
    """A copy of values in memory; a reference to values on disk, of which h5py copies none."""
    return matrix.copy() if hasattr(matrix, "copy") else matrix


def _tables(part: AnnData | MuData) -> dict[str, Any]:
    """Copies of everything but values."""
    names = ("obsm", "varm", "obsp", "varp")
    return {
        "obs": part.obs.copy(),
        "var": part.var.copy(),
        "uns": deepcopy(dict(part.uns)),
        **{name: {key: m.copy() for key, m in getattr(part, name).items()} for name in names},
    }
