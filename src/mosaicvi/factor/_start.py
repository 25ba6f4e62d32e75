"""Starting values of a factor model: components, then weights by a few Newton steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mosaicvi.factor._components import Components, View, fit_components, varimax
from mosaicvi.factor._head_slope import head_slope
from mosaicvi.factor._named import named_rotation

if TYPE_CHECKING:
    from mosaicvi.data import MultiDataset
    from mosaicvi.factor._factor_module import FactorModule
    from mosaicvi.factor._gene_sets import Members

N_NEWTON = 6
NEWTON_CELLS = 1024
MAX_NEWTON_CELLS = 20_000
LARGEST_STEP = 1.0
RIDGE = 1.0
"""Precision of a weight's prior at the start."""


def start_module(
    module: FactorModule,
    dataset: MultiDataset,
    indices: np.ndarray,
    *,
    seed: int,
    members: Members | None = None,
) -> None:
    """Put the experts and the weights where training starts, in place.

    Parameters
    ----------
    module
        The network.
    dataset
        Cells with their frozen projections.
    indices
        Training cells.
    seed
        Seed of the start.
    members
        Gene sets that the first factors start from.

    Notes
    -----
    A modality that none of the cells holds says nothing of where factors lie: its expert stays as
    it is, and its weights start at zero.
    """
    data = dataset.data
    place = np.full(data.n_cells, -1, dtype=np.int64)
    place[indices] = np.arange(len(indices))
    views: dict[str, View] = {}
    for name, modality in data.modalities.items():
        rows = np.flatnonzero(place[modality.cells] >= 0)
        if not len(rows):
            continue
        width = module.recognition[name].loadings.shape[0]
        n_batches = module.recognition[name].centres.shape[0]
        views[name] = View(
            dataset.encoder_inputs[name][rows, :width].astype(np.float64),
            place[modality.cells[rows]],
            modality.batch[rows],
            n_batches,
        )
    held = [name in views for name in data.modalities]
    found = fit_components(views, data.presence[indices][:, held], module.n_latent, seed=seed)
    found.rotate(_rotation(module, found, members, seed))
    _fill_experts(module, found)
    z = torch.as_tensor(found.scores, dtype=torch.float32)
    chosen = np.arange(len(indices))
    if len(indices) > MAX_NEWTON_CELLS:
        generator = np.random.default_rng(seed)
        chosen = np.sort(generator.choice(len(indices), MAX_NEWTON_CELLS, replace=False))
    fit_weights(module, dataset, indices[chosen], z[chosen], len(indices))


def _rotation(
    module: FactorModule, found: Components, members: Members | None, seed: int
) -> np.ndarray:
    """Varimax of the loadings of all features, each modality counting alike, after named factors.

    Named factors are those that stand out for their sets (:mod:`~mosaicvi.factor._named`). Factors
    point to where modalities of non-negative weights mostly rise: what falls is clipped away.
    """
    parts = {}
    for name, loadings in found.loadings.items():
        projection = module.projections[name]
        scale = projection.scale.cpu().numpy()[:, None]
        components = projection.components.cpu().numpy()
        features = components @ (loadings * scale) if components.shape[1] else loadings
        parts[name] = features / max(np.linalg.norm(features), 1e-9)
    together = np.concatenate(list(parts.values()))
    if members is None or members.modality not in parts:
        rotation = varimax(together)
    else:
        rotation = named_rotation(together, parts[members.modality], members, seed=seed)
    rise = np.zeros(rotation.shape[1])
    for name, features in parts.items():
        if module.weights[name].nonnegative:
            turned = features @ rotation
            rise += (turned * np.abs(turned)).sum(0)
    return np.asarray(rotation * np.where(rise < 0, -1.0, 1.0))


@torch.no_grad()
def _fill_experts(module: FactorModule, found: Components) -> None:
    for name, loadings in found.loadings.items():
        expert = module.recognition[name]
        expert.loadings.copy_(torch.as_tensor(loadings))
        expert.centres.copy_(torch.as_tensor(found.centres[name]))
        expert.log_noise.fill_(float(np.log(found.noise[name])))
        if expert.has_depth:
            # Counting noise falls with depth: its precision rises with half the log, about.
            expert.precision[1] = 0.5 * module.projections[name].depth[1]


@torch.no_grad()
def fit_weights(
    module: FactorModule,
    dataset: MultiDataset,
    indices: np.ndarray,
    z: Tensor,
    n_train: int,
) -> None:
    """Weights given factors, by Newton steps on the mean head with the empirical information.

    Every likelihood gives its gradient by the head; its square, averaged over cells, is the
    information about a feature. Works for any likelihood of the table.
    """
    shape = {n: w.loc.shape for n, w in module.weights.items()}
    current = {n: torch.zeros(s) for n, s in shape.items()}
    information: dict[str, Tensor] = {}
    for step in range(N_NEWTON):
        gradient = {n: torch.zeros(s) for n, s in shape.items()}
        square = {n: torch.zeros(s) for n, s in shape.items()}
        for first in range(0, len(indices), NEWTON_CELLS):
            rows = slice(first, first + NEWTON_CELLS)
            batch = dataset.fetch(indices[rows])
            for name, part in batch.modalities.items():
                own = z[rows][part.positions]
                slope = head_slope(module.decoders[name], part, own, current[name]).heads
                gradient[name] += slope.T @ own
                square[name] += slope.square().T @ own.square()
        for name in current:
            scale = n_train / max(len(indices), 1)
            information[name] = square[name] * scale
            wanted = (gradient[name] * scale - RIDGE * current[name]) / (information[name] + RIDGE)
            current[name] += (wanted * (0.7 if step else 1.0)).clamp(-LARGEST_STEP, LARGEST_STEP)
            current[name].clamp_(-4, 4)
    for name, weights in module.weights.items():
        found = current[name].clamp_min(0.0) if weights.nonnegative else current[name]
        weights.loc.copy_(found)
        weights.log_scale.copy_(-0.5 * (information[name] + RIDGE).log())
        weights.slab_variance.copy_(found.square().mean(0).clamp_min(1e-3))
        weights.settle()
