"""Embeddings without biology: what a score must be held against."""

from __future__ import annotations

import numpy as np

from mosaicvi.bm._alignment_input import Embedding, Floats
from mosaicvi.bm._encodings import standardise
from mosaicvi.bm.aligners._base import Aligner


def log_depth(task_counts: Floats) -> Floats:
    """Standardised log1p of the total counts of each cell, ``(n_cells, 1)``."""
    return standardise(np.log1p(task_counts)[:, None])


class Trivial(Aligner):
    """One embedding a modality, nothing to learn."""

    kind = "trivial"

    def fit(self) -> None:
        """Nothing to learn."""

    def latent(self, modality: str) -> Floats:
        """Embedding of a modality's cells, ``(n_cells, n_latent)``."""
        raise NotImplementedError

    def predict(self) -> dict[str, Embedding]:
        """Embed both modalities."""
        return {"": Embedding({name: self.latent(name) for name in self.task.modalities})}

    def depth(self, modality: str) -> Floats:
        """Standardised log depth, ``(n_cells, 1)``."""
        return log_depth(np.asarray(self.task.counts(modality).sum(axis=1)).ravel())


class Constant(Trivial):
    """Every cell in one place: FOSCTTM is .5, mixing perfect, leakage none."""

    name = "constant"

    def latent(self, modality: str) -> Floats:
        """Zeros, ``(n_cells, 1)``."""
        return np.zeros((self.task.mdata.mod[modality].n_obs, 1))


class Depth(Trivial):
    """Log depth alone: cells with many molecules of one kind have many of the other."""

    name = "depth"

    def latent(self, modality: str) -> Floats:
        """Log depth, ``(n_cells, 1)``."""
        return self.depth(modality)


class BatchDepth(Trivial):
    """Batch, one dimension each, and log depth: both are shared by the two sides of a cell."""

    name = "batch_depth"

    def latent(self, modality: str) -> Floats:
        """Indicators of all batches and log depth, ``(n_cells, n_batches + 1)``."""
        names = np.unique(self.task.mdata.obs["batch"].to_numpy().astype(str))
        batch = self.task.batch(modality)[:, None] == names[None, :]
        return np.hstack([batch.astype(np.float64), self.depth(modality)])
