"""From registered data to a factor network: checks, sizes, frozen projections."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components

from mosaicvi._errors import MosaicviWarning, RequestError, check_whole
from mosaicvi.factor._build import FactorSpec, build_factor_module
from mosaicvi.factor._gene_sets import check_names, match_sets, set_prior
from mosaicvi.model import _answers
from mosaicvi.model._construct import fit_once, modality_size
from mosaicvi.model._inputs import measured_table, project, target_sum

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mosaicvi.data import MosaicData
    from mosaicvi.factor._factor_module import FactorModule
    from mosaicvi.factor._gene_sets import Members
    from mosaicvi.graph._gene_sets import GeneSets

WIDTH_A_FACTOR = 2
WIDTH_RANGE = (30, 64)
"""Width of the frozen projections: so many components a factor, within these bounds."""


def check_factors(data: MosaicData, n_free: int, n_named: int) -> None:
    """Refuse more factors, free and named ones, than the data can hold.

    Raises
    ------
    RequestError
        If there are more factors than cells or features, or it is no number of factors.
    """
    check_whole(n_free, "n_factors", 0 if n_named else 1)
    n_factors = n_free + n_named
    n_features = sum(modality.n_features for modality in data.modalities.values())
    most = min(data.n_cells, n_features)
    if n_factors > most:
        raise RequestError(
            f"found {n_factors} for {data.n_cells} cells and {n_features} features",
            key="n_factors",
            expected=f"a whole number from 1 to {most}",
            remedy="factors that explain nothing are removed after training: 10 to 30 will do",
        )


def warn_apart(data: MosaicData) -> None:
    """Tell of modalities that no cells tie to the others: their factors are not the same ones."""
    held = data.presence.astype(np.int64)
    _n_groups, label = connected_components(held.T @ held > 0, directed=False)
    groups = [np.flatnonzero(label == each) for each in np.unique(label)]
    if len(groups) < 2:
        return
    modalities = list(data.modalities)
    named = [" with ".join(repr(modalities[k]) for k in group) for group in groups]
    warnings.warn(
        f"no cell ties these modalities to each other: {'; '.join(named)}. FactorVI aligns "
        "modalities by the cells that hold both, so factors of one are not those of another, and "
        "answers about one from another are no better than chance. Remedy: MosaicVI with graph= "
        "(mosaicvi.graph.from_names, from_coordinates or from_table) aligns modalities without "
        "shared cells; if they are of the same cells, give these one name in both and build the "
        "MuData anew.",
        MosaicviWarning,
        stacklevel=3,
    )


def warn_lacking(data: MosaicData, training: np.ndarray) -> None:
    """Tell of modalities that no training cell holds."""
    held = data.presence[training].any(0)
    lacking = [name for name, any_cell in zip(data.modalities, held, strict=True) if not any_cell]
    if lacking:
        warnings.warn(
            f"no training cell holds {', '.join(map(repr, lacking))}: factors do not act there, "
            "and answers about it are averages of its cells. Remedy: indices= and train_size= that "
            "leave it some, or setup_mudata() without it.",
            MosaicviWarning,
            stacklevel=3,
        )


def find_members(
    data: MosaicData, gene_sets: GeneSets | None, modality: str | None
) -> Members | None:
    """Members of gene sets among the registered features; None without sets.

    Raises
    ------
    RequestError
        If the modality is unknown, or a set has a name that it cannot have.
    DataError
        If no feature is a member of a set.
    """
    if gene_sets is None:
        return None
    if modality is not None:
        _answers.check_modality(modality, tuple(data.modalities), key="gene_set_modality")
    features = {name: part.var_names for name, part in data.modalities.items()}
    members = match_sets(gene_sets, features, modality)
    check_names(members)
    return members


def nonnegative_names(given: bool | Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Modalities whose weights are at least zero; True: all.

    Raises
    ------
    RequestError
        If a modality is unknown.
    """
    if isinstance(given, bool | np.bool_):
        return known if given else ()
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        _answers.check_modality(name, known, key="nonnegative")
    return names


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
