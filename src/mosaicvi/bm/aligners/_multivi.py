"""MultiVI of scvi-tools, for a given time."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from lightning.pytorch import Callback

from mosaicvi._errors import RequestError
from mosaicvi.bm._alignment_input import Embedding
from mosaicvi.bm._input import BATCH
from mosaicvi.bm._load import combine
from mosaicvi.bm.aligners._base import Aligner
from mosaicvi.bm.aligners._features import turned
from mosaicvi.bm.aligners._peers import PEAKS, PROTEIN, RNA, assays, with_defaults

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from mudata import MuData

LAYERS = {RNA: "rna_layer", PEAKS: "atac_layer", PROTEIN: "protein_layer"}
MODALITY, PAIRED = "modality", "paired"
MAX_EPOCHS = 500
DEFAULTS = {"minutes": 2.0, "max_epochs": MAX_EPOCHS}
"""Options: minutes of processor time after which training ends (None: never; default: what a fit of
mosaicvi takes on all cells of ``snareseq_cortex``), and its own number of epochs. Training ends
earlier where its own early stopping does."""
NO_PAIRS = (
    "no pairs were given, and MultiVI knows no feature graph: nothing says which cells belong "
    "together, only an adversary that makes the modalities look alike; scores across them mean "
    "little"
)


class TimeLimit(Callback):
    """End training once the process has spent so much processor time on it.

    Parameters
    ----------
    seconds
        Of processor time, all threads together, which other work on the machine does not inflate.
        None: no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds, self._start = seconds, time.process_time()
        self.reached = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Look at the clock."""
        spent = time.process_time() - self._start
        if self._seconds is not None and spent >= self._seconds:
            self.reached = trainer.should_stop = True


class MultiVIAligner(Aligner):
    """MultiVI :cite:p:`ashuach2023` at its defaults, for at most some minutes of processor time.

    As its documentation says, what a cell was measured by (one modality, the other, or both) is the
    batch that its adversary mixes, and the batch of the data a categorical covariate. What a cell
    lacks is padded with zeros, which is how MultiVI is told that it is missing. A cell's latent is
    that of its own modality's encoder. MultiVI has no use for a feature graph: without pairs the
    row is marked ``unaligned``.
    """

    name = "multivi"
    packages = ("scvi-tools", "torch")

    def _padded(self) -> MuData:
        """Both modalities with a row for every cell, zeros where it was not measured."""
        task, cells = self.task, self.task.mdata.obs_names
        tables, held = {}, {}
        for name in task.modalities:
            own = task.mdata.mod[name]
            rows = own.obs_names.get_indexer(cells)
            held[name] = rows >= 0
            counts = sp.csr_matrix(own.X, dtype=np.float32)
            nothing = sp.csr_matrix((1, own.n_vars), dtype=np.float32)
            tables[name] = AnnData(
                sp.csr_matrix(sp.vstack([counts, nothing]))[np.where(held[name], rows, own.n_obs)],
                pd.DataFrame(index=cells),
                pd.DataFrame(index=own.var_names),
            )
        first, second = task.modalities
        measured = np.where(
            held[first] & held[second], PAIRED, np.where(held[first], first, second)
        )
        batch = task.mdata.obs[BATCH].to_numpy().astype(str)
        return combine(tables, pd.DataFrame({MODALITY: measured, BATCH: batch}, index=cells))

    def fit(self) -> None:
        """Pad, set up and train."""
        task = self.task
        options = with_defaults(self.name, task.options, DEFAULTS)
        self._assays = assays(task)
        if len(set(self._assays.values())) < 2 or RNA not in self._assays.values():
            raise RequestError(
                f"MultiVI joins no {' with '.join(self._assays.values())}",
                key="modalities",
                expected="expression with accessibility or with protein",
            )
        self.kind = "" if task.n_pairs else "unaligned"
        import scvi  # not at the top: the table of methods stays light

        scvi.settings.seed = task.seed
        self._mdata, minutes = self._padded(), options["minutes"]
        self._limit = TimeLimit(None if minutes is None else 60.0 * float(minutes))
        one_batch = len(self._mdata.obs[BATCH].unique()) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scvi.model.MULTIVI.setup_mudata(
                self._mdata,
                batch_key=MODALITY,
                categorical_covariate_keys=None if one_batch else [BATCH],
                modalities={LAYERS[assay]: name for name, assay in self._assays.items()},
            )
            self._model = scvi.model.MULTIVI(self._mdata)
            self._model.train(
                max_epochs=int(options["max_epochs"]),
                callbacks=[self._limit],
                enable_progress_bar=False,
            )
        self._options = options

    def predict(self) -> dict[str, Embedding]:
        """Means of each modality's own encoder."""
        latents = {}
        for name, assay in self._assays.items():
            rows = self._mdata.obs_names.get_indexer(self.task.mdata.mod[name].obs_names)
            latent = self._model.get_latent_representation(modality=assay, indices=rows)
            latents[name] = turned(np.asarray(latent, dtype=np.float64))
        return {"": Embedding(latents)}

    def details(self) -> dict[str, Any]:
        """Epochs trained and what ended them, pairs learnt from, and the options."""
        epochs = int(self._model.trainer.current_epoch)
        ended = "early stopping" if epochs < self._options["max_epochs"] else "epochs"
        return {
            "epochs": epochs,
            "ended_by": "time" if self._limit.reached else ended,
            "n_pairs": self.task.n_pairs,
            "options": self._options,
            **({} if self.task.n_pairs else {"note": NO_PAIRS}),
        }
