"""Training and validation cells, and their loaders."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from mosaicvi._errors import RequestError
from mosaicvi.data._dataset import MultiDataset
from mosaicvi.data._resident import ResidentDataset, fits
from mosaicvi.data._sampler import StratifiedBatchSampler
from mosaicvi.data._stream import (
    BlockBatchSampler,
    BlockShuffle,
    StreamedLoader,
    default_shuffle,
    file_order,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.data._mosaic_data import MosaicData


Loader: TypeAlias = "DataLoader[MultiBatch] | StreamedLoader"
"""Serves minibatches: from memory, or of values on disk."""


class MosaicDataModule(LightningDataModule):
    """Split cells, stratified by presence pattern, and serve minibatches.

    Cells that have none of the modalities are in no part.

    Parameters
    ----------
    data
        The data.
    encoder_inputs
        Modality name to what its encoder reads; see :class:`MultiDataset`.
    train_size
        Share of cells to train on, above 0 and at most 1.
    validation_size
        Share of cells to validate on; None for the rest. What neither takes is the test part.
    batch_size
        Cells a minibatch.
    seed
        Seed of the split and of the order of training cells.
    external_indexing
        Training, validation and test cells, as up to three arrays; replaces the random split.
    shuffle
        Whether each epoch has an order of its own.
    drop_last
        Whether training minibatches all have ``batch_size`` cells.
    blocks
        Shuffle blocks of cells within windows, as values on disk need; None: where a modality is on
        disk, in sizes that follow from its bytes a cell.
    loader_kwargs
        Further arguments of ``torch.utils.data.DataLoader``, such as ``num_workers`` (default 0)
        and ``pin_memory`` (default: where training runs on a GPU). Values on disk are read by a
        thread, and take ``pin_memory`` alone.
    groups
        See :class:`MultiDataset`.
    resident
        Whether training and validation cells are moved to the device once, where minibatches are
        then gathered; None: on a GPU, where they take at most half of its free memory.
    visits
        Presence pattern to how often each of its training cells is seen an epoch, at least 1; None:
        once, all.

    Attributes
    ----------
    train_idx, val_idx, test_idx
        Cells of each part, ascending, int64.
    n_train, n_val
        Their numbers.

    Raises
    ------
    RequestError
        If sizes or cells are out of range, there is no cell to train on, or values on disk are to
        be read by worker processes or to be resident.
    """

    def __init__(
        self,
        data: MosaicData,
        encoder_inputs: Mapping[str, np.ndarray] | None = None,
        *,
        train_size: float = 0.9,
        validation_size: float | None = None,
        batch_size: int = 128,
        seed: int = 0,
        external_indexing: Sequence[Sequence[int] | np.ndarray] | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        blocks: BlockShuffle | None = None,
        loader_kwargs: Mapping[str, Any] | None = None,
        groups: np.ndarray | None = None,
        resident: bool | None = None,
        visits: Mapping[int, float] | None = None,
    ) -> None:
        super().__init__()
        self.dataset = MultiDataset(data, encoder_inputs or {}, groups)
        self.batch_size, self.seed = batch_size, seed
        self._shuffle, self._drop_last, self._visits = shuffle, drop_last, visits
        self._loader_kwargs = {"num_workers": 0, **(loader_kwargs or {})}
        if data.on_disk and (
            set(self._loader_kwargs) - {"pin_memory", "num_workers"}
            or self._loader_kwargs["num_workers"]
        ):
            raise RequestError(
                f"found {sorted(loader_kwargs or {})} for values on disk",
                key="loader_kwargs",
                expected="pin_memory alone: a thread reads ahead",
            )
        if resident and (data.on_disk or self._loader_kwargs["num_workers"]):
            raise RequestError(
                "values on disk, or read by worker processes, cannot lie on the device",
                key="resident",
                expected="False, or mdata in memory and num_workers=0",
            )
        self._resident = resident
        self._moved: ResidentDataset | None = None
        self.blocks = default_shuffle(data) if blocks is None and data.on_disk else blocks
        if external_indexing is not None:
            parts = _given_parts(external_indexing, data.n_cells)
        else:
            parts = split_cells(data.patterns, train_size, validation_size, seed)
        self.train_idx, self.val_idx, self.test_idx = parts
        if not len(self.train_idx):
            raise RequestError(
                "there is no cell to train on", key="train_size", expected="at least one"
            )
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)

    def setup(self, stage: str | None = None) -> None:
        """Do nothing: cells are split at construction."""

    def train_dataloader(self) -> Loader:
        """Shuffled minibatches that each hold every presence pattern in proportion."""
        data = self.dataset.data
        if self.blocks is not None and self._shuffle:
            return self._loader(
                BlockBatchSampler(
                    data.patterns,
                    self.train_idx,
                    self.batch_size,
                    self.blocks,
                    places=file_order(data),
                    seed=self.seed,
                    drop_last=self._drop_last,
                    visits=self._visits,
                )
            )
        return self._loader(
            StratifiedBatchSampler(
                data.patterns,
                self.train_idx,
                self.batch_size,
                self._shuffle,
                self.seed,
                self._drop_last,
                self._visits,
            )
        )

    def val_dataloader(self) -> Loader | list[Any]:
        """Validation cells; the order never changes, and each minibatch is in proportion."""
        return self._fixed(self.val_idx, resident=True)

    def test_dataloader(self) -> Loader | list[Any]:
        """Test cells, as :meth:`val_dataloader`."""
        return self._fixed(self.test_idx, resident=False)

    def _fixed(self, indices: np.ndarray, *, resident: bool) -> Loader | list[Any]:
        if not len(indices):
            return []
        patterns = self.dataset.data.patterns
        return self._loader(
            StratifiedBatchSampler(patterns, indices, self.batch_size, shuffle=False),
            resident=resident,
        )

    def _loader(
        self, sampler: StratifiedBatchSampler | BlockBatchSampler, *, resident: bool = True
    ) -> Loader:
        # Before a fit, when loaders are asked how long they are, nothing moves.
        trainer = self.trainer
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        arguments = {"pin_memory": device.type == "cuda", **self._loader_kwargs}
        if self.blocks is not None and self.dataset.data.on_disk:
            window, pin = self.blocks.window_cells, bool(arguments["pin_memory"])
            return StreamedLoader(self.dataset, sampler, window, pin_memory=pin)
        moved = self._on(device) if resident and trainer is not None else None
        if moved is not None:
            return DataLoader(moved, batch_size=None, sampler=sampler)
        return DataLoader(self.dataset, batch_size=None, sampler=sampler, **arguments)

    def _on(self, device: torch.device) -> ResidentDataset | None:
        """Training and validation cells on the device; None where they stay in memory."""
        cells = np.concatenate([self.train_idx, self.val_idx])
        wanted = self._resident
        if wanted is None:
            wanted = not self._loader_kwargs["num_workers"] and fits(self.dataset, cells, device)
        if wanted and (self._moved is None or self._moved.device != device):
            self._moved = ResidentDataset(self.dataset, cells, device)
        return self._moved if wanted else None

    def transfer_batch_to_device(
        self, batch: MultiBatch, device: torch.device, dataloader_idx: int
    ) -> MultiBatch:
        """Move a minibatch; overlaps with compute where it is in page-locked memory."""
        return batch.to(device, non_blocking=True)


def split_cells(
    patterns: np.ndarray, train_size: float, validation_size: float | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split cells at random, each presence pattern in proportion.

    Parameters
    ----------
    patterns
        Presence pattern of each cell, ``(n_cells,)``; cells of pattern 0 are in no part.
    train_size, validation_size, seed
        See :class:`MosaicDataModule`.

    Returns
    -------
    Training, validation and test cells, each ascending, int64. A pattern of one cell trains.
    """
    if not _is_share(train_size, 1.0) or train_size == 0:
        raise RequestError(f"found {train_size!r}", key="train_size", expected="above 0, at most 1")
    rest = 1 - train_size
    held = rest if validation_size is None else validation_size
    # Single precision's .3 is above .3.
    if not _is_share(held, rest + 1e-6):
        raise RequestError(
            f"found {validation_size!r} with train_size={train_size}",
            key="validation_size",
            expected=f"between 0 and {rest:.3g}",
        )
    generator = np.random.default_rng(seed)
    kinds, counts = np.unique(patterns[patterns != 0], return_counts=True)
    n_out = _in_proportion(counts, rest)
    n_val = np.minimum(_in_proportion(counts, held), n_out) if rest > 0 else n_out
    parts: tuple[list[np.ndarray], ...] = ([], [], [])
    for kind, out, val in zip(kinds, n_out, n_val, strict=True):
        members = generator.permutation(np.flatnonzero(patterns == kind))
        for part, cells in zip(
            parts, (members[out:], members[:val], members[val:out]), strict=True
        ):
            part.append(cells)
    train, val, test = (
        np.sort(np.concatenate([*part, np.zeros(0, dtype=np.int64)])).astype(np.int64)
        for part in parts
    )
    return train, val, test


