"""GLUE (scglue) as its tutorials run it, on the task's own features and graph."""

from __future__ import annotations

import tempfile
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from mosaicvi._errors import RequestError
from mosaicvi.bm._alignment_input import Embedding
from mosaicvi.bm._input import BATCH
from mosaicvi.bm.aligners._base import Aligner
from mosaicvi.bm.aligners._features import turned
from mosaicvi.bm.aligners._peers import PEAKS, PROTEIN, RNA, assays, with_defaults

if TYPE_CHECKING:
    import networkx as nx

N_COMPONENTS = 100
COUNTS, COMPONENTS, LSI = "counts", "X_pca", "X_lsi"
NORMAL = "Normal"
DEFAULTS = {"max_epochs": None, "protein": "NBMixture"}
"""Options: epochs of each of the two stages (None: as the package finds for the number of cells),
and the distribution of antibodies: ``"NBMixture"`` of counts, or ``"Normal"`` of centred logs."""


def imported() -> Any:
    """The package, which is optional.

    Raises
    ------
    RequestError
        If it is not installed.
    """
    try:
        return import_module("scglue")
    except ImportError as error:
        raise RequestError(
            f"the package scglue cannot be imported ({error})",
            expected="scglue 0.4 or later",
            remedy="install it with pip install scglue, or pip install 'mosaicvi[benchmark]'",
        ) from error


def guidance(graph: nx.Graph) -> nx.Graph:
    """The graph with a loop of weight and sign one at every feature, as GLUE wants it."""
    made = graph.copy()
    made.add_edges_from((node, node, {"weight": 1.0, "sign": 1, "type": "loop"}) for node in graph)
    return made


def counting(model: Any) -> tuple[Any, list[int]]:
    """A model class whose trainer notes the epochs of each stage, and the list it notes in."""
    epochs: list[int] = []

    class CountingTrainer(model.TRAINER_TYPE):
        def report_metrics(self, train_state: Any, val_state: Any) -> None:
            if train_state.epoch == 1:
                epochs.append(0)
            epochs[-1] = int(train_state.epoch)
            super().report_metrics(train_state, val_state)

    return type(model.__name__, (model,), {"TRAINER_TYPE": CountingTrainer}), epochs


