"""Minibatches, samplers and the split."""

from __future__ import annotations

import itertools
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from tests.helpers import cell_names, counts_modality, make_mudata, mosaic
from torch.utils.data import DataLoader

from mosaicvi._errors import RequestError
from mosaicvi._types import SparseCounts
from mosaicvi.data import (
    ModalitySpec,
    MosaicDataModule,
    MultiBatch,
    MultiDataset,
    SequentialBatchSampler,
    StratifiedBatchSampler,
    build_manager,
)
from mosaicvi.data._splitter import split_cells

BOTH = {"rna": "zinb", "protein": "nb_mixture"}


def patterns_of(n_cells: int = 1000) -> np.ndarray:
    return np.repeat([1, 2, 3], [n_cells // 2, n_cells // 10, n_cells - n_cells * 6 // 10])


def test_fetch_gathers_present_rows_only() -> None:
    mdata = mosaic()
    data = build_manager(mdata, BOTH, batch_key="batch").data
    inputs = {
        name: np.arange(part.n_cells, dtype=np.float32)[:, None]
        for name, part in data.modalities.items()
    }
    indices = np.array([25, 3, 15, 3])
    batch = MultiDataset(data, inputs).fetch(indices)
    assert batch.n_cells == 4
    assert batch.indices.tolist() == indices.tolist()
    expected = {"rna": [1, 2, 3], "protein": [0, 2]}
    for name, part in batch.modalities.items():
        assert part.positions.tolist() == expected[name]
        cells = data.obs_names[indices[part.positions]]
        assert isinstance(part.values, SparseCounts)
        np.testing.assert_array_equal(
            part.values.to_dense().numpy(), mdata.mod[name][cells].X.toarray()
        )
        assert part.values.indices.dtype == torch.int64
        rows = mdata.mod[name].obs_names.get_indexer(cells)
        assert part.encoder_input[:, 0].tolist() == rows.tolist()
        np.testing.assert_array_equal(
            part.library_size.numpy(), data.modalities[name].library_size[rows]
        )
        assert part.batch.tolist() == [int(cell[1:]) % 2 for cell in cells]
        assert part.observed is None


def test_absent_modalities_cost_nothing() -> None:
    data = build_manager(mosaic(), BOTH).data
    dataset = MultiDataset(data, {})
    assert list(dataset.fetch(np.arange(10)).modalities) == ["rna"]
    assert dataset.fetch(np.zeros(0, dtype=int)).n_cells == 0
    assert dataset[4].n_cells == 1
    assert len(dataset) == 30


def test_missing_continuous_values_travel_with_a_mask() -> None:
    adata = counts_modality(cell_names(6), kind="dense")
    adata.X[1, 2] = np.nan
    data = build_manager(make_mudata({"score": adata}), {"score": "normal"}).data
    part = MultiDataset(data, {}).fetch(np.array([1, 0])).modalities["score"]
    assert part.observed is not None
    assert torch.isfinite(part.values).all()
    assert (~part.observed).nonzero().tolist() == [[0, 2]]
    assert torch.equal(part.values[1], torch.from_numpy(adata.X[0]))


def test_representation_is_the_encoder_input() -> None:
    mdata = mosaic()
    mdata.mod["rna"].obsm["pca"] = np.random.default_rng(0).normal(size=(20, 3))
    data = build_manager(mdata, {"rna": ModalitySpec("nb", representation="pca")}).data
    part = MultiDataset(data, {}).fetch(np.arange(5)).modalities["rna"]
    np.testing.assert_allclose(part.encoder_input, mdata.mod["rna"].obsm["pca"][:5], rtol=1e-6)


def test_encoder_inputs_must_have_a_row_a_cell() -> None:
    data = build_manager(mosaic(), BOTH).data
    with pytest.raises(RequestError, match="'rna'"):
        MultiDataset(data, {"rna": np.zeros((30, 2), dtype=np.float32)})


def test_covariates_travel() -> None:
    mdata = mosaic()
    mdata.obs["donor"], mdata.obs["age"] = ["x", "y"] * 15, np.arange(30.0)
    data = build_manager(
        mdata, BOTH, categorical_covariate_keys=["donor"], continuous_covariate_keys=["age"]
    ).data
    batch = MultiDataset(data, {}).fetch(np.array([5, 2])).to("cpu")
    assert batch.categorical is not None
    assert batch.continuous is not None
    assert batch.categorical.tolist() == [[1], [0]]
    assert batch.continuous.shape == (2, 1)


def test_a_batch_does_not_alias_the_users_counts() -> None:
    mdata = mosaic()
    batch = MultiDataset(build_manager(mdata, BOTH).data, {}).fetch(np.arange(30))
    before = mdata.mod["rna"].X.copy()
    batch.modalities["rna"].values.values.add_(1)
    assert (before != mdata.mod["rna"].X).nnz == 0


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_minibatch_holds_each_pattern_in_proportion(shuffle: bool) -> None:
    patterns = patterns_of()
    sampler = StratifiedBatchSampler(patterns, np.arange(1000), 128, shuffle=shuffle, seed=3)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 8
    assert sorted(np.concatenate(batches)) == list(range(1000))
    for batch in batches:
        for pattern, share in ((1, 0.5), (2, 0.1), (3, 0.4)):
            assert abs((patterns[batch] == pattern).sum() - share * len(batch)) < 2


def test_order_is_fixed_by_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = StratifiedBatchSampler(patterns_of(), np.arange(0, 1000, 3), 50, seed=seed)
        sampler.set_epoch(epoch)
        return list(itertools.chain.from_iterable(sampler))

    assert order(0, 4) == order(0, 4)
    assert order(0, 4) != order(0, 5)
    assert order(0, 4) != order(1, 4)
    assert sorted(order(0, 4)) == list(range(0, 1000, 3))


@pytest.mark.parametrize("n_cells", [1, 2, 3, 9, 128, 129, 130, 257, 400])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 128])
def test_no_lonely_minibatch(n_cells: int, batch_size: int) -> None:
    patterns = np.ones(n_cells, dtype=int)
    for sampler in (
        StratifiedBatchSampler(patterns, np.arange(n_cells), batch_size),
        SequentialBatchSampler(np.arange(n_cells), batch_size),
    ):
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert sorted(np.concatenate(batches)) == list(range(n_cells))
        sizes = [len(batch) for batch in batches]
        assert max(sizes) <= batch_size + 1
        assert min(sizes) > 1 or batch_size == 1 or n_cells == 1


