"""totalVI of scvi-tools."""

from __future__ import annotations

from typing import Any

from mosaicvi.bm._input import BATCH
from mosaicvi.bm.timed._scvi import TimedScvi


class TimedTotalVI(TimedScvi):
    """totalVI at its defaults on paired cells: RNA sparse, protein dense, as its tutorial has."""

    name = "totalvi"
    default_batch_size = 256

    def prepare(self) -> None:
        """Make the protein dense."""
        given = self.task.given
        protein = given.mdata.mod[given.modalities[1]]
        protein.X = protein.X.toarray()

    def make(self) -> Any:
        """Set up the data and build the model."""
        from scvi.model import TOTALVI

        given = self.task.given
        layers = dict(zip(("rna_layer", "protein_layer"), given.modalities, strict=True))
        TOTALVI.setup_mudata(given.mdata, batch_key=BATCH, modalities=layers)
        return TOTALVI(given.mdata)
