"""How far each modality is evidence about the others, before anything is trained.

A product of experts has no defence against an expert on noise: with a few hundred cells its encoder
learns them by heart, and is then sure of itself on others. The cross predictors measure on cells
that their regression left out what a modality tells of the others, so it is known beforehand.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import MosaicviWarning

if TYPE_CHECKING:
    from collections.abc import Mapping

RELATION_RANGE = (0.02, 0.1)
"""Share of variance that one modality explains of another, or the other of it, at which trust
begins and at which it is full."""


def modality_trust(explained: Mapping[str, tuple[float, ...]]) -> dict[str, float]:
    """Trust of each modality, from 0 to 1; the most related ones have 1.

    Two modalities have the same relation to each other, so that trust differs from 1 only where
    there are three or more, and only where enough pairs were there to measure it.

    Parameters
    ----------
    explained
        Modality to the held-out share of variance that it explains of each other modality, in
        their order; NaN where unknown.
    """
    names = list(explained)
    relation = np.full((len(names), len(names)), np.nan)
    for row, name in enumerate(names):
        others = [column for column in range(len(names)) if column != row]
        relation[row, others] = explained[name]
    relation = np.fmax(relation, relation.T)
    known = ~np.isnan(relation)
    best = np.where(known, relation, -np.inf).max(1, initial=-np.inf)
    low, high = RELATION_RANGE
    trust = np.where(known.any(1), np.clip((best - low) / (high - low), 0.0, 1.0), 1.0)
    # Where nothing is related to anything, nothing tells which of them is noise.
    trust = trust / trust.max() if trust.max(initial=0.0) > 0 else np.ones(len(names))
    muted = [name for name, value in zip(names, trust, strict=True) if value == 0]
    if muted:
        warnings.warn(
            f"{', '.join(map(repr, muted))}: linear regressions, tried on cells that they had not "
            "seen, explain nothing of the other modalities from it, nor of it from them. It is no "
            "evidence where a cell holds another modality, and does not shape the latent space. "
            "Remedy: if it should tell of the others, check that its cells carry the right names.",
            MosaicviWarning,
            stacklevel=5,
        )
    return {name: float(value) for name, value in zip(names, trust, strict=True)}
