"""The package's own model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaicvi.bm._input import BATCH
from mosaicvi.bm.methods._mosaicvi import sort_options
from mosaicvi.bm.timed._base import Timed
from mosaicvi.bm.timed._clock import EpochClock

if TYPE_CHECKING:
    from mosaicvi.bm._speed_input import Epoch


class TimedMosaicVI(Timed):
    """MosaicVI at its defaults, or with ``--option``; with the graph where cells are unpaired."""

    name = "mosaicvi"

    def prepare(self) -> None:
        """Sort the options."""
        self._options = sort_options(dict(self.task.given.options))

    def build(self) -> None:
        """Set up and build."""
        from mosaicvi.model import MosaicVI  # not at the top: the table of methods stays light

        given = self.task.given
        setup = {"modalities": given.likelihoods, "batch_key": BATCH, **self._options["setup"]}
        MosaicVI.setup_mudata(given.mdata, **setup)
        graph = given.graph if given.graph.n_edges else None
        self._model = MosaicVI(
            given.mdata, **{"graph": graph, "seed": given.seed, **self._options["model"]}
        )
        self._model._cells(None)

    def train(self, epochs: int) -> tuple[list[Epoch], int, int]:
        """Train for some epochs, under the clock."""
        clock = EpochClock()
        self._model.train(
            epochs,
            batch_size=self.batch_size,
            early_stopping=False,
            accelerator=self.accelerator,
            enable_progress_bar=False,
            callbacks=[clock],
            **self._options["train"],
        )
        return clock.epochs, clock.n_steps, clock.n_cells

    def train_by_default(self) -> int:
        """Train as the model does by default."""
        result = self._model.train(
            accelerator=self.accelerator, enable_progress_bar=False, **self._options["train"]
        )
        return result.n_epochs

    def parts(self) -> dict[str, float]:
        """Parts of a step."""
        from mosaicvi.bm.timed._parts import step_parts

        return step_parts(self._model, self.batch_size, self.task.timing.device)
