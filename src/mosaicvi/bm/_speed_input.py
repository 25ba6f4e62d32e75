"""What a method sees of a timing, and what it answers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi.bm._alignment_input import AlignmentInput

if TYPE_CHECKING:
    from pathlib import Path

_TIMING = "timing.json"


@dataclass(frozen=True)
class Timing:
    """What is to be timed.

    Parameters
    ----------
    device
        ``"cpu"`` or ``"cuda"``.
    batch_size
        Cells of a minibatch; None: each method's own default.
    epochs
        Epochs that are timed, after one that is not.
    whole
        Whether a fit at the method's defaults is timed too.
    parts
        Whether the parts of a step are timed, by methods that can say.
    """

    device: str = "cpu"
    batch_size: int | None = None
    epochs: int = 5
    whole: bool = False
    parts: bool = False


@dataclass(frozen=True)
class SpeedInput:
    """Cells of two modalities, and what to time.

    Parameters
    ----------
    given
        Data, graph, likelihoods, seed and options. Cells that bear one name in both modalities are
        pairs.
    timing
        What to time.
    """

    given: AlignmentInput
    timing: Timing

    @property
    def paired(self) -> bool:
        """Whether every cell has both modalities, in the same order."""
        first, second = (self.given.mdata.mod[name] for name in self.given.modalities)
        return first.n_obs == second.n_obs and bool((first.obs_names == second.obs_names).all())

    def write(self, folder: Path) -> None:
        """Write to a folder, for :meth:`read`."""
        self.given.write(folder)
        (folder / _TIMING).write_text(json.dumps(asdict(self.timing)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> SpeedInput:
        """Read what :meth:`write` wrote."""
        timing = Timing(**json.loads((folder / _TIMING).read_text(encoding="utf-8")))
        return cls(AlignmentInput.read(folder), timing)


@dataclass(frozen=True)
class Lap:
    """Seconds of a piece of work.

    Parameters
    ----------
    wall
        On the clock.
    cpu
        Of processor time of the process, all threads together.
    """

    wall: float
    cpu: float

    def __sub__(self, other: Lap) -> Lap:
        return Lap(self.wall - other.wall, self.cpu - other.cpu)

    def __add__(self, other: Lap) -> Lap:
        return Lap(self.wall + other.wall, self.cpu + other.cpu)


@dataclass(frozen=True)
class Epoch:
    """One epoch, its validation apart."""

    train: Lap
    validation: Lap


@dataclass(frozen=True)
class Times:
    """What a method answers.

    Parameters
    ----------
    build
        From data to a model that can be trained.
    epochs
        Timed epochs.
    n_cells, batch_size, n_steps
        Cells and steps of the training part of an epoch, and the size of a minibatch.
    whole, whole_epochs
        A fit at the method's defaults, the model included, and its epochs; None: not asked for.
    parts
        Median milliseconds of processor time of the parts of a step.
    device_mib
        Largest memory allocated on the device, in MiB; None on the CPU.
    """

    build: Lap
    epochs: list[Epoch]
    n_cells: int
    batch_size: int
    n_steps: int
    whole: Lap | None = None
    whole_epochs: int | None = None
    parts: dict[str, float] = field(default_factory=dict)
    device_mib: float | None = None

    def write(self, path: Path) -> None:
        """Write as ``.npz`` that holds one text, JSON."""
        np.savez(path, times=np.array(json.dumps(asdict(self))))

    @classmethod
    def read(cls, path: Path) -> Times:
        """Read what :meth:`write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            found: dict[str, Any] = json.loads(str(file["times"]))
        found["build"] = Lap(**found["build"])
        found["epochs"] = [
            Epoch(Lap(**each["train"]), Lap(**each["validation"])) for each in found["epochs"]
        ]
        if found["whole"] is not None:
            found["whole"] = Lap(**found["whole"])
        return cls(**found)

    def scores(self) -> dict[str, Any]:
        """Medians over epochs, and what follows from them."""

        def median(values: list[float]) -> float:
            return float(np.median(values))

        whole = [each.train + each.validation for each in self.epochs]
        train_wall = median([each.train.wall for each in self.epochs])
        train_cpu = median([each.train.cpu for each in self.epochs])
        return {
            "epoch": {
                "wall": median([each.wall for each in whole]),
                "cpu": median([each.cpu for each in whole]),
                "train_wall": train_wall,
                "train_cpu": train_cpu,
            },
            "step_ms": 1000 * train_cpu / max(self.n_steps, 1),
            "cells_per_second": self.n_cells / max(train_wall, 1e-9),
            "build": asdict(self.build),
            "whole": None
            if self.whole is None
            else {**asdict(self.whole), "epochs": self.whole_epochs},
            "parts": self.parts,
            "part_sums": self._part_sums(),
            "device_mib": self.device_mib,
        }

    def _part_sums(self) -> dict[str, float]:
        """Parts over all modalities."""
        sums: dict[str, float] = {}
        for name, milliseconds in self.parts.items():
            kind = name.partition("/")[0]
            sums[kind] = sums.get(kind, 0.0) + milliseconds
        return sums
