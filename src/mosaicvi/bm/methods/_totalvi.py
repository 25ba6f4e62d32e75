"""totalVI of scvi-tools at its own defaults."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from mosaicvi.bm._input import BATCH, Prediction
from mosaicvi.bm._load import combine
from mosaicvi.bm.methods._base import Method

if TYPE_CHECKING:
    from mudata import MuData
    from numpy.typing import NDArray

MISSING = "unmeasured"
MINIBATCH = 256


def _counts(protein: dict[str, torch.Tensor]) -> NDArray[np.float32]:
    """Counts of the mixture of background and foreground, one a row of the parameters."""
    from scvi.distributions import NegativeBinomialMixture

    mixture = NegativeBinomialMixture(
        mu1=protein["rate_back"],
        mu2=protein["rate_fore"],
        theta1=protein["r"],
        mixture_logits=protein["mixing"],
    )
    return np.asarray(mixture.sample().cpu().numpy(), dtype=np.float32)


class TotalVIMethod(Method):
    """totalVI (Gayoso et al. 2021) as scvi-tools' tutorial imputes protein with it.

    Query cells are a batch of their own whose protein is all zero, which is how totalVI is told
    that it is missing; everything else, early stopping and the number of epochs included, is its
    default. Cells without RNA cannot be given to it.

    Draws come from its generative model, decoded as a batch that measured protein, with mixing and
    count noise. scvi-tools trains the two protein means times a learnt efficiency of the batch
    (``log_per_batch_efficiency``), but its ``posterior_predictive_sample`` and
    ``get_normalized_expression`` leave that factor out, which shifts the scale. The answer scored
    first has the factor, so it is the distribution that was trained; the variant
    ``own_sampler`` leaves it out, as scvi-tools' getters do.
    """

    name = "totalvi"
    packages = ("scvi-tools", "torch")

    def _padded(self) -> MuData:
        task = self.task
        cells = (*task.paired, *self._unmeasured)
        protein = np.zeros((len(cells), len(task.features)), dtype=np.float32)
        protein[: len(task.paired)] = task.counts(task.target, task.paired).toarray()
        batches = task.labels(BATCH, cells).astype(object)
        batches[len(task.paired) :] += f"_{MISSING}"
        tables = {task.source: task.counts(task.source, cells), task.target: protein}
        modalities = {}
        for name, values in tables.items():
            modalities[name] = AnnData(values)
            modalities[name].obs_names = list(cells)
            modalities[name].var_names = task.mdata.mod[name].var_names
        modalities[task.source].obs[BATCH] = batches
        return combine(modalities, pd.DataFrame(index=list(cells)))

    def fit(self) -> None:
        """Pad, set up and train."""
        import scvi

        task = self.task
        scvi.settings.seed = task.seed
        known = set(task.paired)
        self._unmeasured = tuple(
            name for name in task.mdata.mod[task.source].obs_names if name not in known
        )
        mdata = self._padded()
        layers = {
            "rna_layer": task.source,
            "protein_layer": task.target,
            "batch_key": task.source,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scvi.model.TOTALVI.setup_mudata(mdata, batch_key=BATCH, modalities=layers)
            self._model = scvi.model.TOTALVI(mdata)
            self._model.train(**task.options)
        self._mdata = mdata

    def _measured_batches(self) -> list[int]:
        names = list(self._model.adata_manager.get_state_registry("batch")["categorical_mapping"])
        return [code for code, name in enumerate(names) if not str(name).endswith(f"_{MISSING}")]

    @torch.inference_mode()
    def _sample(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Draws with and without the efficiency, ``(n_draws, n_query, n_features)`` each."""
        from scvi.dataloaders import AnnDataLoader

        torch.manual_seed(self.task.seed)
        module, batches = self._model.module.eval(), self._measured_batches()
        rows = self._mdata.obs_names.get_indexer(list(self.task.query))
        loader = AnnDataLoader(
            self._model.adata_manager, indices=rows, shuffle=False, batch_size=MINIBATCH
        )
        # where several batches measured protein, each decodes its share of the draws
        shares = np.array_split(np.arange(self.task.n_draws), len(batches))
        parts: dict[str, list[NDArray[np.float32]]] = {"py_norm_": [], "py_": []}
        for tensors in loader:
            drawn: dict[str, list[NDArray[np.float32]]] = {"py_norm_": [], "py_": []}
            for batch, share in zip(batches, shares, strict=True):
                if share.size == 0:
                    continue
                _, generated = module.forward(
                    tensors,
                    inference_kwargs={"n_samples": int(share.size)},
                    generative_kwargs={"transform_batch": batch},
                    compute_loss=False,
                )
                for key, blocks in drawn.items():
                    counts = _counts(generated[key])
                    blocks.append(counts.reshape(share.size, -1, counts.shape[-1]))
            for key, blocks in drawn.items():
                parts[key].append(np.concatenate(blocks, axis=0))
        trained, own = (np.concatenate(blocks, axis=1) for blocks in parts.values())
        return trained, own

    def predict(self) -> dict[str, Prediction]:
        """Draws with, and as a variant without, the efficiency of the batch."""
        trained, own = self._sample()
        return {"": Prediction(trained), "own_sampler": Prediction(own)}

    def details(self) -> dict[str, Any]:
        """Epochs trained, and the median efficiency that its own sampler leaves out."""
        table = self._model.module.log_per_batch_efficiency.detach().cpu().numpy()
        factors = np.exp(table[:, self._measured_batches()])
        epochs = len(self._model.history["elbo_train"])
        return {"epochs": epochs, "median_efficiency": float(np.median(factors))}