def test_drop_last_gives_equal_minibatches() -> None:
    sampler = StratifiedBatchSampler(patterns_of(300), np.arange(300), 128, drop_last=True)
    assert [len(batch) for batch in sampler] == [128, 128]
    small = StratifiedBatchSampler(patterns_of(30), np.arange(30), 128, drop_last=True)
    assert [len(batch) for batch in small] == [30]


def test_sequential_keeps_the_order_given() -> None:
    order = np.array([5, 1, 9, 3, 2])
    assert np.concatenate(list(SequentialBatchSampler(order, 2))).tolist() == order.tolist()
    assert list(SequentialBatchSampler(np.zeros(0, dtype=int), 2)) == []


@pytest.mark.parametrize("batch_size", [0, 2.5, None, "8", True])
def test_what_is_no_batch_size_is_refused(batch_size: Any) -> None:
    with pytest.raises(RequestError, match="batch_size"):
        SequentialBatchSampler(np.arange(3), batch_size)
    with pytest.raises(RequestError, match="batch_size"):
        StratifiedBatchSampler(np.ones(3, dtype=int), np.arange(3), batch_size)


def test_split_is_stratified_and_seeded() -> None:
    patterns = patterns_of()
    train, val, test = split_cells(patterns, 0.8, 0.1, seed=1)
    assert (len(train), len(val), len(test)) == (800, 100, 100)
    assert [(patterns[val] == kind).sum() for kind in (1, 2, 3)] == [50, 10, 40]
    assert sorted(np.concatenate([train, val, test])) == list(range(1000))
    assert np.array_equal(split_cells(patterns, 0.8, 0.1, seed=1)[1], val)
    assert not np.array_equal(split_cells(patterns, 0.8, 0.1, seed=2)[1], val)


