"""Training cells as if sequenced less deeply, so that encoders know cells that were.

An encoder that has seen one depth takes the noise of shallower cells for biology: of a third of the
counts, as another laboratory or another run has them, it is as sure as of all. So some of the
cells of a minibatch are read as binomially thinned copies (shares from :data:`LEAST_SHARE` to one,
evenly in the log); what is decoded are their counts as measured. Log depth stays the cell's own: a
query of another depth is read beside its own median (:mod:`~mosaicvi.nn._familiar_depth`), so
that what a copy shows is other noise at the same rank of depth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch

from mosaicvi.data._thinned import Thinned, ThinnedInputs
from mosaicvi.model._cells import name_keys
from mosaicvi.model._inputs import project

if TYPE_CHECKING:
    from mosaicvi.data._mosaic_data import ModalityData
    from mosaicvi.data._stored import Rows
    from mosaicvi.model._cells import PreparedData
    from mosaicvi.module._build import ModuleSpec
    from mosaicvi.module._mosaic_module import MosaicModule

LIKELIHOODS = {"nb", "zinb"}
"""Of regions and antibodies nothing was measured."""

LEAST_SHARE = 0.15
"""Share of its counts that a copy keeps at least."""

MOST_CELLS = 50_000
"""Cells that have a copy at most: enough to learn from, and few to project and hold."""


class Thinning:
    """Draws binomially thinned counts, the same for a seed however they are stored.

    Parameters
    ----------
    share
        Share of its counts that each row keeps on average, ``(n_rows,)``.
    seed
        Seed of the draws.
    """

    def __init__(self, share: np.ndarray, seed: int) -> None:
        self._share, self._seed = share, seed

    def __call__(self, values: Rows, part: slice) -> sp.csr_matrix:
        """Thinned counts of the rows that ``part`` takes."""
        counts = sp.csr_matrix(values, copy=True)
        rng = np.random.default_rng([self._seed, part.start])
        share = np.repeat(self._share[part], np.diff(counts.indptr))
        whole = np.rint(counts.data).astype(np.int64)
        counts.data = rng.binomial(whole, share).astype(counts.data.dtype)
        counts.eliminate_zeros()
        return counts


def thinned_inputs(
    prepared: PreparedData,
    spec: ModuleSpec,
    module: MosaicModule,
    training: np.ndarray,
    *,
    share: float,
    seed: int,
) -> ThinnedInputs | None:
    """Encoder inputs of thinned training cells; None where no modality has any.

    Parameters
    ----------
    prepared
        Registered data and encoder inputs.
    spec
        Sizes.
    module
        The network.
    training
        Training cells, rows of the MuData.
    share
        Share of the cells of a minibatch that are read so; 0: none.
    seed
        Seed of the cells, of their counts and of when they are read.
    """
    if not share:
        return None
    found = {
        name: _thinned(prepared, name, spec, module, training, seed)
        for name, modality in prepared.data.modalities.items()
        if _may_be_thinned(modality, module)
    }
    return ThinnedInputs(found, share, seed) if found else None


def _may_be_thinned(modality: ModalityData, module: MosaicModule) -> bool:
    return (
        modality.spec.likelihood in LIKELIHOODS
        and modality.representation is None
        and modality.name not in module.aligned
        and modality.name not in module.muted
    )


def _thinned(
    prepared: PreparedData,
    name: str,
    spec: ModuleSpec,
    module: MosaicModule,
    training: np.ndarray,
    seed: int,
) -> Thinned:
    modality, projection = prepared.data.modalities[name], module.projections[name]
    rng = np.random.default_rng([seed, 3])
    cells = np.sort(training[modality.rows[training] >= 0])
    if len(cells) > MOST_CELLS:
        cells = np.sort(rng.permutation(cells)[:MOST_CELLS])
    rows = modality.rows[cells]
    share = np.exp(rng.uniform(np.log(LEAST_SHARE), 0.0, len(rows)))
    inputs = project(
        modality,
        projection,
        spec.modalities[name].target_sum,
        module.predictors[name],
        name_keys(prepared.data.obs_names[cells]),
        rows=rows,
        thin=Thinning(share, seed),
    )
    depth = int(projection.scale.shape[0])
    inputs[:, depth] = prepared.dataset.encoder_inputs[name][rows, depth]
    places = np.full(prepared.data.n_cells, -1)
    places[cells] = np.arange(len(cells))
    return Thinned(torch.from_numpy(inputs), torch.from_numpy(places))
