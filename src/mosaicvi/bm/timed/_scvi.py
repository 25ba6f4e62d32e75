"""Models of scvi-tools: their own ``train`` under the clock."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from mosaicvi.bm.timed._base import Timed
from mosaicvi.bm.timed._clock import EpochClock

if TYPE_CHECKING:
    from mosaicvi.bm._speed_input import Epoch


class TimedScvi(Timed):
    """A model of scvi-tools at its defaults on paired cells."""

    @abstractmethod
    def make(self) -> Any:
        """Set up the data and build the model."""

    def build(self) -> None:
        """Set up and build, as quietly as training."""
        import scvi

        scvi.settings.seed = self.task.given.seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._model = self.make()

    def _run(self, **settings: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._model.train(
                accelerator=self.accelerator, devices=1, enable_progress_bar=False,
                **self.task.given.options, **settings,
            )  # fmt: skip

    def train(self, epochs: int) -> tuple[list[Epoch], int, int]:
        """Train for some epochs, under the clock."""
        clock = EpochClock()
        self._run(max_epochs=epochs, batch_size=self.batch_size, callbacks=[clock])
        return clock.epochs, clock.n_steps, clock.n_cells

    def train_by_default(self) -> int:
        """Train as the package does by default, early stopping included."""
        self._run()
        return len(self._model.history["elbo_train"])
