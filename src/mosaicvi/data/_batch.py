"""What one training step sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from mosaicvi._types import SparseCounts, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import torch


def _optional(value: Tensor | None, move: Callable[[Tensor], Tensor]) -> Tensor | None:
    return None if value is None else move(value)


@dataclass(frozen=True)
class ModalityBatch:
    """The rows of one modality that a minibatch holds.

    Attributes
    ----------
    positions
        Which cells of the minibatch have the modality, ascending, shape ``(n_present,)``, int64.
    stored
        Their values, shape ``(n_present, n_features)``; None where they were not asked for.
    encoder_input
        Frozen projection of their values, shape ``(n_present, n_inputs)``, float32.
    library_size
        Counts a cell, or the user's size factor, shape ``(n_present,)``, float32.
    batch
        Batch code within this modality, shape ``(n_present,)``, int64.
    observed
        False at missing values of a continuous modality, shape ``(n_present, n_features)``; None
        when nothing is missing.
    own_panel
        Measured features of rows whose batch the model does not know but whose panel was given,
        all True in other rows, bool ``(n_present, n_features)``; None: there are none such.
    on_host
        ``positions`` where Python runs: what a step does next depends on them, and must not wait
        for an accelerator to tell. None: they are read from ``positions``.
    """

    positions: Tensor
    stored: Values | None
    encoder_input: Tensor
    library_size: Tensor
    batch: Tensor
    observed: Tensor | None = None
    own_panel: Tensor | None = None
    on_host: np.ndarray | None = None

    @property
    def places(self) -> np.ndarray:
        """``positions`` where Python runs, int64 ``(n_present,)``."""
        return self.positions.cpu().numpy() if self.on_host is None else self.on_host

    @property
    def values(self) -> Values:
        """Values, shape ``(n_present, n_features)``.

        Raises
        ------
        LookupError
            If the minibatch was fetched without values.
        """
        if self.stored is None:
            raise LookupError("the minibatch was fetched without values")
        return self.stored

    def measured(self, panel: Tensor | None) -> Tensor | None:
        """Panel of each row, bool ``(n_present, n_features)``, given that of its known batch.

        None where all features are measured.
        """
        if self.own_panel is None:
            return panel
        return self.own_panel if panel is None else panel & self.own_panel

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> ModalityBatch:
        """Move to a device."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=non_blocking)

        stored = self.stored
        if stored is not None:
            stored = stored.to(device, non_blocking=non_blocking)
        return self._each(move, stored)

    def pin_memory(self) -> ModalityBatch:
        """Copy to page-locked memory."""
        return self._each(
            Tensor.pin_memory, None if self.stored is None else self.stored.pin_memory()
        )

    def _each(self, move: Callable[[Tensor], Tensor], values: Values | None) -> ModalityBatch:
        return ModalityBatch(
            positions=move(self.positions),
            stored=values,
            encoder_input=move(self.encoder_input),
            library_size=move(self.library_size),
            batch=move(self.batch),
            observed=_optional(self.observed, move),
            own_panel=_optional(self.own_panel, move),
            on_host=self.places,
        )


@dataclass(frozen=True)
class MultiBatch:
    """A minibatch: some cells, and for each modality only the rows that are present.

    Attributes
    ----------
    indices
        Rows of the MuData, shape ``(n_cells,)``, int64.
    modalities
        Modality name to its rows; a modality that no cell of the minibatch has is absent.
    categorical
        Codes of categorical covariates, shape ``(n_cells, n_categorical)``, int64, or None.
    continuous
        Standardised continuous covariates, shape ``(n_cells, n_continuous)``, or None.
    groups
        Codes of groups of cells with a prior of their own, shape ``(n_cells,)``, int64, -1 where
        unknown; None without groups.
    """

    indices: Tensor
    modalities: Mapping[str, ModalityBatch]
    categorical: Tensor | None = None
    continuous: Tensor | None = None
    groups: Tensor | None = None

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.indices.shape[0])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> MultiBatch:
        """Move to a device."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=non_blocking)

        return MultiBatch(
            move(self.indices),
            {n: m.to(device, non_blocking=non_blocking) for n, m in self.modalities.items()},
            _optional(self.categorical, move),
            _optional(self.continuous, move),
            _optional(self.groups, move),
        )

    def pin_memory(self) -> MultiBatch:
        """Copy to page-locked memory."""
        return MultiBatch(
            self.indices.pin_memory(),
            {name: part.pin_memory() for name, part in self.modalities.items()},
            _optional(self.categorical, Tensor.pin_memory),
            _optional(self.continuous, Tensor.pin_memory),
            _optional(self.groups, Tensor.pin_memory),
        )


__all__ = ["ModalityBatch", "MultiBatch", "SparseCounts"]
