"""MultiVI of scvi-tools."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from mosaicvi.bm._input import BATCH
from mosaicvi.bm.aligners._multivi import LAYERS
from mosaicvi.bm.aligners._peers import assays
from mosaicvi.bm.timed._base import Timed
from mosaicvi.bm.timed._clock import EpochClock

if TYPE_CHECKING:
    from mosaicvi.bm._speed_input import Epoch


class TimedMultiVI(Timed):
    """MultiVI at its defaults on paired cells."""

    name = "multivi"

    def prepare(self) -> None:
        """Data are as its users have them."""

    def build(self) -> None:
        """Set up and build."""
        import scvi

        given = self.task.given
        scvi.settings.seed = given.seed
        layers = {LAYERS[assay]: name for name, assay in assays(given).items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scvi.model.MULTIVI.setup_mudata(given.mdata, batch_key=BATCH, modalities=layers)
            self._model = scvi.model.MULTIVI(given.mdata)

    def _run(self, **settings: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._model.train(
                accelerator=self.accelerator, devices=1, enable_progress_bar=False,
                **self.task.given.options, **settings,
            )  # fmt: skip

    def train(self, epochs: int) -> tuple[list[Epoch], int]:
        """Train for some epochs, under the clock."""
        clock = EpochClock()
        self._run(max_epochs=epochs, batch_size=self.batch_size, callbacks=[clock])
        return clock.epochs, clock.n_steps

    def train_by_default(self) -> int:
        """Train as the package does by default, early stopping included."""
        self._run()
        return int(self._model.trainer.current_epoch)
