"""Dropout whose masks are cut out of whole random words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mosaicvi._errors import RequestError
from mosaicvi._types import Float

_LEVELS = 1 << 16
"""Values of the sixteen bits that decide on one entry."""


class Dropout(nn.Module):
    """As :class:`torch.nn.Dropout`, with cheaper random numbers on a processor.

    torch draws a number of 64 bits for each entry there, one after the other, which takes longer
    than the matrix product whose result is masked. Sixteen bits say as much: the rate is met to
    within 1/131,072, and entries are scaled by the rate that is met.

    Parameters
    ----------
    rate
        Probability that an entry becomes zero, from 0 to below 1.

    Raises
    ------
    RequestError
        If it is not.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise RequestError(f"{rate}", key="dropout_rate", expected="a rate from 0 to below 1")
        self.rate = rate

    def forward(self, x: Float[Tensor, "*entries"]) -> Float[Tensor, "*entries"]:
        """Shape in and out are the same; in evaluation nothing is dropped."""
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.rate)
        n_dropped = min(round(self.rate * _LEVELS), _LEVELS - 1)
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        kept = bits >= n_dropped - _LEVELS // 2
        return x * kept.to(x.dtype).mul_(_LEVELS / (_LEVELS - n_dropped))

    def extra_repr(self) -> str:
        """Rate, for ``print``."""
        return f"rate={self.rate}"
