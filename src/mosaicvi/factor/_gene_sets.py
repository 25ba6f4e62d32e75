"""Gene sets as priors of factors: which features a named factor is expected to act on."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy.stats import hypergeom

from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi.factor._weights import INSIDE, OUTSIDE
from mosaicvi.graph._gene_sets import GeneSets, read_sets
from mosaicvi.graph._match import check_species
from mosaicvi.graph._modality import name_index, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.factor._factor_module import FactorModule

RESERVED = r"factor\d+|all factors|not additive"
"""Names that a set cannot have."""

MIN_MEMBERS = 3
"""Sets with fewer members among the features are left out."""

STRONG = 0.2
"""Share of a factor's largest weight from which a feature counts as one that it acts on."""

CHANCE = 0.01
"""Probability of as many members among the strong features by chance, above which the data do not
bear a name out."""

LEAST_EXPLAINED = 0.001
"""Deviance R2 in the modality of its genes, alone or beside all others, below which a factor has no
name: whatever its weights are, it says nothing of the genes that it would be named after."""


@dataclass(frozen=True)
class Members:
    """Which features of a modality belong to which set.

    Attributes
    ----------
    modality
        Modality whose features are genes.
    names
        Sets, in the order of their factors.
    table
        Bool ``(n_features, n_sets)``.
    """

    modality: str
    names: tuple[str, ...]
    table: np.ndarray


def match_sets(
    gene_sets: GeneSets,
    features: Mapping[str, tuple[str, ...]],
    modality: str | None,
    *,
    least: int = MIN_MEMBERS,
) -> Members:
    """Find the members of gene sets among registered features.

    Parameters
    ----------
    gene_sets
        As :func:`mosaicvi.graph.from_gene_sets` takes them.
    features
        Modality to its features.
    modality
        Modality whose features are genes; None: the one with most members.
    least
        Sets with fewer members than this are left out.

    Raises
    ------
    DataError
        If no set has members among the features, or they agree only when case is ignored.
    """
    sets = read_sets(gene_sets)
    known = name_index(sorted({gene for genes in sets.values() for gene in genes}))
    if modality is None:
        found = {name: int(known.isin(own).sum()) for name, own in features.items()}
        modality = max(found, key=lambda name: found[name])
    names = name_index(features[modality])
    check_species(names, known, modality=modality, source="the gene sets")
    place = {name: number for number, name in enumerate(names)}
    members = {
        name: [place[gene] for gene in genes if gene in place] for name, genes in sets.items()
    }
    _check_sets(members, sets, names, modality, least)
    kept = tuple(name for name, found in members.items() if len(found) >= least)
    table = np.zeros((len(names), len(kept)), dtype=bool)
    for column, name in enumerate(kept):
        table[members[name], column] = True
    return Members(modality, kept, table)


def check_names(members: Members) -> None:
    """Refuse sets that have the name of a free factor, or of a row of the variance explained.

    Raises
    ------
    RequestError
        Says which.
    """
    taken = [name for name in members.names if re.fullmatch(RESERVED, name)]
    if taken:
        raise RequestError(
            f"sets are called {shown(taken)}",
            key="gene_sets",
            expected="names that neither free factors have nor rows of get_variance_explained",
            remedy="rename these sets",
        )


def _check_sets(
    members: Mapping[str, list[int]],
    sets: Mapping[str, list[str]],
    features: pd.Index,
    modality: str,
    least: int,
) -> None:
    """Refuse sets without members; warn of some that have too few."""
    small = [name for name, found in members.items() if len(found) < least]
    if len(small) == len(sets):
        genes = list(dict.fromkeys(gene for own in sets.values() for gene in own))
        hits = sum(len(found) for found in members.values())
        raise DataError(
            f"none of {len(sets)} gene sets has {least} members among the {len(features)} "
            f"features: {hits} of {len(genes)} names match; the sets hold {shown(genes, 3)}, the "
            f"features are {shown(features, 3)}",
            modality=modality,
            key="gene_sets",
            expected="names of features",
            remedy="compare case, species and identifiers (symbols or Ensembl), rename one side, "
            "or name the modality whose features are genes: gene_set_modality=...",
        )
    if small:
        warnings.warn(
            f"{len(small)} of {len(sets)} gene sets have fewer than {least} members among "
            f"the features of {modality!r} and are left out: {shown(small)}. Remedy: keep more "
            "features, or compare the names of both sides.",
            MosaicviWarning,
            stacklevel=4,
        )


