"""Whether refined posteriors say more of modalities that they were not inferred from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mosaicvi.factor._sampler import FactorSampler

LEAST_CELLS = 30
"""Validation cells with several modalities below which nothing is said."""

MOST_CELLS = 1000
N_DRAWS = 16
CELLS_AT_ONCE = 256


def refinement_gains(
    plain: FactorSampler, refined: FactorSampler, cells: np.ndarray, names: Sequence[str]
) -> dict[str, float]:
    """What is gained by refining the posterior of a cell that shows one modality alone.

    Parameters
    ----------
    plain, refined
        Samplers of the same cells, with the encoder's posteriors and with refined ones.
    cells
        Cells that trained nothing; those with several modalities are asked.
    names
        Modalities to infer factors from.

    Returns
    -------
    Modality to the mean over cells of what refinement adds to the log-probability of their other
    modalities, in nats; a modality with too few cells is left out.
    """
    presence = plain.data.presence[cells]
    gains = {}
    for name in names:
        heard = presence[:, list(plain.data.modalities).index(name)]
        rows = cells[heard & (presence.sum(1) >= 2)]
        if len(rows) < LEAST_CELLS:
            continue
        if len(rows) > MOST_CELLS:
            rng = np.random.default_rng(plain.seed)
            rows = np.sort(rng.choice(rows, MOST_CELLS, replace=False))
        before, after = (_others(each, rows, name) for each in (plain, refined))
        gains[name] = float((after - before).mean())
    return gains


@torch.no_grad()
def _others(sampler: FactorSampler, cells: np.ndarray, name: str) -> np.ndarray:
    """Log-probability of all modalities but one, given that one, in nats, ``(n_cells,)``."""
    module = sampler.module
    weights = module.draw_feature_embeddings(N_DRAWS, sampler.seed)
    found = np.zeros(len(cells))
    for chunk in sampler.latent(cells, (name,), n_cells=CELLS_AT_ONCE, with_values=True):
        z = sampler.draw_latent(chunk, N_DRAWS)
        total = z.new_zeros(N_DRAWS, len(chunk.places))
        for other, part in chunk.batch.modalities.items():
            if other != name:
                log_prob = module.reconstruct(other, z, chunk.batch, linked=weights[other])
                total.index_add_(1, part.positions, log_prob)
        found[chunk.places] = (torch.logsumexp(total, 0) - math.log(N_DRAWS)).cpu().numpy()
    return found
