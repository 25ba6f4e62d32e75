"""Minibatches of a MosaicData, gathered without a loop over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from mosaicvi._errors import RequestError
from mosaicvi._types import SparseCounts, Values
from mosaicvi.data._batch import ModalityBatch, MultiBatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData


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

    def fetch(self, indices: np.ndarray) -> MultiBatch:
        """Gather a minibatch.

        Parameters
        ----------
        indices
            Cells (rows of the MuData), shape ``(n_cells,)``, in any order; repeats allowed.
        """
        indices = np.asarray(indices, dtype=np.int64)
        modalities = {}
        for name, part in self.data.modalities.items():
            rows = part.rows[indices]
            positions = np.flatnonzero(rows >= 0)
            if len(positions):
                modalities[name] = self._rows_of(name, positions, rows[positions])
        categorical, continuous = self.data.categorical, self.data.continuous
        return MultiBatch(
            indices=torch.from_numpy(indices.copy()),
            modalities=modalities,
            categorical=None if categorical is None else torch.from_numpy(categorical[indices]),
            continuous=None if continuous is None else torch.from_numpy(continuous[indices]),
            groups=None if self.groups is None else torch.from_numpy(self.groups[indices]),
        )

    def _rows_of(self, name: str, positions: np.ndarray, rows: np.ndarray) -> ModalityBatch:
        part = self.data.modalities[name]
        values, observed = _gather(part, rows)
        return ModalityBatch(
            positions=torch.from_numpy(positions.astype(np.int64, copy=False)),
            values=values,
            encoder_input=torch.from_numpy(self.encoder_inputs[name][rows]),
            library_size=torch.from_numpy(part.library_size[rows]),
            batch=torch.from_numpy(part.batch[rows]),
            observed=observed,
        )


def _gather(part: ModalityData, rows: np.ndarray) -> tuple[Values, torch.Tensor | None]:
    """Values of some rows, and False where a continuous value is missing (then zero)."""
    if not isinstance(part.values, np.ndarray):
        return SparseCounts.from_scipy(part.values[rows]), None
    dense = torch.from_numpy(part.values[rows])
    if not part.missing:
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
