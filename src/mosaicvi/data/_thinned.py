"""Encoder inputs of cells as if they had been sequenced less deeply, for some of a minibatch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.data._batch import MultiBatch


@dataclass(frozen=True)
class Thinned:
    """What an encoder reads of thinned cells of one modality.

    Attributes
    ----------
    inputs
        Encoder inputs, float32 ``(n_thinned, n_inputs)``.
    places
        Which of these each cell of the MuData has, int64 ``(n_cells,)``; -1: none.
    """

    inputs: torch.Tensor
    places: torch.Tensor


class ThinnedInputs:
    """Exchanges encoder inputs of minibatches, some at a time.

    Parameters
    ----------
    modalities
        Modality to the inputs of its thinned cells.
    share
        Probability with which a cell that has such inputs is read by them.
    seed
        Seed of the choice.
    """

    def __init__(self, modalities: Mapping[str, Thinned], share: float, seed: int) -> None:
        self._modalities = dict(modalities)
        self._share = share
        self._rng = np.random.default_rng(seed)

    def into(self, batch: MultiBatch) -> MultiBatch:
        """The minibatch, with some of its cells read as thinned ones; values stay what they are.

        Nothing is read back from a device.
        """
        changed = dict(batch.modalities)
        for name, part in batch.modalities.items():
            if name not in self._modalities:
                continue
            device = part.encoder_input.device
            self._modalities[name] = found = Thinned(
                self._modalities[name].inputs.to(device), self._modalities[name].places.to(device)
            )
            chosen = torch.from_numpy(self._rng.random(len(part.encoder_input)) < self._share)
            place = found.places[batch.indices[part.positions]]
            other = found.inputs[place.clamp_min(0)]
            which = (chosen.to(device) & (place >= 0)).unsqueeze(-1)
            changed[name] = replace(
                part, encoder_input=torch.where(which, other, part.encoder_input)
            )
        return replace(batch, modalities=changed)
