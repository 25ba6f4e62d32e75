"""What of a model is saved, and how a saved one is put together again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import mudata
import numpy as np
import scvi
import torch
from torch import Tensor

from mosaicvi import _keys
from mosaicvi.__about__ import __version__
from mosaicvi._errors import FileError, RequestError
from mosaicvi._scvi import parse_device_args, state_registry
from mosaicvi.graph import Edges, FeatureGraph
from mosaicvi.model import _io
from mosaicvi.model._counterparts import Apart, Counterparts
from mosaicvi.model._imputation import Imputability
from mosaicvi.model._library_pool import LibraryPool
from mosaicvi.train import FitResult

if TYPE_CHECKING:
    from pathlib import Path

    from mudata import MuData

    from mosaicvi.model._kept import KeptModel

ModelT = TypeVar("ModelT", bound="KeptModel")

_MODULE, _POOL, _SPLIT, _GRAPH = "module.", "library_pool.", "split.", "graph."
_COUNTERPARTS = "counterparts."

WRITER_OPTIONS = (
    "compression",
    "compression_opts",
    "allow_unknown_filter",
    "track_order",
    "track_times",
)
"""Options of HDF5 that every part of a MuData can be written with."""


def save(
    model: KeptModel,
    folder: Path,
    *,
    overwrite: bool,
    save_anndata: bool,
    write_kwargs: dict[str, Any],
) -> None:
    """Write a model; see :meth:`mosaicvi.MosaicVI.save`."""
    _check_write_kwargs(write_kwargs, save_anndata=save_anndata)
    if save_anndata and model.adata is None:
        raise RequestError(
            "the model was loaded without data", key="save_anndata", remedy="pass False"
        )
    if save_anndata and any("/" in name for name in model.adata.mod):
        # mudata 0.3 writes a file that nothing can read.
        raise RequestError(
            f"modalities are {list(model.adata.mod)}, and a file cannot hold a name with a slash",
            key="save_anndata",
            remedy="pass False, or set up and train with a modality of another name",
        )
    result = model.fit_result
    meta = {
        "class": type(model).__name__,
        "versions": {
            "mosaicvi": __version__,
            "scvi-tools": scvi.__version__,
            "torch": torch.__version__,
        },
        "registry": model.registry_,
        "init": model.init_params_["non_kwargs"],
        "module": model.module_spec.to_dict(),
        "trained": model.is_trained_,
        "has_data": save_anndata,
        "fit": None
        if result is None
        else {
            "n_epochs": result.n_epochs,
            "best_epoch": result.best_epoch,
            "status": result.status,
        },
        "graph_types": None if model.graph is None else sorted(set(model.graph.edges.type)),
        "counterparts": {
            name: {other: asdict(how) for other, how in each.apart.items()}
            for name, each in model.counterparts.items()
        },
        "imputability": {
            key: {"n_cells": value.n_cells, "correlation": _json_floats(value.correlation)}
            for key, value in model.imputability.items()
        },
    }
    tensors: dict[str, Tensor] = {
        _MODULE + name: tensor for name, tensor in model.module.state_dict().items()
    }
    for name, pool in model.library_pool.items():
        for key, values in pool.arrays().items():
            tensors[f"{_POOL}{name}.{key}"] = torch.as_tensor(values)
    for name, each in model.counterparts.items():
        tensors[_COUNTERPARTS + name] = torch.as_tensor(each.places)
    tensors.update(_graph_tensors(model))
    for name, keys in model._known_split().items():
        tensors[_SPLIT + name] = torch.as_tensor(keys)

    def write_data(path: Path) -> None:
        # Not its own method: a MuData on disk would be that of the new file from then on.
        mudata.write_h5mu(path, model.adata, **write_kwargs)

    _io.write_model(
        folder,
        meta,
        tensors,
        overwrite=overwrite,
        history=model.history_,
        write_data=write_data if save_anndata else None,
    )


def load(
    cls: type[ModelT],
    folder: Path,
    adata: MuData | Literal[False] | None,
    accelerator: str,
    device: int | str,
) -> ModelT:
    """Read a model; see :meth:`mosaicvi.MosaicVI.load`."""
    meta, tensors = _io.read_model(folder)
    if meta["class"] != cls.__name__:
        raise FileError(
            f"{folder} holds a {meta['class']}",
            key="dir_path",
            expected=f"a {cls.__name__}",
            remedy=f"load it with mosaicvi.{meta['class']}.load",
        )
    if adata is None:
        path = folder / _io.DATA_FILE
        # A file that an earlier model left there holds other cells.
        if not meta.get("has_data") or not path.exists():
            raise FileError(
                f"{folder} holds no data",
                key="adata",
                remedy="pass the MuData, or adata=False to load the model alone",
            )
        try:
            adata = mudata.read_h5mu(path)
        except OSError as error:
            raise FileError(
                f"{path} is truncated or damaged ({error})",
                key="adata",
                remedy="save or copy the model again, or pass the MuData",
            ) from error
    registry = meta["registry"]
    arguments = {k: v for k, v in meta["init"].items() if k not in {"adata", "registry"}}
    model = cls(None, registry=registry, **arguments)
    _fill(model, meta, tensors, folder)
    if adata is not False:
        model.attach(adata)
    _, _, where = parse_device_args(
        accelerator=accelerator, devices=device, return_device="torch", validate_single_device=True
    )
    model.to_device(where)
    return model


def read_registry(folder: Path, prefix: str | None) -> dict[str, Any]:
    """Registry of a saved model; see :meth:`mosaicvi.MosaicVI.load_registry`.

    Raises
    ------
    RequestError
        If a prefix is given: a model is a folder of its own here.
    """
    check_prefix(prefix)
    registry: dict[str, Any] = _io.read_model(folder)[0]["registry"]
    return registry


def check_prefix(prefix: object) -> None:
    """Refuse scvi-tools' prefix of file names, by which models share a folder."""
    if prefix:
        raise RequestError(
            f"found {prefix!r}",
            key="prefix",
            expected="None: each model has a folder of its own",
            remedy="give a folder for each model, such as dir_path/prefix",
        )


