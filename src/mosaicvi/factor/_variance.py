"""How much of the deviance of held-out cells each factor explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from mosaicvi._types import as_dense
from mosaicvi.factor._head_slope import shown_entries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.factor._sampler import FactorSampler

N_BOOTSTRAP = 200
CELLS_AT_ONCE = 512


@torch.no_grad()
def cell_deviances(
    sampler: FactorSampler,
    indices: np.ndarray,
    from_modalities: tuple[str, ...],
) -> dict[str, np.ndarray]:
    """Deviance of each cell under no factor, all factors, each factor alone, and all but each.

    Returns
    -------
    Modality to array ``(n_cells, 2 + 2 * n_factors)``: without factors, with all, with each one,
    with all others; NaN where the modality is absent. Continuous values are scaled a feature, so
    that each counts alike.
    """
    module = sampler.module
    n_factors = module.n_latent
    shape = (len(indices), 2 + 2 * n_factors)
    eye = torch.eye(n_factors, device=module.device)
    found = {name: np.full(shape, np.nan) for name in module.modalities}
    linked = module.feature_embeddings()
    for chunk in sampler.latent(indices, from_modalities, n_cells=CELLS_AT_ONCE, with_values=True):
        z = chunk.posterior.mean
        settings = [torch.zeros_like(z), z, *(z * one for one in eye), *(z * (1 - o) for o in eye)]
        design = module.design(chunk.batch)
        for name, part in chunk.batch.modalities.items():
            decoder = module.decoders[name]
            values = part.values
            dense = as_dense(values)
            panel = part.measured(decoder.panel(part.batch))
            shown = shown_entries(decoder, part)
            scale = torch.ones((), device=z.device)
            if not decoder.likelihood.is_count and "log_scale" in decoder.feature_parameters:
                scale = (-2 * decoder.feature_parameters["log_scale"]).exp()
            own = chunk.places[part.positions.cpu().numpy()]
            for column, point in enumerate(settings):
                parameters = decoder.distribution(
                    point[part.positions],
                    part.batch,
                    part.library_size if decoder.likelihood.uses_library_size else None,
                    covariates=None if design is None else design[part.positions],
                    panel=panel,
                    linked=linked[name],
                )
                entries = decoder.likelihood.deviance(dense, parameters) * scale
                if shown is not None:
                    entries = torch.where(shown, entries, 0.0)
                found[name][own, column] = entries.sum(-1).cpu().numpy()
    return found


def explained(deviances: np.ndarray) -> np.ndarray:
    """``1 - D / D_null`` of the sums over cells, for all columns but the first; at most one."""
    total = np.nansum(deviances, axis=0)
    return np.asarray(1 - total[1:] / max(total[0], 1e-12))


def most_explained(table: pd.DataFrame, factors: tuple[str, ...]) -> pd.DataFrame:
    """The larger of what a factor explains alone and what it adds to all others.

    Alone a factor may explain nothing that explains much beside others, where heads are not linear
    in the mean: shares of counts add up to one.

    Parameters
    ----------
    table
        As :func:`variance_table` returns.
    factors
        Names of the factors.

    Returns
    -------
    DataFrame of factors x modalities, the largest value of all groups.
    """
    single = table[table["factor"].isin(factors)]
    single = single.assign(most=single[["r2", "added"]].max(axis=1))
    best = single.pivot_table(index="factor", columns="modality", values="most", aggfunc="max")
    return best.loc[list(factors)]


def variance_table(
    deviances: Mapping[str, np.ndarray],
    factors: tuple[str, ...],
    groups: np.ndarray,
    *,
    seed: int,
) -> pd.DataFrame:
    """Deviance R2 by modality, group and factor, with 95 % bootstrap intervals over cells.

    Parameters
    ----------
    deviances
        As :func:`cell_deviances` returns.
    factors
        Names of the factors.
    groups
        Group of each cell.
    seed
        Seed of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    rows, n_factors = [], len(factors)
    names = ["all factors", *factors]
    for modality, table in deviances.items():
        for group in sorted(set(groups.tolist())):
            cells = np.flatnonzero((groups == group) & np.isfinite(table[:, 0]))
            if not len(cells):
                continue
            alone = 2 + n_factors
            whole = explained(table[cells])
            added = [np.nan, *(whole[0] - whole[1 + n_factors :])]
            own, values = table[cells][:, :alone], whole[: 1 + n_factors]
            draws = np.stack(
                [
                    explained(own[rng.integers(len(cells), size=len(cells))])
                    for _ in range(N_BOOTSTRAP)
                ]
            )
            low, high = np.quantile(draws, [0.025, 0.975], axis=0)
            rest = values[0] - np.maximum(values[1:], 0).sum()
            for number, name in enumerate([*names, "not additive"]):
                last = number == len(names)
                rows.append(
                    {
                        "modality": modality,
                        "group": group,
                        "factor": name,
                        "r2": rest if last else values[number],
                        "low": np.nan if last else low[number],
                        "high": np.nan if last else high[number],
                        "added": np.nan if last else added[number],
                        "n_cells": len(cells),
                    }
                )
    return pd.DataFrame(rows)
