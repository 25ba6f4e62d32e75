"""The package's own model."""

from __future__ import annotations

from typing import Any

import numpy as np

from mosaicvi.bm._alignment_input import Embedding
from mosaicvi.bm._input import BATCH
from mosaicvi.bm.aligners._base import Aligner
from mosaicvi.bm.methods._mosaicvi import sort_options

NOT_ALIGNED = (
    "no pairs were given, and the model ties modalities by pairs alone: each modality has a latent "
    "space of its own here, and scores across them mean nothing"
)


class MosaicVIAligner(Aligner):
    """MosaicVI at its defaults, or with ``--option``.

    It learns from the pairs that are given, and from every other cell by itself. A cell's latent is
    that from its own modality. Without pairs it cannot align, and the record says so.
    """

    name = "mosaicvi"
    packages = ("scvi-tools", "torch")

    def fit(self) -> None:
        """Set up and train."""
        self.kind = "" if self.task.n_pairs else "unaligned"
        from mosaicvi.model import MosaicVI  # not at the top: the table of methods stays light

        options = sort_options(dict(self.task.options))
        mdata = self.task.mdata
        setup = {"modalities": self.task.likelihoods, "batch_key": BATCH, **options["setup"]}
        MosaicVI.setup_mudata(mdata, **setup)
        self._model = MosaicVI(
            mdata, graph=self.task.graph, **{"seed": self.task.seed, **options["model"]}
        )
        self._fit_result = self._model.train(**options["train"])

    def predict(self) -> dict[str, Embedding]:
        """Posterior means from the cell's own modality."""
        mdata, latents = self.task.mdata, {}
        for name in self.task.modalities:
            rows = mdata.obs_names.get_indexer(mdata.mod[name].obs_names)
            latents[name] = np.asarray(
                self._model.get_latent_representation(indices=rows, from_modalities=[name]),
                dtype=np.float64,
            )
        return {"": Embedding(latents)}

    def details(self) -> dict[str, Any]:
        """Epochs trained, pairs learnt from, and whether the modalities are tied at all."""
        result, n_pairs = self._fit_result, self.task.n_pairs
        return {
            "epochs": result.n_epochs,
            "best_epoch": result.best_epoch,
            "status": result.status,
            "n_pairs": n_pairs,
            "aligned": n_pairs > 0,
            **({} if n_pairs else {"note": NOT_ALIGNED}),
        }