def _check_write_kwargs(given: dict[str, Any], *, save_anndata: bool) -> None:
    """Refuse what the writer of the MuData does not take, before anything is written."""
    unknown = sorted(set(given) - set(WRITER_OPTIONS))
    if unknown:
        raise RequestError(
            f"save() has no argument {', '.join(map(repr, unknown))}",
            key=unknown[0],
            expected="overwrite, save_anndata and, with the latter, " + ", ".join(WRITER_OPTIONS),
        )
    if given and not save_anndata:
        raise RequestError(
            "it says how the MuData is written, which save_anndata=False leaves out",
            key=sorted(given)[0],
            remedy="save_anndata=True, or leave it out",
        )


def _fill(model: KeptModel, meta: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> None:
    """Put weights, splits, pools and history into a freshly made model."""
    model._rebuild(meta["module"])
    weights = {k.removeprefix(_MODULE): v for k, v in tensors.items() if k.startswith(_MODULE)}
    try:
        model.module.load_state_dict(weights)
    except RuntimeError as error:
        raise FileError(
            f"the weights in {folder} do not fit the sizes in its {_io.META_FILE} ({error})",
            key="dir_path",
            remedy="save the model again; do not mix files of several models",
        ) from error
    model.module.eval()
    model.library_pool = {
        name: LibraryPool.from_arrays(
            {
                key.removeprefix(f"{_POOL}{name}."): values.numpy()
                for key, values in tensors.items()
                if key.startswith(f"{_POOL}{name}.")
            }
        )
        for name in model.module_spec.modalities
        if f"{_POOL}{name}.sizes" in tensors
    }
    model.counterparts = {
        name: Counterparts(
            tensors[_COUNTERPARTS + name].numpy(),
            {other: Apart(**how) for other, how in apart.items()},
        )
        for name, apart in meta.get("counterparts", {}).items()
    }
    model.split_keys = {
        name.removeprefix(_SPLIT): keys.numpy()
        for name, keys in tensors.items()
        if name.startswith(_SPLIT)
    }
    model.graph = _read_graph(model, meta, tensors)
    model.is_trained_ = bool(meta["trained"])
    model.history_ = _io.read_history(folder)
    if meta["fit"] is not None:
        model.fit_result = FitResult(model.history_ or {}, **meta["fit"])
    model.imputability = {
        key: Imputability(np.array(value["correlation"], dtype=float), value["n_cells"])
        for key, value in meta["imputability"].items()
    }
    model._model_summary_string = model._describe()


def _graph_tensors(model: KeptModel) -> dict[str, Tensor]:
    """Edges of the feature graph, their types as codes."""
    if model.graph is None:
        return {}
    edges = model.graph.edges
    types = np.searchsorted(sorted(set(edges.type)), np.asarray(edges.type, dtype=str))
    parts = {"source": edges.source, "target": edges.target, "sign": edges.sign}
    parts |= {"weight": edges.weight, "type": types}
    return {_GRAPH + name: torch.as_tensor(np.array(values)) for name, values in parts.items()}


def _read_graph(
    model: KeptModel, meta: dict[str, Any], tensors: dict[str, Tensor]
) -> FeatureGraph | None:
    """What :func:`_graph_tensors` wrote, over the registered features."""
    types = meta.get("graph_types")
    if types is None:
        return None
    parts = {
        name.removeprefix(_GRAPH): values.numpy()
        for name, values in tensors.items()
        if name.startswith(_GRAPH)
    }
    kinds = np.array(types, dtype=object)[parts.pop("type")]
    edges = Edges.of(**parts, type=kinds)
    return FeatureGraph(feature_names(model.registry_), edges)


def feature_names(registry: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Registered features of each modality."""
    state = state_registry(registry, _keys.REGISTRY) or {"modalities": {}}
    return {name: tuple(part["var_names"]) for name, part in state["modalities"].items()}


def batch_categories(registry: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Batch names of each modality, in the order of their codes."""
    state = state_registry(registry, _keys.REGISTRY) or {"modalities": {}}
    return {name: tuple(part["batch_categories"]) for name, part in state["modalities"].items()}


def _json_floats(values: np.ndarray) -> list[float | None]:
    """NaN has no place in JSON."""
    return [float(v) if np.isfinite(v) else None for v in values]
