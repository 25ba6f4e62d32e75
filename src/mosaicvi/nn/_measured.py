"""What follows from which batch measured which feature, worked out once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from mosaicvi._types import Bool, Float, Shaped

Value = TypeVar("Value")


@dataclass(frozen=True)
class Measured:
    """Which batch measured which feature, and what steps ask of it.

    Attributes
    ----------
    present
        The table, bool ``(n_batches, n_features)``; None where every batch measured all.
    panels
        The same, but complete for a batch that measured nothing; None when all are complete.
    counts
        Batches that measured a feature, at least one, shape ``(n_features,)``.
    degrees
        Offsets of a feature that are free given that their mean is zero, shape ``(n_features,)``.
    """

    present: Bool[Tensor, "batches features"] | None
    panels: Bool[Tensor, "batches features"] | None
    counts: Float[Tensor, " features"]
    degrees: Float[Tensor, " features"]

    @classmethod
    def of(cls, table: Bool[Tensor, "batches features"]) -> Measured:
        """Work it out, shape ``(n_batches, n_features)``."""
        panels = table | ~table.any(1, keepdim=True)
        counts = table.sum(0).to(torch.get_default_dtype())
        return cls(
            present=None if bool(table.all()) else table,
            panels=None if bool(panels.all()) else panels,
            counts=counts.clamp_min(1.0),
            degrees=(counts - 1).clamp_min(0),
        )


class Remembered(Generic[Value]):
    """A function of one tensor, computed again only when the tensor is another or has changed.

    Steps ask the same of buffers that never change in a fit, which with tens of thousands of
    features takes longer than what is computed of them.
    """

    def __init__(self, function: Callable[[Shaped[Tensor, "..."]], Value]) -> None:
        self._function = function
        self._last: tuple[Shaped[Tensor, "..."], int, Value] | None = None

    def __call__(self, x: Shaped[Tensor, "..."]) -> Value:
        """The function's value at ``x``."""
        if x.is_inference():  # whether it has changed cannot be known
            return self._function(x)
        if self._last is None or self._last[0] is not x or self._last[1] != x._version:
            self._last = x, x._version, self._function(x)
        return self._last[2]
