"""How far each modality is evidence about the others, before anything is trained.

A product of experts has no defence against an expert on noise: with a few hundred cells its encoder
learns them by heart, and is then sure of itself on others. The cross predictors measure on cells
that their regression left out what a modality tells of the others, so it is known beforehand.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import MosaicviWarning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.nn._cross_regression import CrossRegression

RELATION_RANGE = (0.02, 0.1)
"""Share of variance that one modality explains of another, or the other of it, at which trust
begins and at which it is full."""


def modality_trust(
    regressions: Mapping[str, Mapping[str, CrossRegression | None]],
) -> dict[str, float]:
    """Trust of each modality, from 0 to 1; the most related ones have 1.

    Two modalities have the same relation to each other, so that trust differs from 1 only where
    there are three or more, and only where enough pairs were there to measure it.

    Parameters
    ----------
    regressions
        Modality to each other modality to the regression of the latter's scores on its features,
        which knows the held-out share of variance that it explains; None where unknown.
    """
    names = list(regressions)
    relation = np.full((len(names), len(names)), math.nan)
    for row, name in enumerate(names):
        for other, regression in regressions[name].items():
            if regression is not None:
                relation[row, names.index(other)] = regression.explained
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
