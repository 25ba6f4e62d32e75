"""From registered data to a factor network: checks, sizes, frozen projections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from mosaicvi._errors import RequestError
from mosaicvi.factor._build import FactorSpec, build_factor_module
from mosaicvi.factor._gene_sets import set_prior
from mosaicvi.model._construct import fit_once, modality_size
from mosaicvi.model._inputs import measured_table, project, target_sum

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mosaicvi.data import MosaicData
    from mosaicvi.factor._factor_module import FactorModule
    from mosaicvi.factor._gene_sets import Members

WIDTH_A_FACTOR = 2
WIDTH_RANGE = (30, 64)
"""Width of the frozen projections: so many components a factor, within these bounds."""


def check_factors(data: MosaicData, n_factors: int) -> None:
    """Refuse more factors than the data can hold.

    Raises
    ------
    RequestError
        If there are more factors than cells or features.
    """
    n_features = sum(modality.n_features for modality in data.modalities.values())
    most = min(data.n_cells, n_features)
    if n_factors % 1 or not 1 <= n_factors <= most:
        raise RequestError(
            f"found {n_factors} for {data.n_cells} cells and {n_features} features",
            key="n_factors",
            expected=f"a whole number from 1 to {most}",
            remedy="factors that explain nothing are removed after training: 10 to 30 will do",
        )


def construct_factors(
    data: MosaicData,
    factors: Sequence[str],
    *,
    groups: Sequence[str],
    nonnegative: Sequence[str],
    members: Members | None = None,
    seed: int,
) -> tuple[FactorSpec, FactorModule]:
    """Build the network for registered data.

    Parameters
    ----------
    data
        Registered data.
    factors
        Names of the factors.
    groups
        Names of the groups.
    nonnegative
        Modalities whose weights are at least zero.
    members
        Gene sets of the first factors.
    seed
        Seed of the projections.
    """
    width = int(np.clip(WIDTH_A_FACTOR * len(factors), *WIDTH_RANGE))
    sums = {name: target_sum(modality) for name, modality in data.modalities.items()}
    projections, starts = {}, {}
    for name, modality in data.modalities.items():
        projections[name], starts[name] = fit_once(modality, width, sums[name], seed)
    sizes = {
        name: modality_size(data, name, projections[name], sums[name]) for name in data.modalities
    }
    spec = FactorSpec(
        modalities=sizes,
        factors=tuple(factors),
        groups=tuple(groups),
        nonnegative=tuple(nonnegative),
        informed=() if members is None else members.names,
        n_categories=tuple(len(c) for c in data.categorical_categories),
        n_continuous=0 if data.continuous is None else data.continuous.shape[1],
    )
    measured = {
        name: torch.as_tensor(measured_table(modality, sizes[name].n_batches))
        for name, modality in data.modalities.items()
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_factor_module(
            spec, projections=projections, starts=starts, measured=measured
        )
    if members is not None:
        set_prior(module, members)
    return spec, module


def factor_inputs(
    data: MosaicData, spec: FactorSpec, module: FactorModule
) -> Mapping[str, np.ndarray]:
    """Frozen projection of every modality, ``(n_modality_cells, n_inputs)``."""
    return {
        name: project(modality, module.projections[name], spec.modalities[name].target_sum)
        for name, modality in data.modalities.items()
    }