class ScglueAligner(Aligner):
    """GLUE :cite:p:`cao2022` at its defaults, with ``use_batch``.

    As in the package's tutorials: RNA is read through 100 principal components of scaled log counts
    and peaks through 100 of LSI, both modelled as ``NB`` counts; antibodies are read and modelled
    as counts of ``NBMixture`` (the option ``scglue.protein=Normal``: components and normal
    distribution of scaled centred logs, the tutorial's other way). It is fitted in two stages with
    balancing weights in between. Where pairs are given it is the package's ``PairedSCGLUEModel``,
    which knows them by the names of cells. All features of the task are used, none selected.
    """

    name = "scglue"
    packages = ("scglue", "scanpy", "torch")

    def prepare(self) -> dict[str, AnnData]:
        """Both tables with what the encoders read, configured."""
        scglue = imported()
        self._options = with_defaults(self.name, self.task.options, DEFAULTS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {
                modality: self._table(scglue, modality, assay)
                for modality, assay in assays(self.task).items()
            }

    def fit(self) -> None:
        """Prepare both tables, configure, and fit both stages."""
        scglue, task = imported(), self.task
        self._tables = self.prepare()
        self.kind = "" if task.graph.n_edges or task.n_pairs else "unaligned"
        name = "PairedSCGLUEModel" if task.n_pairs else "SCGLUEModel"
        model, self._epochs = counting(getattr(scglue.models, name))
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            training: dict[str, Any] = {"directory": folder}
            if self._options["max_epochs"] is not None:
                training["max_epochs"] = int(self._options["max_epochs"])
            self._model = scglue.models.fit_SCGLUE(
                self._tables,
                guidance(task.graph.to_networkx()),
                model=model,
                init_kws={"random_seed": task.seed},
                fit_kws=training,
            )
        self._check_weights()

    def _check_weights(self) -> None:
        """Refuse a fit without balancing weights: the package carries on with NaN.

        Raises
        ------
        RequestError
            If no clusters of the two modalities were alike after the first stage.
        """
        weights = [table.obs["balancing_weight"].to_numpy() for table in self._tables.values()]
        if not all(np.isfinite(values).all() for values in weights):
            raise RequestError(
                "scglue found no clusters of the modalities that are alike after its first stage, "
                "so its balancing weights are NaN, and its fit is too",
                key="scglue.max_epochs",
                remedy="more epochs, or none given",
            )

    def _table(self, scglue: Any, modality: str, assay: str) -> AnnData:
        """Counts of a modality with the representation that its encoder reads, configured."""
        own = self.task.mdata.mod[modality]
        table = AnnData(
            sp.csr_matrix(own.X, dtype=np.float32),
            pd.DataFrame({BATCH: self.task.batch(modality)}, index=own.obs_names),
            pd.DataFrame(index=[f"{modality}:{feature}" for feature in own.var_names]),
        )
        table.layers[COUNTS] = table.X.copy()
        prepare = {
            RNA: self._prepare_rna,
            PEAKS: self._prepare_peaks,
            PROTEIN: self._prepare_protein,
        }
        distribution, layer, representation = prepare[assay](scglue, table)
        scglue.models.configure_dataset(
            table,
            distribution,
            use_highly_variable=False,
            use_layer=layer,
            use_rep=representation,
            use_batch=BATCH,
            use_obs_names=self.task.n_pairs > 0,
        )
        return table

    def _components(self, table: AnnData) -> str:
        """Principal components of scaled values."""
        import scanpy as sc

        n_kept = min(N_COMPONENTS, min(table.shape) - 1)
        scaled = sc.pp.scale(table, copy=True)
        sc.tl.pca(scaled, n_comps=n_kept, svd_solver="auto", random_state=self.task.seed)
        table.obsm[COMPONENTS] = scaled.obsm[COMPONENTS]
        return COMPONENTS

    def _prepare_rna(self, scglue: Any, table: AnnData) -> tuple[str, str | None, str | None]:
        import scanpy as sc

        sc.pp.normalize_total(table)
        sc.pp.log1p(table)
        return "NB", COUNTS, self._components(table)

    def _prepare_peaks(self, scglue: Any, table: AnnData) -> tuple[str, str | None, str | None]:
        n_kept = min(N_COMPONENTS, min(table.shape) - 1)
        scglue.data.lsi(table, n_components=n_kept, n_iter=15, random_state=self.task.seed)
        # a cell without fragments in these peaks has no direction: zero over zero there
        table.obsm[LSI] = np.nan_to_num(table.obsm[LSI])
        return "NB", COUNTS, LSI

    def _prepare_protein(self, scglue: Any, table: AnnData) -> tuple[str, str | None, str | None]:
        if self._options["protein"] != NORMAL:
            return str(self._options["protein"]), COUNTS, None
        import muon
        import scanpy as sc

        muon.prot.pp.clr(table)
        sc.pp.scale(table)
        return NORMAL, None, self._components(table)

    def predict(self) -> dict[str, Embedding]:
        """Means of the encoders."""
        latents = {
            name: turned(np.asarray(self._model.encode_data(name, table), dtype=np.float64))
            for name, table in self._tables.items()
        }
        return {"": Embedding(latents)}

    def details(self) -> dict[str, Any]:
        """Epochs of both stages together and each, pairs learnt from, and the options."""
        return {
            "epochs": sum(self._epochs),
            "epochs_of_stages": list(self._epochs),
            "n_pairs": self.task.n_pairs,
            "distributions": {
                name: table.uns["__scglue__"]["prob_model"] for name, table in self._tables.items()
            },
            "options": self._options,
        }