def test_split_leaves_rare_patterns_in_training_and_drops_empty_cells() -> None:
    patterns = np.array([1] * 20 + [2] + [0] * 5)
    train, val, test = split_cells(patterns, 0.5, None, seed=0)
    assert 20 in train
    assert not set(range(21, 26)) & set(np.concatenate([train, val, test]))
    assert len(split_cells(patterns, 1.0, None, seed=0)[1]) == 0
    assert len(split_cells(patterns, 0.7, np.float32(0.3), seed=0)[1]) == 6
    nan = float("nan")
    wrong: list[tuple[Any, Any]] = [(0.0, None), (1.1, None), (0.9, 0.2), (0.9, -0.1)]
    for train_size, validation_size in [*wrong, (None, None), ("1", None), (0.9, nan), (0.9, "0")]:
        with pytest.raises(RequestError, match=r"train_size|validation_size"):
            split_cells(patterns, train_size, validation_size, seed=0)


def test_external_indices() -> None:
    data = build_manager(mosaic(), BOTH).data
    module = MosaicDataModule(data, external_indexing=[np.arange(20), [25, 22]])
    assert module.val_idx.tolist() == [22, 25]
    assert (module.n_train, module.n_val, len(module.test_idx)) == (20, 2, 0)
    for wrong in ([[0, 1], [1]], [[0, 30]], [[-1]], [[], [1]]):
        with pytest.raises(RequestError, match=r"external_indexing|train_size"):
            MosaicDataModule(data, external_indexing=wrong)


class Recorder(pl.LightningModule):
    """Remembers which cells each training step saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs: dict[int, list[list[int]]] = {}
        self.validated: list[list[int]] = []

    def training_step(self, batch: MultiBatch, _: int) -> torch.Tensor:
        self.epochs.setdefault(self.current_epoch, []).append(batch.indices.tolist())
        return self.weight * 0

    def validation_step(self, batch: MultiBatch, _: int) -> None:
        self.validated.append(batch.indices.tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(validation_size: float | None = None, train_size: float = 0.8) -> Recorder:
    module = MosaicDataModule(
        build_manager(mosaic(), BOTH).data,
        train_size=train_size,
        validation_size=validation_size,
        batch_size=8,
        seed=5,
    )
    recorder = Recorder()
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(recorder, datamodule=module)
    return recorder


@pytest.mark.filterwarnings("ignore")
def test_lightning_sees_another_order_each_epoch_and_the_same_in_each_run() -> None:
    first, second = run(), run()
    assert first.epochs == second.epochs
    assert first.epochs[0] != first.epochs[1] != first.epochs[2]
    cells = [sorted(itertools.chain(*first.epochs[epoch])) for epoch in range(3)]
    assert cells[0] == cells[1] == cells[2]
    assert len(cells[0]) == 24
    assert first.validated[0] == first.validated[1]


@pytest.mark.filterwarnings("ignore")
def test_lightning_runs_without_validation_cells() -> None:
    recorder = run(train_size=1.0)
    assert recorder.validated == []
    assert len(set(itertools.chain(*recorder.epochs[0]))) == 30


def test_a_torch_loader_yields_minibatches() -> None:
    data = build_manager(mosaic(), BOTH).data
    loader = DataLoader(
        MultiDataset(data, {}), batch_size=None, sampler=SequentialBatchSampler(np.arange(30), 7)
    )
    assert [batch.n_cells for batch in loader] == [7, 7, 7, 7, 2]


def test_scvi_tools_dataset_of_some_cells() -> None:
    manager = build_manager(mosaic(), BOTH)
    subset = manager.create_torch_dataset(indices=[3, 25, 7])
    assert len(subset) == 3
    assert subset[1].indices.tolist() == [25]
    assert len(manager.create_torch_dataset()) == 30


@pytest.mark.gpu
def test_a_minibatch_moves_to_the_device() -> None:
    batch = MultiDataset(build_manager(mosaic(), BOTH).data, {}).fetch(np.arange(30))
    moved = batch.pin_memory().to("cuda", non_blocking=True)
    assert moved.modalities["rna"].values.device.type == "cuda"
    assert torch.equal(
        moved.modalities["rna"].values.to_dense().cpu(), batch.modalities["rna"].values.to_dense()
    )
