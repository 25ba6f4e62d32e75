"""Save and load without pickle: weights as safetensors, everything else as JSON.

Loading runs no code from the file. Layout of a saved model, a folder::

    model.json           format, class, versions, registration, constructor arguments, sizes
    model.safetensors    weights, frozen projections and library pools
    history.json         training history, if the model was trained
    mdata.h5mu           the data, if asked for
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch

from mosaicvi._errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    folder: Path,
    meta: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    overwrite: bool,
    history: Mapping[str, Any] | None = None,
    write_data: Callable[[Path], object] | None = None,
) -> None:
    """Write a model's files, of which none takes an earlier one's place before all are written.

    A full disk, or the end of a job, leaves the earlier model as it was.

    Parameters
    ----------
    folder
        Folder to write.
    meta
        Metadata.
    tensors
        Weights and other arrays.
    overwrite
        Replace a model that is there.
    history
        Training history: name to the values of its epochs.
    write_data
        Writes the data to the file that it is given.

    Raises
    ------
    FileError
        If the folder exists and ``overwrite`` is False, or a file is in its place.
    """
    _check_place(folder, overwrite=overwrite)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    # Not save_file, whose file only its owner could read.
    weights = safetensors.torch.save(plain)
    text = {"format": FORMAT, "weights": _digest(weights), **meta}
    files = {
        WEIGHTS_FILE: weights,
        META_FILE: json.dumps(text, indent=1, default=_plain).encode(),
    }
    if history is not None:
        files[HISTORY_FILE] = json.dumps(_plain_history(history)).encode()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".saving-", dir=folder) as place:
            new = Path(place)
            for name, content in files.items():
                (new / name).write_bytes(content)
            if write_data is not None:
                write_data(new / DATA_FILE)
            # An earlier model's history must not be taken for this one's.
            (folder / HISTORY_FILE).unlink(missing_ok=True)
            for path in sorted(new.iterdir()):
                path.replace(folder / path.name)
    finally:
        if not any(folder.iterdir()):
            # It would be in the way of the next try.
            folder.rmdir()


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
        weights = path.read_bytes()
        tensors = safetensors.torch.load(weights)
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
    # Files of earlier versions do not say.
    if meta.pop("weights", None) not in {None, _digest(weights)}:
        raise FileError(
            f"{path} is not what {META_FILE} was saved with",
            key="dir_path",
            remedy="save the model again, or copy the whole folder; do not mix files of several "
            "models",
        )
    return meta, tensors


def _digest(weights: bytes) -> str:
    return hashlib.blake2b(weights, digest_size=16).hexdigest()


def _plain_history(history: Mapping[str, Any]) -> dict[str, Any]:
    """Training history as plain values."""
    return {
        name: {
            "epoch": [int(e) for e in frame.index],
            "value": [float(v) for v in frame.iloc[:, 0]],
        }
        for name, frame in history.items()
        if frame.shape[1] == 1
    }


def read_history(folder: Path) -> dict[str, Any] | None:
    """Read the training history; None where the model was not trained."""
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
        raise FileError(
            f"{path} was not written by mosaicvi",
            key="dir_path",
            expected="a folder that save() of a model wrote",
        )
    return content


def _plain(value: Any) -> Any:
    """Plain types for values that JSON lacks."""
    if isinstance(value, (np.generic, np.ndarray, pd.Index, pd.Series)):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, tuple):
        return list(value)
    if hasattr(value, "to_dict"):
        return value.to_dict()
    raise TypeError(f"cannot write {type(value).__name__} to JSON")
