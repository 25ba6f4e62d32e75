"""Randomness that belongs to a cell, not to its place in an array.

Each cell has its own counter-based stream (Philox; Salmon et al. 2011), keyed by a seed and the
cell's name, so drawing in chunks, in another order or for a subset of cells changes no draw.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


class CellNoise:
    """One random stream a cell.

    Parameters
    ----------
    seed
        Seed of the answer.
    names
        Names of the cells, in the order of axis -2 of the tensors that are drawn.
    purpose
        Streams of different purpose (latent, counts, ...) are independent.
    """

    def __init__(self, seed: int, names: Sequence[str], *, purpose: str) -> None:
        self._streams = [
            np.random.Generator(np.random.Philox(key=self._key(seed, name, purpose)))
            for name in names
        ]

    @staticmethod
    def _key(seed: int, name: str, purpose: str) -> int:
        text = f"{seed}\x1f{purpose}\x1f{name}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")

    def __len__(self) -> int:
        return len(self._streams)

    def _draw(self, like: Tensor, method: str) -> Tensor:
        values = like.detach().cpu().numpy()
        drawn = np.empty(values.shape, dtype=values.dtype)
        for cell, stream in enumerate(self._streams):
            drawn[..., cell, :] = getattr(stream, method)(values[..., cell, :])
        return torch.from_numpy(drawn).to(like.device)

    def gamma(self, shape: Tensor) -> Tensor:
        """Gamma draws of unit scale; ``shape`` has cells on axis -2."""
        return self._draw(shape, "standard_gamma")

    def poisson(self, rate: Tensor) -> Tensor:
        """Poisson draws; ``rate`` has cells on axis -2."""
        return self._draw(rate, "poisson")

    def uniform(self, *shape: int) -> Tensor:
        """Uniform draws on [0, 1), float32, of ``shape``, whose axis -2 are the cells."""
        return self._fill(shape, "random")

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws, float32, of ``shape``, whose axis -2 are the cells."""
        return self._fill(shape, "standard_normal")

    def _fill(self, shape: tuple[int, ...], method: str) -> Tensor:
        drawn = np.empty(shape, dtype=np.float32)
        for cell, stream in enumerate(self._streams):
            drawn[..., cell, :] = getattr(stream, method)(
                drawn[..., cell, :].shape, dtype=np.float32
            )
        return torch.from_numpy(drawn)
