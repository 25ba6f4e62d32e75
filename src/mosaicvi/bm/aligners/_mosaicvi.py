"""The package's own model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mosaicvi.bm._alignment_input import (
    DOUBT,
    EDGES,
    OWN,
    PLACES,
    SHARED,
    VARIANCE,
    Embedding,
    Floats,
)
from mosaicvi.bm._input import BATCH
from mosaicvi.bm.aligners._base import Aligner
from mosaicvi.bm.aligners._features import turned
from mosaicvi.bm.methods._mosaicvi import sort_options
from mosaicvi.model._counterparts import doubt_between
from mosaicvi.tl._latents import unimodal_cells

EDGE_ENDS = ["source_modality", "source", "target_modality", "target"]
NOT_ALIGNED = (
    "no pairs were given and the graph has no edges, so nothing ties the modalities: each has a "
    "latent space of its own here, and scores across them mean nothing"
)


class MosaicVIAligner(Aligner):
    """MosaicVI at its defaults, or with ``--option``.

    It learns from the pairs that are given, from the graph, and from every cell by itself. A cell's
    latent is that from its own modality, under the same fixed rotation as the other methods'.
    Without pairs and without edges it cannot align, and the record says so.
    """

    name = "mosaicvi"
    packages = ("scvi-tools", "torch")

    def fit(self) -> None:
        """Set up and train."""
        linked = self.task.graph.n_edges > 0
        self.tied = linked or self.task.n_pairs > 0
        self.kind = "" if self.tied else "unaligned"
        from mosaicvi.model import MosaicVI  # not at the top: the table of methods stays light

        options = sort_options(dict(self.task.options))
        mdata = self.task.mdata
        setup = {"modalities": self.task.likelihoods, "batch_key": BATCH, **options["setup"]}
        MosaicVI.setup_mudata(mdata, **setup)
        arguments = {
            "graph": self.task.graph if linked else None,
            "alignment": "auto" if self.tied else "none",
            "seed": self.task.seed,
            **options["model"],
        }
        self._model = MosaicVI(mdata, **arguments)
        self._fit_result = self._model.train(**options["train"])

    def predict(self) -> dict[str, Embedding]:
        """Posterior means from the cell's own modality."""
        mdata, latents = self.task.mdata, {}
        for name in self.task.modalities:
            rows = mdata.obs_names.get_indexer(mdata.mod[name].obs_names)
            latent = self._model.get_latent_representation(indices=rows, from_modalities=[name])
            latents[name] = turned(np.asarray(latent, dtype=np.float64))
        wanted = {key: self._wanted(key) for key in self.task.wanted if key != PLACES}
        if PLACES in self.task.wanted:
            wanted |= self._places()
        return {"": Embedding(latents, wanted)}

    def _places(self) -> dict[str, Floats]:
        """What alignment confidence and labels read besides the latents."""
        mdata, tables = self.task.mdata, self._model.counterparts
        found = {DOUBT: np.array(doubt_between(tables, *self.task.modalities))}
        for name in self.task.modalities:
            cells = unimodal_cells(self._model, name, None, key="modalities")
            order = pd.Index(cells.names).get_indexer(mdata.mod[name].obs_names)
            found[SHARED + name] = cells.places.shared[order]
            found[OWN + name] = cells.places.own[order]
            found[VARIANCE + name] = cells.places.variance[order]
        return found

    def _wanted(self, key: str) -> Floats:
        """Confidence of edges, or a modality imputed as the batches that measured it show it."""
        if key == EDGES:
            table = self._model.get_edge_confidence()
            found = table.set_index(EDGE_ENDS)["confidence"]
            asked = pd.MultiIndex.from_frame(self.task.graph.to_pandas()[EDGE_ENDS])
            return np.asarray(found.loc[asked], dtype=np.float64)
        mdata = self.task.mdata
        (evidence,) = (name for name in self.task.modalities if name != key)
        answer = self._model.impute(
            key,
            [evidence],
            indices=mdata.obs_names.get_indexer(mdata.mod[evidence].obs_names),
            transform_batch=sorted(set(self.task.batch(key))),
        )
        return np.asarray(answer.layers["log1p_mean"], dtype=np.float64)

    def details(self) -> dict[str, Any]:
        """Epochs trained, pairs learnt from, and whether the modalities are tied at all."""
        result, n_pairs = self._fit_result, self.task.n_pairs
        return {
            "epochs": result.n_epochs,
            "best_epoch": result.best_epoch,
            "status": result.status,
            "n_pairs": n_pairs,
            "aligned": self.tied,
            **({} if self.tied else {"note": NOT_ALIGNED}),
        }
