"""totalVI of scvi-tools."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from mosaicvi.bm._input import BATCH
from mosaicvi.bm.timed._base import Timed
from mosaicvi.bm.timed._clock import EpochClock

if TYPE_CHECKING:
    from mosaicvi.bm._speed_input import Epoch


class TimedTotalVI(Timed):
    """totalVI at its defaults on paired cells: RNA sparse, protein dense, as its tutorial has."""

    name = "totalvi"
    default_batch_size = 256

    def prepare(self) -> None:
        """Make the protein dense."""
        given = self.task.given
        self._mdata = given.mdata
        protein = self._mdata.mod[given.modalities[1]]
        protein.X = protein.X.toarray()

    def build(self) -> None:
        """Set up and build."""
        import scvi

        given = self.task.given
        scvi.settings.seed = given.seed
        layers = dict(zip(("rna_layer", "protein_layer"), given.modalities, strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scvi.model.TOTALVI.setup_mudata(self._mdata, batch_key=BATCH, modalities=layers)
            self._model = scvi.model.TOTALVI(self._mdata)

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
        return len(self._model.history["elbo_train"])