def _is_share(value: object, most: float) -> bool:
    return isinstance(value, Real) and 0 <= float(value) <= most


def _in_proportion(counts: np.ndarray, share: float) -> np.ndarray:
    """Cells to take from each pattern: largest remainders, and never all of a pattern."""
    quota = counts * share
    taken = np.floor(quota + 1e-9).astype(np.int64)
    lacking = int(np.rint(quota.sum())) - int(taken.sum())
    order = np.argsort(-(quota - taken), kind="stable")
    taken[order[: max(0, lacking)]] += 1
    return np.asarray(np.minimum(taken, counts - 1))


def _given_parts(
    given: Sequence[Sequence[int] | np.ndarray], n_cells: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = [np.unique(np.asarray(part, dtype=np.int64)) for part in given]
    parts += [np.zeros(0, dtype=np.int64)] * (3 - len(parts))
    every = np.concatenate(parts)
    wrong = len(parts) > 3 or len(np.unique(every)) != len(every)
    if wrong or (len(every) and (every.min() < 0 or every.max() >= n_cells)):
        raise RequestError(
            "cells are out of range, or in two parts",
            key="external_indexing",
            expected=f"up to three disjoint arrays of cells between 0 and {n_cells - 1}",
        )
    return parts[0], parts[1], parts[2]
