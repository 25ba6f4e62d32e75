"""GLUE (scglue)."""

from __future__ import annotations

import tempfile
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi.bm._speed_input import Epoch, Lap
from mosaicvi.bm.aligners._scglue import ScglueAligner, guidance, imported
from mosaicvi.bm.timed._base import Timed
from mosaicvi.bm.timed._clock import now

if TYPE_CHECKING:
    from mosaicvi.bm._speed_input import SpeedInput


def timing(model: Any) -> tuple[Any, list[Epoch], list[int], list[int]]:
    """A model class whose trainer times epochs, the times, and steps and cells of each so far."""
    epochs: list[Epoch] = []
    steps, cells = [0], [0]
    marks: dict[str, Lap] = {}

    class TimingTrainer(model.TRAINER_TYPE):
        def train_step(self, engine: Any, data: Any) -> Any:
            if "start" not in marks:
                marks["start"] = now()
            steps[-1] += 1
            cells[-1] += len(data[0])
            return super().train_step(engine, data)

        def val_step(self, engine: Any, data: Any) -> Any:
            if "validation" not in marks:
                marks["validation"] = now()
            return super().val_step(engine, data)

        def report_metrics(self, train_state: Any, val_state: Any) -> None:
            end = now()
            middle = marks.get("validation", end)
            epochs.append(Epoch(middle - marks["start"], end - middle))
            super().report_metrics(train_state, val_state)
            marks.clear()
            marks["start"] = end
            steps.append(0)
            cells.append(0)

    return type(model.__name__, (model,), {"TRAINER_TYPE": TimingTrainer}), epochs, steps, cells


class TimedScglue(Timed):
    """GLUE at its defaults; epochs are those of its first stage, which cost what the others do.

    Components, which its encoders read, count to the time of building.
    """

    name = "scglue"
    packages = ("scglue", "scanpy", "torch")

    def __init__(self, task: SpeedInput) -> None:
        super().__init__(task)
        self._aligner = ScglueAligner(task.given)

    def prepare(self) -> None:
        """Choose the device."""
        imported().config.CPU_ONLY = self.task.timing.device == "cpu"
        self._graph = guidance(self.task.given.graph.to_networkx())

    def build(self) -> None:
        """Components of both modalities, and the model."""
        scglue = imported()
        self._tables = self._aligner.prepare()
        model, self._epochs_so_far, self._steps, self._cells = timing(scglue.models.SCGLUEModel)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._model = model(
                self._tables, sorted(self._graph.nodes), random_seed=self.task.given.seed
            )
            self._model.compile()

    def train(self, epochs: int) -> tuple[list[Epoch], int, int]:
        """Train for some epochs of the first stage, under the clock."""
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            self._model.fit(
                self._tables, self._graph, align_burnin=np.inf, safe_burnin=False,
                data_batch_size=self.batch_size, max_epochs=epochs, directory=folder,
            )  # fmt: skip
        return self._epochs_so_far, self._steps[0], self._cells[0]

    def train_by_default(self) -> int:
        """Fit both stages as the package does by default, components included."""
        self._aligner.fit()
        return int(self._aligner.details()["epochs"])

    def whole(self) -> int:
        """The package's own function does all of it."""
        return self.train_by_default()
