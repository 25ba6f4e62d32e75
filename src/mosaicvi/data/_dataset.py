"""Minibatches of a MosaicData, gathered without a loop over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from mosaicvi._errors import RequestError
from mosaicvi._types import SparseCounts, Values
from mosaicvi.data._batch import ModalityBatch, MultiBatch
from mosaicvi.data._stored import Rows, StoredValues

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData

Window = dict[str, tuple[np.ndarray, Rows]]
"""Modality to ascending rows that were read from disk, and their values."""


class MultiDataset(Dataset[MultiBatch]):
    """Cells of a :class:`MosaicData`; an index is an array of cells, an item a minibatch.

    Used by a ``DataLoader`` with ``batch_size=None`` and a sampler that yields arrays of cells.

    Parameters
    ----------
    data
        The data.
    encoder_inputs
        Modality name to what its encoder reads, float32 ``(n_modality_cells, n_inputs)``, rows in
        the modality's own order. Where it is missing: the modality's representation, else nothing
        (width zero).
    groups
        Code of each cell's group, int64 ``(n_cells,)``, -1 where unknown; None without groups.

    Raises
    ------
    RequestError
        If an encoder input does not have one row a cell of its modality.
    """

    def __init__(
        self,
        data: MosaicData,
        encoder_inputs: Mapping[str, np.ndarray],
        groups: np.ndarray | None = None,
    ) -> None:
        self.data, self.groups = data, groups
        self.encoder_inputs = {
            name: _encoder_input(part, encoder_inputs.get(name))
            for name, part in data.modalities.items()
        }

    def __len__(self) -> int:
        """Number of cells."""
        return self.data.n_cells

    def __getitem__(self, index: int | np.ndarray) -> MultiBatch:
        """Minibatch of one cell, or of an array of cells."""
        return self.fetch(np.atleast_1d(np.asarray(index, dtype=np.int64)))

    def fetch(
        self,
        indices: np.ndarray,
        *,
        with_values: bool = True,
        window: Window | None = None,
    ) -> MultiBatch:
        """Gather a minibatch.

        Parameters
        ----------
        indices
            Cells (rows of the MuData), shape ``(n_cells,)``, in any order; repeats allowed.
        with_values
            Whether values are wanted; encoders do without, for they read projections.
        window
            Rows that were read from disk before, all of these cells among them.
        """
        indices = np.asarray(indices, dtype=np.int64)
        modalities = {}
        for name, part in self.data.modalities.items():
            rows = part.rows[indices]
            positions = np.flatnonzero(rows >= 0)
            if len(positions):
                modalities[name] = self.rows_of(
                    name, positions, rows[positions], with_values=with_values, window=window
                )
        categorical, continuous = self.data.categorical, self.data.continuous
        return MultiBatch(
            indices=torch.from_numpy(indices.copy()),
            modalities=modalities,
            categorical=None if categorical is None else torch.from_numpy(categorical[indices]),
            continuous=None if continuous is None else torch.from_numpy(continuous[indices]),
            groups=None if self.groups is None else torch.from_numpy(self.groups[indices]),
        )

    def read(self, indices: np.ndarray) -> Window:
        """Read the rows of some cells from disk; modalities in memory are left where they are."""
        window = {}
        for name, part in self.data.modalities.items():
            if isinstance(part.values, StoredValues):
                rows = part.rows[indices]
                rows = np.unique(rows[rows >= 0])
                window[name] = (rows, part.values.take(rows))
        return window

    def rows_of(
        self,
        name: str,
        positions: np.ndarray,
        rows: np.ndarray,
        *,
        with_values: bool = True,
        window: Window | None = None,
    ) -> ModalityBatch:
        """Gather rows of one modality.

        Parameters
        ----------
        name
            Modality.
        positions
            Which cells of the minibatch these are, ascending.
        rows
            Rows of the modality, shape ``(n_present,)``, int64.
        with_values, window
            As in :meth:`fetch`.
        """
        part = self.data.modalities[name]
        values: Values | None = None
        observed = None
        if with_values:
            if window is None or name not in window:
                block = part.values[rows]
            else:
                ascending, kept = window[name]
                block = kept[np.searchsorted(ascending, rows)]
            values, observed = _as_batch(block, missing=part.missing)
        return ModalityBatch(
            positions=torch.from_numpy(positions.astype(np.int64, copy=False)),
            stored=values,
            encoder_input=torch.from_numpy(self.encoder_inputs[name][rows]),
            library_size=torch.from_numpy(part.library_size[rows]),
            batch=torch.from_numpy(part.batch[rows]),
            observed=observed,
            own_panel=torch.from_numpy(part.measured(rows)) if part.new_panels else None,
            on_host=positions,
        )


def _as_batch(block: Rows, *, missing: bool) -> tuple[Values, torch.Tensor | None]:
    """Values of some rows, and False where a continuous value is missing (then zero)."""
    if not isinstance(block, np.ndarray):
        return SparseCounts.from_scipy(block), None
    dense = torch.from_numpy(block if block.flags.writeable else block.copy())
    if not missing:
        return dense, None
    observed = ~torch.isnan(dense)
    return torch.where(observed, dense, torch.zeros_like(dense)), observed


def _encoder_input(part: ModalityData, given: np.ndarray | None) -> np.ndarray:
    if given is None:
        given = part.representation
    if given is None:
        given = np.zeros((part.n_cells, 0), dtype=np.float32)
    given = np.ascontiguousarray(given, dtype=np.float32)
    if given.ndim != 2 or given.shape[0] != part.n_cells:
        raise RequestError(
            f"the encoder input has shape {given.shape}",
            modality=part.name,
            expected=f"({part.n_cells}, n_inputs)",
        )
    return given
