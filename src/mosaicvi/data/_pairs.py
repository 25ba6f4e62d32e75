"""Pairs of cells of two modalities that training draws beside its minibatches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.alignment import CellPairs


@dataclass(frozen=True)
class PairBatch:
    """Pairs of one step, of one pair of modalities.

    Attributes
    ----------
    modalities
        The two modalities.
    inputs
        Encoder inputs of both cells of each pair, ``(n_pairs, n_inputs)`` each.
    """

    modalities: tuple[str, str]
    inputs: tuple[Tensor, Tensor]


class PairSampler:
    """Draws pairs by weight.

    Parameters
    ----------
    pairs
        Two modalities to their pairs.
    encoder_inputs
        Modality to what its encoder reads, ``(n_modality_cells, n_inputs)``.
    n_pairs
        Pairs of each two modalities that are drawn at a time.
    seed
        Seed of the draws.
    """

    def __init__(
        self,
        pairs: Mapping[tuple[str, str], CellPairs],
        encoder_inputs: Mapping[str, np.ndarray],
        *,
        n_pairs: int,
        seed: int,
    ) -> None:
        self._pairs = {both: found for both, found in pairs.items() if len(found)}
        self._inputs = encoder_inputs
        self._n_pairs = n_pairs
        self._rng = np.random.default_rng(seed)
        self._mass = {
            both: np.cumsum(found.weight) / found.weight.sum()
            for both, found in self._pairs.items()
        }

    def draw(self, device: torch.device) -> list[PairBatch]:
        """Pairs of one step."""
        drawn = []
        for both, found in self._pairs.items():
            places = np.searchsorted(self._mass[both], self._rng.random(self._n_pairs))
            places = np.minimum(places, len(found) - 1)
            sides = tuple(
                torch.from_numpy(self._inputs[name][rows[places]]).to(device)
                for name, rows in zip(both, (found.left, found.right), strict=True)
            )
            drawn.append(PairBatch(both, (sides[0], sides[1])))
        return drawn
