"""Save and load without pickle: weights as safetensors, everything else as JSON.

Loading runs no code from the file. Layout of a saved model, a folder::

    model.json           format, class, versions, registration, constructor arguments, sizes
    model.safetensors    weights, frozen projections and library pools
    history.json         training history, if the model was trained
    mdata.h5mu           the data, if asked for
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.torch

from mosaicvi._errors import FileError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

FORMAT = 1
"""Version of the layout; a file with a higher one is refused."""

KEYS = ("class", "registry", "init", "module", "trained", "fit", "imputability")
"""What the metadata of a model must hold."""

META_FILE, WEIGHTS_FILE, HISTORY_FILE, DATA_FILE = (
    "model.json",
    "model.safetensors",
    "history.json",
    "mdata.h5mu",
)


def write_model(
    folder: Path, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], *, overwrite: bool
) -> None:
    """Write metadata and tensors.

    Raises
    ------
    FileError
        If the folder exists and ``overwrite`` is False, or a file is in its place.
    """
    _check_place(folder, overwrite=overwrite)
    text = json.dumps({"format": FORMAT, **meta}, indent=1, default=_plain)
    folder.mkdir(parents=True, exist_ok=True)
    # An earlier model's history must not be taken for this one's.
    (folder / HISTORY_FILE).unlink(missing_ok=True)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    # Not save_file, whose file only its owner could read.
    (folder / WEIGHTS_FILE).write_bytes(safetensors.torch.save(plain))
    (folder / META_FILE).write_text(text, encoding="utf-8")


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read metadata and tensors.

    Raises
    ------
    FileError
        If the folder or a file in it is missing, truncated, foreign or newer than this package.
    """
    if not folder.is_dir():
        raise FileError(
            f"there is no folder {folder}",
            key="dir_path",
            expected="the folder that model.save() wrote",
        )
    if (folder / "model.pt").exists() and not (folder / META_FILE).exists():
        raise FileError(
            f"{folder} holds a model.pt, which scvi-tools pickles",
            key="dir_path",
            expected=f"{META_FILE} and {WEIGHTS_FILE}, as mosaicvi writes them",
            remedy="save the model with mosaicvi; pickled files run code and are not opened",
        )
    meta = _read_json(folder / META_FILE)
    version = meta.get("format")
    if not isinstance(version, int):
        raise FileError(
            f"{folder / META_FILE} was not written by mosaicvi",
            key="dir_path",
            remedy="give the folder that model.save() wrote",
        )
    if version > FORMAT:
        raise FileError(
            f"{folder} has format {version}, and this version of mosaicvi reads up to {FORMAT}",
            key="dir_path",
            remedy="upgrade mosaicvi",
        )
    lacking = [key for key in KEYS if key not in meta]
    if lacking:
        raise FileError(
            f"{folder / META_FILE} lacks {lacking}",
            key="dir_path",
            remedy="save or copy the model again",
        )
    path = folder / WEIGHTS_FILE
    try:
        tensors = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise FileError(
            f"{path} is missing", key="dir_path", remedy="copy the whole folder"
        ) from error
    except safetensors.SafetensorError as error:
        raise FileError(
            f"{path} is truncated or damaged ({error})",
            key="dir_path",
            remedy="save or copy the model again",
        ) from error
    return meta, tensors


def write_history(folder: Path, history: Mapping[str, Any]) -> None:
    """Write the training history: name to the values of its epochs."""
    plain = {
        name: {
            "epoch": [int(e) for e in frame.index],
            "value": [float(v) for v in frame.iloc[:, 0]],
        }
        for name, frame in history.items()
        if frame.shape[1] == 1
    }
    (folder / HISTORY_FILE).write_text(json.dumps(plain), encoding="utf-8")


def read_history(folder: Path) -> dict[str, Any] | None:
    """Read the training history; None where the model was not trained."""
    import pandas as pd

    path = folder / HISTORY_FILE
    if not path.exists():
        return None
    return {
        name: pd.DataFrame(
            {name: column["value"]}, index=pd.Index(column["epoch"], name="epoch"), dtype=float
        )
        for name, column in _read_json(path).items()
    }


def _check_place(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that no model can be written to.

    Raises
    ------
    FileError
        If it exists and ``overwrite`` is False, or a file is in its place.
    """
    taken = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    if taken.exists() and not taken.is_dir():
        raise FileError(
            f"{taken} is a file",
            key="dir_path",
            expected="a folder to write to, which may be new",
            remedy="choose another folder, or delete the file",
        )
    if folder.exists() and not overwrite:
        raise FileError(
            f"{folder} exists already",
            key="dir_path",
            remedy="choose another folder, or pass overwrite=True",
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileError(
            f"{path} is missing", key="dir_path", remedy="copy the whole folder"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FileError(
            f"{path} is truncated or damaged ({error})",
            key="dir_path",
            remedy="save or copy the model again",
        ) from error
    if not isinstance(content, dict):
        raise FileError(f"{path} was not written by mosaicvi", key="dir_path")
    return content


def _plain(value: Any) -> Any:
    """Plain types for values that JSON lacks."""
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, tuple):
        return list(value)
    if hasattr(value, "to_dict"):
        return value.to_dict()
    raise TypeError(f"cannot write {type(value).__name__} to JSON")
