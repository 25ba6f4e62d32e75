"""Linear directions that pairs of cells share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import eigh

from mosaicvi._types import Float
from mosaicvi.alignment._neighbours import CellPairs

RIDGE = 1e-3
"""Added to each modality's variances, as a share of the largest."""

LARGEST = 0.99
"""Correlations above are taken for this much: no direction decides alone."""


@dataclass(frozen=True)
class Canonical:
    """Canonical directions of some modalities.

    Attributes
    ----------
    center
        Modality to the mean of its paired cells, shape ``(n_components,)``.
    weights
        Modality to its directions, shape ``(n_components, n_directions)``; scores have variance one
        over the pairs, times the weight of their direction.
    correlation
        Mean correlation between modalities along each direction, shape ``(n_directions,)``.
    """

    center: Mapping[str, Float[np.ndarray, " components"]]
    weights: Mapping[str, Float[np.ndarray, "components directions"]]
    correlation: Float[np.ndarray, " directions"]

    def scores(
        self, modality: str, values: Float[np.ndarray, "cells components"]
    ) -> Float[np.ndarray, "cells directions"]:
        """Scores of cells, ``(n_cells, n_directions)``."""
        return np.asarray((values - self.center[modality]) @ self.weights[modality])

    def weighed(self, correlation: Float[np.ndarray, " directions"]) -> Canonical:
        """The same directions, weighted as if these were their correlations, ``(n_directions,)``.

        Directions without any correlation at all say nothing: they stay as they are.
        """
        if not (correlation > 0).any():
            return self
        gain = strength(correlation) / np.maximum(strength(self.correlation), 1e-12)
        weights = {name: weight * gain for name, weight in self.weights.items()}
        return replace(self, weights=weights, correlation=correlation)


def strength(correlation: Float[np.ndarray, " directions"]) -> Float[np.ndarray, " directions"]:
    """Weight of directions by their correlations, that of the strongest one."""
    ratio = np.sqrt(correlation / (1.0 - np.minimum(correlation, LARGEST) ** 2))
    return np.asarray(ratio / max(float(ratio.max()), 1e-12))


def fit_canonical(
    values: Mapping[str, Float[np.ndarray, "..."]],
    pairs: Mapping[tuple[str, str], CellPairs],
    n_directions: int,
) -> Canonical:
    r"""Canonical correlation of two or more modalities over weighted pairs.

    The directions :math:`A_m` maximise the sum over pairs of modalities of
    :math:`\operatorname{tr} A_m^\top C_{mn} A_n` with :math:`\sum_m A_m^\top C_{mm} A_m = I`
    (SUMCOR; Kettenring 1971). With two modalities this is canonical correlation analysis.

    Two standardised scores of correlation :math:`\rho` are those of one cell rather than of two by
    the likelihood ratio :math:`\rho (a b - \rho (a^2 + b^2) / 2) / (1 - \rho^2)` up to a constant
    (probabilistic CCA; Bach and Jordan 2005). Scores are therefore weighted by
    :math:`\sqrt{\rho / (1 - \rho^2)}`, relative to the strongest direction.

    Parameters
    ----------
    values
        Modality to its cells, ``(n_cells, n_components)``.
    pairs
        Two modalities to their pairs.
    n_directions
        Directions wanted; at most the components of the narrowest modality.
    """
    names = [name for name in values if any(name in both for both in pairs)]
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    mass: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for (first, second), found in pairs.items():
        weight = found.weight / max(found.weight.sum(), 1e-12)
        for name, side in ((first, found.left), (second, found.right)):
            rows[name].append(side)
            mass[name].append(weight)
    center, whiten = {}, {}
    for name in names:
        chosen = values[name][np.concatenate(rows[name])]
        weight = np.concatenate(mass[name])
        weight = weight / weight.sum()
        center[name] = weight @ chosen
        centred = chosen - center[name]
        level, axes = np.linalg.eigh((centred * weight[:, None]).T @ centred)
        whiten[name] = axes / np.sqrt(np.maximum(level, 0) + RIDGE * level[-1] + 1e-12)
    starts = np.cumsum([0] + [whiten[name].shape[1] for name in names])
    place = {name: slice(starts[i], starts[i + 1]) for i, name in enumerate(names)}
    cross = np.zeros((starts[-1], starts[-1]))
    for (first, second), found in pairs.items():
        weight = found.weight / max(found.weight.sum(), 1e-12)
        left = (values[first][found.left] - center[first]) @ whiten[first]
        right = (values[second][found.right] - center[second]) @ whiten[second]
        block = (left * weight[:, None]).T @ right
        cross[place[first], place[second]] += block
        cross[place[second], place[first]] += block.T
    kept = min(n_directions, *(whiten[name].shape[1] for name in names))
    level, axes = eigh(cross, subset_by_index=(starts[-1] - kept, starts[-1] - 1))
    level, axes = level[::-1], axes[:, ::-1]
    correlation = np.clip(level / max(len(names) - 1, 1), 0.0, 1.0)
    each = strength(correlation)
    weights = {}
    for name in names:
        direction = axes[place[name]]
        # Variance one over the pairs, whatever share of a direction each modality holds.
        length = np.linalg.norm(direction, axis=0)
        weights[name] = whiten[name] @ (direction / np.maximum(length, 1e-12)) * each
    return Canonical(center, weights, correlation)
