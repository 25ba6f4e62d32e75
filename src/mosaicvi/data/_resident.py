"""Training cells that lie on the accelerator, where minibatches are gathered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mosaicvi._types import SparseCounts, Values, sent
from mosaicvi.data._batch import ModalityBatch, MultiBatch

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from mosaicvi.data._dataset import MultiDataset

SHARE = 0.5
"""Of an accelerator's free memory, what cells may take; the rest is for the model and its steps."""

ABSENT, ELSEWHERE = -1, -2
"""No row of a cell: it lacks the modality, or is none of the cells that were moved."""


@dataclass(frozen=True)
class _Table:
    """Values of one modality's resident cells.

    Attributes
    ----------
    values
        As :attr:`ModalityBatch.stored`, but counts are integers of 16 bits where they fit, and
        columns have 32 bits: a stored count takes six bytes instead of twelve.
    lengths
        Stored values of each row, kept where Python runs: the size of a minibatch is known without
        waiting for the accelerator. None for dense values.
    """

    values: Values
    lengths: np.ndarray | None

    def take(self, rows: np.ndarray, places: Tensor) -> Values:
        if isinstance(self.values, Tensor):
            return self.values.index_select(0, places)
        n_stored = None if self.lengths is None else int(self.lengths[rows].sum())
        taken = self.values.take(places, n_stored)
        return replace(taken, indices=taken.indices.long(), values=taken.values.float())


@dataclass(frozen=True)
class _Resident:
    """What minibatches hold of one modality.

    Attributes
    ----------
    rows
        Resident row of each cell of the MuData, int64 ``(n_cells,)``, ``ABSENT`` or ``ELSEWHERE``
        where there is none; on the host.
    table, encoder_input, library_size, batch, observed
        As in :class:`ModalityBatch`, for all resident rows.
    """

    rows: np.ndarray
    table: _Table
    encoder_input: Tensor
    library_size: Tensor
    batch: Tensor
    observed: Tensor | None


class ResidentDataset(Dataset[MultiBatch]):
    """Minibatches of some cells, the same as those of a :class:`MultiDataset`, from a device.

    All that a minibatch holds is moved once. Then a step sends numbers of cells, and rows are
    gathered on the device. Nothing waits for it: which cells have which modality, and how many
    values are stored, is known to the host.

    Parameters
    ----------
    dataset
        The dataset, of values in memory.
    cells
        Cells (rows of the MuData) that will be asked for.
    device
        Where they shall lie.

    Attributes
    ----------
    device
        The same.
    """

    def __init__(self, dataset: MultiDataset, cells: np.ndarray, device: torch.device) -> None:
        self.device, self._n_cells = device, len(dataset)
        self._modalities = {
            name: self._moved(dataset, name, cells) for name in dataset.data.modalities
        }
        data = dataset.data
        tables = (data.categorical, data.continuous, dataset.groups)
        self._design = [None if each is None else sent(each, device) for each in tables]

    def __len__(self) -> int:
        """Number of cells of the MuData."""
        return self._n_cells

    def __getitem__(self, index: int | np.ndarray) -> MultiBatch:
        """Minibatch of one cell, or of an array of cells."""
        indices = np.atleast_1d(np.asarray(index, dtype=np.int64))
        modalities = {}
        for name, part in self._modalities.items():
            rows = part.rows[indices]
            if (rows == ELSEWHERE).any():
                raise LookupError("a cell was asked for that was not moved to the device")
            positions = np.flatnonzero(rows >= 0)
            if len(positions):
                modalities[name] = self._gathered(part, positions, rows[positions])
        cells = sent(indices, self.device)
        categorical, continuous, groups = (
            None if each is None else each.index_select(0, cells) for each in self._design
        )
        return MultiBatch(cells, modalities, categorical, continuous, groups)

    def _gathered(self, part: _Resident, positions: np.ndarray, rows: np.ndarray) -> ModalityBatch:
        places = sent(rows, self.device)
        return ModalityBatch(
            positions=sent(positions, self.device),
            on_host=positions,
            stored=part.table.take(rows, places),
            encoder_input=part.encoder_input.index_select(0, places),
            library_size=part.library_size.index_select(0, places),
            batch=part.batch.index_select(0, places),
            observed=None if part.observed is None else part.observed.index_select(0, places),
        )

    def _moved(self, dataset: MultiDataset, name: str, cells: np.ndarray) -> _Resident:
        part = dataset.data.modalities[name]
        kept = np.unique(part.rows[cells])
        kept = kept[kept >= 0]
        number = np.full(part.n_cells + 1, ELSEWHERE, dtype=np.int64)
        number[kept], number[ABSENT] = np.arange(len(kept)), ABSENT
        dense = isinstance(part.values, np.ndarray)
        whole = dataset.rows_of(name, np.arange(len(kept)), kept, with_values=dense)
        if not dense:
            block: Any = part.values if len(kept) == part.n_cells else part.values[kept]
            table = _Table(_narrow(block).to(self.device), np.diff(block.indptr))
        else:
            table = _Table(whole.values.to(self.device), None)
        return _Resident(
            rows=number[part.rows],
            table=table,
            encoder_input=whole.encoder_input.to(self.device),
            library_size=whole.library_size.to(self.device),
            batch=whole.batch.to(self.device),
            observed=None if whole.observed is None else whole.observed.to(self.device),
        )


def _narrow(counts: csr_matrix) -> SparseCounts:
    """Columns in 32 bits, and counts in 16 where all are whole numbers below 2^15."""
    values = counts.data.astype(np.float32)
    if values.max(initial=0) < 1 << 15:
        short = values.astype(np.int16)
        values = short if np.array_equal(short, values) else values
    return SparseCounts(
        torch.tensor(counts.indptr, dtype=torch.int64),
        torch.tensor(counts.indices, dtype=torch.int32),
        torch.tensor(values),
        int(counts.shape[1]),
    )


def bytes_of(dataset: MultiDataset, cells: np.ndarray) -> int:
    """What these cells would take on a device, at most."""
    total = 0
    for name, part in dataset.data.modalities.items():
        n_rows = int((part.rows[cells] >= 0).sum())
        a_row = 24 + 4 * dataset.encoder_inputs[name].shape[1]
        if isinstance(part.values, np.ndarray):
            a_row += (part.values.itemsize + part.missing) * part.n_features
            total += n_rows * a_row
        else:
            total += n_rows * a_row + round(8 * n_rows * part.stored_per_cell)
    return total


def fits(dataset: MultiDataset, cells: np.ndarray, device: torch.device) -> bool:
    """Whether these cells may lie on a device: a GPU that says how much memory is free."""
    if device.type != "cuda" or dataset.data.on_disk:
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return bytes_of(dataset, cells) <= SHARE * free
