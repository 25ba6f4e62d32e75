"""MultiVI of scvi-tools."""

from __future__ import annotations

from typing import Any

from mosaicvi.bm._input import BATCH
from mosaicvi.bm.aligners._multivi import LAYERS
from mosaicvi.bm.aligners._peers import assays
from mosaicvi.bm.timed._scvi import TimedScvi


class TimedMultiVI(TimedScvi):
    """MultiVI at its defaults on paired cells."""

    name = "multivi"

    def prepare(self) -> None:
        """Data are as its users have them."""

    def make(self) -> Any:
        """Set up the data and build the model."""
        from scvi.model import MULTIVI

        given = self.task.given
        layers = {LAYERS[assay]: name for name, assay in assays(given).items()}
        MULTIVI.setup_mudata(given.mdata, batch_key=BATCH, modalities=layers)
        return MULTIVI(given.mdata)
