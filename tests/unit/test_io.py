"""Saved models: what is refused, and that nothing in a file is ever run."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from mosaicvi._errors import FileError
from mosaicvi.model import _io

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

META: dict[str, Any] = {
    "class": "MosaicVI",
    "registry": {},
    "init": {},
    "module": {},
    "trained": True,
    "fit": None,
    "imputability": {},
}
TENSORS = {"module.weight": torch.arange(12.0).reshape(3, 4), "split.train": torch.arange(5)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _io.write_model(tmp_path / "m", META, TENSORS, overwrite=False)
    return tmp_path / "m"


def test_round_trip(folder: Path) -> None:
    meta, tensors = _io.read_model(folder)
    assert meta == {"format": _io.FORMAT, **META}
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}


def test_numpy_values_and_tuples_become_plain(tmp_path: Path) -> None:
    odd = {
        "registry": {
            "array": np.arange(3),
            "number": np.float32(0.5),
            "flag": np.bool_(True),
            "tuple": (1, 2),
            "index": pd.Index(["a", "b"]),
            "set": {"b", "a"},
        }
    }
    _io.write_model(tmp_path / "m", {**META, **odd}, {}, overwrite=False)
    registry = _io.read_model(tmp_path / "m")[0]["registry"]
    assert registry == {
        "array": [0, 1, 2],
        "number": 0.5,
        "flag": True,
        "tuple": [1, 2],
        "index": ["a", "b"],
        "set": ["a", "b"],
    }
    with pytest.raises(TypeError, match="cannot write object"):
        _io.write_model(tmp_path / "n", {**META, "init": {"x": object()}}, {}, overwrite=False)
    assert not (tmp_path / "n").exists()


def test_existing_folder_is_not_overwritten(folder: Path) -> None:
    before = (folder / _io.META_FILE).read_bytes()
    with pytest.raises(FileError, match="overwrite=True"):
        _io.write_model(folder, META, {}, overwrite=False)
    assert (folder / _io.META_FILE).read_bytes() == before


def test_a_file_in_the_place_of_the_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "m"):
        with pytest.raises(FileError, match="file is a file"):
            _io.write_model(place, META, TENSORS, overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_history_round_trip_and_no_stale_history(folder: Path) -> None:
    frame = pd.DataFrame({"kl": [1.5, 0.25]}, index=pd.Index([0, 1], name="epoch"))
    _io.write_model(folder, META, TENSORS, overwrite=True, history={"kl": frame})
    pd.testing.assert_frame_equal(_io.read_history(folder)["kl"], frame)
    _io.write_model(folder, META, TENSORS, overwrite=True)
    assert _io.read_history(folder) is None


def test_a_save_that_fails_leaves_the_earlier_model(folder: Path) -> None:
    frame = pd.DataFrame({"kl": [1.5]}, index=pd.Index([0], name="epoch"))

    def write_data(text: str) -> Callable[[Path], object]:
        return lambda path: path.write_text(text)

    def disk_full(path: Path) -> None:
        path.write_text("half a fi")
        raise OSError(28, "No space left on device")

    _io.write_model(
        folder,
        META,
        TENSORS,
        overwrite=True,
        history={"kl": frame},
        write_data=write_data("cells"),
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {_io.META_FILE, _io.WEIGHTS_FILE, _io.HISTORY_FILE, _io.DATA_FILE}
    other = {name: tensor + 1 for name, tensor in TENSORS.items()}
    with pytest.raises(OSError, match="No space"):
        _io.write_model(folder, META, other, overwrite=True, write_data=disk_full)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(OSError, match="No space"):
        _io.write_model(folder / "new", META, other, overwrite=False, write_data=disk_full)
    assert not (folder / "new").exists()


def test_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    """They have the same shapes, and may be of other features in the same places."""
    other = {name: tensor + 1 for name, tensor in TENSORS.items()}
    _io.write_model(tmp_path / "other", META, other, overwrite=False)
    (tmp_path / "other" / _io.WEIGHTS_FILE).replace(folder / _io.WEIGHTS_FILE)
    with pytest.raises(FileError, match=r"not what model\.json was saved with"):
        _io.read_model(folder)


def test_a_model_of_an_earlier_version_says_nothing_of_its_weights(folder: Path) -> None:
    meta = json.loads((folder / _io.META_FILE).read_text())
    del meta["weights"]
    (folder / _io.META_FILE).write_text(json.dumps(meta))
    assert set(_io.read_model(folder)[1]) == set(TENSORS)


def _truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


SPOILS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no metadata": (lambda f: (f / _io.META_FILE).unlink(), "missing"),
    "no weights": (lambda f: (f / _io.WEIGHTS_FILE).unlink(), "missing"),
    "truncated metadata": (lambda f: _truncate(f / _io.META_FILE), "truncated"),
    "truncated weights": (lambda f: _truncate(f / _io.WEIGHTS_FILE), "truncated"),
    "empty weights": (lambda f: (f / _io.WEIGHTS_FILE).write_bytes(b""), "truncated"),
    "binary metadata": (lambda f: (f / _io.META_FILE).write_bytes(b"\xff\x00\x80"), "damaged"),
    "a list": (lambda f: (f / _io.META_FILE).write_text("[1]"), "not written by mosaicvi"),
    "foreign": (lambda f: (f / _io.META_FILE).write_text('{"model": 1}'), "not written by"),
    "newer": (
        lambda f: (f / _io.META_FILE).write_text(json.dumps({"format": 99, **META})),
        "upgrade mosaicvi",
    ),
    "incomplete": (
        lambda f: (f / _io.META_FILE).write_text('{"format": 1, "class": "MosaicVI"}'),
        "lacks",
    ),
}


@pytest.mark.parametrize("case", SPOILS)
def test_refused(folder: Path, case: str) -> None:
    spoil, says = SPOILS[case]
    spoil(folder)
    with pytest.raises(FileError, match=says):
        _io.read_model(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no folder"):
        _io.read_model(tmp_path / "nothing")
    (tmp_path / "file").write_text("{}")
    with pytest.raises(FileError, match="no folder"):
        _io.read_model(tmp_path / "file")


class _Trap:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self.path).mkdir, (self.path,))


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model.json", "history.json"])
def test_a_pickle_is_never_opened(folder: Path, tmp_path: Path, name: str) -> None:
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(_Trap(sprung))
    if name == "model.pt":
        for path in folder.iterdir():
            path.unlink()
    (folder / name).write_bytes(trap)
    read = _io.read_history if name == "history.json" else _io.read_model
    with pytest.raises(FileError):
        read(folder)
    assert not sprung.exists()
    pickle.loads(trap)  # the trap does work
    assert sprung.exists()


def test_a_pickled_scvi_model_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"anything")
    with pytest.raises(FileError, match="pickle"):
        _io.read_model(tmp_path)
