"""The comparison of speed on tiny data; no time is asserted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.figure import Figure

from mosaicvi._errors import RequestError
from mosaicvi.bm import __main__ as command
from mosaicvi.bm import _speed_command, _speed_plot, timed
from mosaicvi.bm._speed import Speed
from mosaicvi.bm._speed_data import sparse_counts
from mosaicvi.bm._speed_input import Epoch, Lap, SpeedInput, Times, Timing
from mosaicvi.bm._table import comparison_table
from mosaicvi.bm.timed._mosaicvi import TimedMosaicVI
from mosaicvi.bm.timed._multivi import TimedMultiVI
from mosaicvi.bm.timed._scglue import timing
from mosaicvi.bm.timed._totalvi import TimedTotalVI

if TYPE_CHECKING:
    from pathlib import Path

    from mosaicvi.bm.timed._base import Timed

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
PARTS = {"load", "encode"} | {
    f"{part}/{name}" for part in ("project", "decode", "likelihood") for name in ("rna", "protein")
}


def tiny(**settings: object) -> Speed:
    timing = Timing(epochs=2, batch_size=32, parts=True)
    given = {"timing": timing, "n_cells": 90, "n_features": (70, 12), **settings}
    return Speed(**given)  # type: ignore[arg-type]


def times_of(kind: type[Timed], speed: Speed, folder: Path) -> Times:
    """Through the files that a worker reads and writes."""
    speed.task(0).write_input(folder, options={})
    method = kind(SpeedInput.read(folder))
    method.fit()
    (answer,) = method.predict().values()
    answer.write(folder / "times.npz")
    assert method.details()["n_steps"] == answer.n_steps
    return Times.read(folder / "times.npz")


@pytest.mark.parametrize("density", [0.02, 0.3])
def test_simulated_density(density: float) -> None:
    types = np.arange(600) % 3
    counts = sparse_counts(types, 400, density, np.random.default_rng(0))
    assert counts.shape == (600, 400)
    assert counts.nnz / (600 * 400) == pytest.approx(density, rel=0.1)
    assert counts.has_canonical_format or counts.data.min() >= 1


def test_mosaicvi_is_timed(tmp_path: Path) -> None:
    times = times_of(TimedMosaicVI, tiny(), tmp_path)
    assert len(times.epochs) == 2
    assert (times.batch_size, times.n_steps) == (32, 3)
    assert times.n_cells == 81  # nine of ten of them train; the last minibatch is not full
    assert set(times.parts) == PARTS
    scores = times.scores()
    assert scores["epoch"]["cpu"] >= scores["epoch"]["train_cpu"] > 0
    assert scores["part_sums"].keys() == {"load", "project", "encode", "decode", "likelihood"}
    assert scores["whole"] is None


def test_peers_are_timed(tmp_path: Path) -> None:
    for kind, second in ((TimedTotalVI, "protein"), (TimedMultiVI, "atac")):
        folder = tmp_path / second
        folder.mkdir()
        times = times_of(kind, tiny(modalities=("rna", second)), folder)
        assert len(times.epochs) == 2
        assert times.n_steps == 3
        assert times.n_cells == 81
        assert times.parts == {}


def test_cells_of_scglue_are_those_of_its_minibatches() -> None:
    class Trainer:
        def train_step(self, engine: object, data: object) -> None: ...
        def report_metrics(self, train: object, validation: object) -> None: ...

    model, epochs, steps, cells = timing(type("Model", (), {"TRAINER_TYPE": Trainer}))
    trainer = model.TRAINER_TYPE()
    for size in (32, 32, 17):
        trainer.train_step(None, [np.zeros((size, 2)), np.zeros((5, 2))])
    trainer.report_metrics(None, None)
    assert (len(epochs), steps[0], cells[0]) == (1, 3, 81)


def test_an_absent_modality_is_skipped(tmp_path: Path) -> None:
    speed = tiny(missing=0.6)
    assert speed.task(0).describe()["n_cells"] == {"rna": 90, "protein": 36}
    assert set(times_of(TimedMosaicVI, speed, tmp_path).parts) == PARTS


def test_unpaired_cells_share_no_name_and_get_a_graph() -> None:
    task = tiny(modalities=("rna", "atac"), n_features=(40, 80), unpaired=True).task(0)
    first, second = task.public.given.mdata.mod.values()
    assert not set(first.obs_names) & set(second.obs_names)
    assert task.public.given.graph.n_edges == 80
    assert not task.public.paired
    assert tiny().task(0).public.paired


def test_a_real_data_set_gives_its_paired_cells() -> None:
    speed = Speed(data="pbmc_mosaic", n_cells=50)
    described = speed.task(1).describe()
    assert described["n_cells"] == {"rna": 50, "protein": 50}
    assert described["n_features"] == {"rna": 500, "protein": 224}


def arguments(*words: str) -> object:
    return command._parser().parse_args(["speed", *words])


def test_the_grid_is_every_combination() -> None:
    found = _speed_command.grid(
        arguments("--cells", "10,20", "--genes", "30", "--density", ".1,.2",
                  "--batch-size", "default,64"), {}
    )  # fmt: skip
    assert len(found) == 8
    assert len({each.setting for each in found}) == 8
    assert {each.timing.batch_size for each in found} == {None, 64}
    with pytest.raises(RequestError, match="comma-separated numbers"):
        _speed_command.grid(arguments("--cells", "many"), {})
    with pytest.raises(RequestError, match="positive sizes"):
        _speed_command.grid(arguments("--density", "0"), {})


def test_methods_that_suit_and_are_installed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = arguments("--peaks", "50", "--unpaired")
    speed = _speed_command.grid(given, {})
    monkeypatch.setattr(timed, "find_spec", lambda name: None if name == "scglue" else name)
    monkeypatch.setattr(logging.getLogger("mosaicvi"), "propagate", True)
    assert _speed_command.chosen_methods(given, speed) == ["mosaicvi"]
    assert "pip install 'mosaicvi[benchmark]'" in caplog.text
    with pytest.raises(RequestError, match="totalvy"):
        _speed_command.chosen_methods(arguments("--methods", "totalvy"), speed)
    both = ("expression", "protein")
    assert timed.suiting(both, paired=True, complete=True) == ["mosaicvi", "totalvi"]
    assert timed.suiting(both, paired=True, complete=False) == ["mosaicvi"]


def record(method: str, cells: int, seconds: float) -> dict[str, object]:
    epoch = Epoch(Lap(seconds, 2 * seconds), Lap(0.5, 0.5))
    parts = {"load": 1.0, "decode/rna": 2.0, "decode/protein": 3.0}
    times = Times(Lap(1.0, 1.0), [epoch] * 3, cells, 128, 7, parts=parts)
    speed = Speed(n_cells=cells)
    return {
        "schema": "mosaicvi.bm/1",
        "comparison": "speed",
        "method": method,
        "setting": speed.setting,
        "settings": speed.describe(),
        "seed": 0,
        "scores": times.scores(),
        "task": {
            "n_cells": {"rna": cells, "protein": cells},
            "n_features": {"rna": 10, "protein": 5},
            "density": {"rna": 0.1, "protein": 0.5},
        },
        "details": {"batch_size": 128},
        "peak_memory_mib": 100.0,
    }


def test_ratios_are_to_mosaicvi_on_the_same_cells() -> None:
    records = [record("mosaicvi", 10, 1.0), record("totalvi", 10, 4.0), record("totalvi", 20, 9.0)]
    first, second = comparison_table(records).split("\n\n")
    row = next(line.split() for line in first.splitlines() if line.startswith("totalvi"))
    header = first.splitlines()[1]
    assert "ratio" in header
    assert row[2] == "4.500"
    assert row[4] == "3.0"  # (4 + .5) / (1 + .5)
    assert "decode ms" in header
    assert "5.000" in row
    assert "ratio" not in second  # no row of mosaicvi to compare with


@pytest.mark.parametrize("cells", [(10,), (10, 20)])
def test_the_plot_is_written(cells: tuple[int, ...], tmp_path: Path) -> None:
    records = [record(method, n, n / 10) for n in cells for method in ("mosaicvi", "totalvi")]
    _speed_plot.draw(records, tmp_path / "new" / "speed.png")
    assert (tmp_path / "new" / "speed.png").stat().st_size > 5_000


@pytest.mark.parametrize(("cells", "labelled"), [((10,), "x"), ((10, 20), "y")])
def test_times_of_parts_are_labelled_on_their_own_axis(
    cells: tuple[int, ...], labelled: str
) -> None:
    axis = Figure().subplots()
    varied = None if len(cells) == 1 else "cells"
    _speed_plot._parts(axis, [record("mosaicvi", n, n / 10) for n in cells], varied)
    labels = {"x": axis.get_xlabel(), "y": axis.get_ylabel()}
    assert [name for name, text in labels.items() if "milliseconds" in text] == [labelled]


def test_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    speed = tiny(timing=Timing(device="cuda", epochs=1))
    with pytest.raises(RequestError, match="no CUDA device"):
        times_of(TimedMosaicVI, speed, tmp_path)


@pytest.mark.gpu
def test_on_a_gpu(tmp_path: Path) -> None:
    times = times_of(TimedMosaicVI, tiny(timing=Timing(device="cuda", epochs=1)), tmp_path)
    assert times.device_mib is not None
    assert times.device_mib > 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--modalities rna,protein", ["totalvi"]),
        ("--modalities rna,atac", ["multivi"]),
        ("--modalities gex,adt", []),
        ("--modalities gex,adt --likelihood adt=nb_mixture", ["totalvi"]),
        ("--modalities gex,peaks --likelihood peaks=bernoulli", ["multivi"]),
        ("--modalities atac,rna", []),
    ],
)
def test_peers_are_those_of_the_assays(words: str, expected: list[str]) -> None:
    """Names of modalities are the user's; what they hold is said by likelihoods."""
    given = arguments("--data", "cells.h5mu", *words.split())
    chosen = dict(pair.split("=") for pair in given.likelihood)  # type: ignore[attr-defined]
    speed = _speed_command.grid(given, chosen)
    assert _speed_command.chosen_methods(given, speed) == ["mosaicvi", *expected]