@torch.no_grad()
def set_prior(module: FactorModule, members: Members) -> None:
    """Give the first factors the log odds of their sets, in place; other modalities stay free."""
    odds = np.where(members.table, INSIDE, OUTSIDE).astype(np.float32)
    module.weights[members.modality].log_odds[:, : odds.shape[1]] = torch.as_tensor(odds)


def prior_members(module: FactorModule, factor: int) -> dict[str, np.ndarray]:
    """Modality to the members of a named factor's set, bool ``(n_features,)``."""
    found = {}
    for name, weights in module.weights.items():
        odds = weights.log_odds[:, factor].cpu().numpy()
        if (odds != 0).any():
            found[name] = odds > 0
    return found


def informed_members(module: FactorModule, informed: tuple[str, ...]) -> Members | None:
    """Members of the sets of a network's first factors, from its priors; None without sets."""
    columns = range(len(informed))
    for name, weights in module.weights.items():
        odds = weights.log_odds[:, : len(informed)].cpu().numpy()
        if len(columns) and (odds != 0).any():
            return Members(name, informed, odds > 0)
    return None


def set_table(
    module: FactorModule,
    factors: tuple[str, ...],
    informed: tuple[str, ...],
    features: Mapping[str, tuple[str, ...]],
) -> pd.DataFrame:
    """Members and added features of named factors; see ``FactorVI.get_gene_sets``."""
    columns = ["factor", "modality", "feature", "weight", "inclusion", "status"]
    rows = [pd.DataFrame(columns=columns)]
    for number, factor in enumerate(factors):
        if factor not in informed:
            continue
        for modality, member in prior_members(module, number).items():
            own = module.weights[modality]
            inclusion = own.acting()[:, number].detach().cpu().numpy()
            weight = own.mean()[:, number].detach().cpu().numpy()
            status = np.where(member, np.where(inclusion >= 0.5, "kept", "dropped"), "added")
            part = pd.DataFrame(
                {
                    "factor": factor,
                    "modality": modality,
                    "feature": list(features[modality]),
                    "weight": weight,
                    "inclusion": inclusion,
                    "status": status,
                }
            )[member | (inclusion >= 0.5)]
            rows.append(part.sort_values("weight", key=np.abs, ascending=False))
    return pd.concat(rows[1:] or rows, ignore_index=True)


def borne_out(weights: np.ndarray, member: np.ndarray) -> bool:
    """Whether members of a set are among a factor's strong features more often than by chance.

    Parameters
    ----------
    weights
        Shape ``(n_features,)``.
    member
        Bool ``(n_features,)``.
    """
    size = np.abs(weights)
    strong = size >= STRONG * max(float(size.max()), 1e-12)
    both = int((strong & member).sum())
    p = hypergeom.sf(both - 1, len(member), int(member.sum()), int(strong.sum()))
    return bool(p < CHANCE)


def _sign_is_given(module: FactorModule, number: int, explained: pd.Series) -> bool:
    """Whether a factor acts on a modality of non-negative weights: turned, it would lose them."""
    for modality, weights in module.weights.items():
        if weights.nonnegative:
            kept = weights.acting()[:, number] >= 0.5
            if bool(kept.any()) or float(explained.get(modality, 0.0)) >= LEAST_EXPLAINED:
                return True
    return False


def name_factors(
    module: FactorModule,
    factors: tuple[str, ...],
    informed: tuple[str, ...],
    explained: pd.DataFrame,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of factors that were kept and ordered, and which of them are still those of sets.

    A named factor keeps its name where the data bear it out and it explains something of the genes,
    and its members' mean weight is made positive, unless the factor acts on a modality of
    non-negative weights, which then decides its sign; otherwise it becomes a free one. Free factors
    are numbered.

    Parameters
    ----------
    module
        The network, whose factors are in order.
    factors
        Their names so far.
    informed
        Names of sets.
    explained
        What each factor explains or adds, factors x modalities.
    """
    signs = torch.ones(len(factors), device=module.device)
    named: list[str] = []
    for number, name in enumerate(factors):
        if name not in informed:
            continue
        for modality, member in prior_members(module, number).items():
            weights = module.weights[modality].mean()[:, number].detach().cpu().numpy()
            acts = float(explained[modality][name]) >= LEAST_EXPLAINED
            if acts and borne_out(weights, member):
                named.append(name)
                turned = weights[member].mean() < 0
                if turned and not _sign_is_given(module, number, explained.T[name]):
                    signs[number] = -1
            else:
                module.weights[modality].log_odds[:, number] = 0.0
    module.turn(signs)
    free = iter(range(1, len(factors) + 1))
    kept = tuple(name if name in named else f"factor{next(free)}" for name in factors)
    return kept, tuple(named)
