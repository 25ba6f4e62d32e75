"""Cells that lie on the device: the same minibatches, gathered there."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from tests.helpers import mosaic
from torch import Tensor

import mosaicvi
from mosaicvi._errors import RequestError
from mosaicvi._types import SparseCounts
from mosaicvi.data import ModalitySpec, MosaicDataModule, MultiDataset, build_manager
from mosaicvi.data import _resident as resident
from mosaicvi.data._resident import ResidentDataset, bytes_of, fits
from mosaicvi.datasets import SimulatedModality, simulate

CPU = torch.device("cpu")


def parts(value: Any) -> list[tuple[torch.dtype, list[Any]] | None]:
    """Every tensor of a minibatch, in order."""
    if value is None:
        return [None]
    if isinstance(value, Tensor):
        return [
            (value.dtype, torch.nan_to_num(torch.view_as_real(value.to(torch.complex64))).tolist())
        ]
    if isinstance(value, np.ndarray):
        return [value.tolist()]
    if isinstance(value, dict):
        return [each for key in sorted(value) for each in parts(value[key])]
    if is_dataclass(value):
        return [each for field in fields(value) for each in parts(getattr(value, field.name))]
    return [value]


def datasets() -> dict[str, MultiDataset]:
    """Counts; a continuous modality with gaps; pairs; covariates and groups."""
    plain = build_manager(mosaic(), {"rna": "zinb", "protein": "nb_mixture"}, batch_key="batch")
    mdata = simulate(
        60,
        {
            "rna": SimulatedModality.rna(30, likelihood="nb"),
            "drug": SimulatedModality.normal(8),
            "cpg": SimulatedModality.methylation(12),
        },
        seed=0,
    )
    mdata.mod["drug"].X[3, 2] = np.nan
    rng = np.random.default_rng(0)
    mdata.obs["age"] = rng.normal(size=mdata.n_obs)
    mdata.obs["sex"] = rng.choice(["f", "m"], mdata.n_obs)
    pairs = ModalitySpec("beta_binomial", layer="methylated", coverage_layer="coverage")
    rich = build_manager(
        mdata,
        {"rna": "nb", "drug": "normal", "cpg": pairs},
        categorical_covariate_keys=["sex"],
        continuous_covariate_keys=["age"],
    ).data
    inputs = {
        name: rng.normal(size=(part.n_cells, 3)).astype(np.float32)
        for name, part in rich.modalities.items()
    }
    return {
        "plain": MultiDataset(plain.data, {}),
        "rich": MultiDataset(rich, inputs, rng.integers(0, 2, mdata.n_obs)),
    }


@pytest.mark.parametrize("name", ["plain", "rich"])
def test_minibatches_are_the_same(name: str) -> None:
    dataset = datasets()[name]
    cells = np.sort(np.random.default_rng(1).permutation(len(dataset))[: 2 * len(dataset) // 3])
    moved = ResidentDataset(dataset, cells, CPU)
    assert len(moved) == len(dataset)
    for indices in (cells[::-1].copy(), cells[[4, 4, 0]], cells[:1]):
        assert parts(moved[indices]) == parts(dataset[indices])
    assert parts(moved[int(cells[2])]) == parts(dataset[int(cells[2])])


def test_counts_take_six_bytes_and_large_ones_stay_exact() -> None:
    dataset = datasets()["plain"]
    table = ResidentDataset(dataset, np.arange(len(dataset)), CPU)._modalities["rna"].table
    assert isinstance(table.values, SparseCounts)
    assert (table.values.indices.dtype, table.values.values.dtype) == (torch.int32, torch.int16)
    for value in (32_767.0, 32_768.0, 70_000.0, 0.5):
        counts = sp.csr_matrix(np.array([[0, 1, value]], dtype=np.float32))
        narrow = resident._narrow(counts).values
        assert narrow.tolist() == [1, value]
        assert narrow.dtype == (torch.int16 if value == 32_767 else torch.float32)


def test_a_cell_that_was_not_moved_is_no_cell_without_the_modality() -> None:
    dataset = datasets()["plain"]
    moved = ResidentDataset(dataset, np.arange(10), CPU)
    with pytest.raises(LookupError, match="not moved"):
        moved[np.array([2, len(dataset) - 1])]


def test_only_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = datasets()["plain"]
    cells = np.arange(len(dataset))
    moved = ResidentDataset(dataset, cells, CPU)
    held = 0
    for part in moved._modalities.values():
        tensors = [part.encoder_input, part.library_size, part.batch]
        assert isinstance(part.table.values, SparseCounts)
        values = part.table.values
        tensors += [values.indptr, values.indices, values.values]
        held += sum(each.numel() * each.element_size() for each in tensors)
    assert held <= bytes_of(dataset, cells) <= 2 * held
    assert bytes_of(dataset, cells[:5]) < bytes_of(dataset, cells)
    cuda = torch.device("cuda", 0)
    for free, expected in ((2 * bytes_of(dataset, cells), True), (bytes_of(dataset, cells), False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 10 * free))
        assert fits(dataset, cells, cuda) is expected
    assert not fits(dataset, cells, CPU)


def test_a_fit_is_the_same() -> None:
    fits_of = []
    for place in (None, True):
        mdata = mosaic()
        mosaicvi.MosaicVI.setup_mudata(
            mdata, modalities={"rna": "zinb", "protein": "nb_mixture"}, batch_key="batch"
        )
        model = mosaicvi.MosaicVI(mdata, seed=0)
        model.train(
            2,
            batch_size=8,
            accelerator="cpu",
            enable_progress_bar=False,
            datasplitter_kwargs={"resident": place},
        )
        fits_of.append((model.history["validation_loss"], model.get_latent_representation()))
    assert fits_of[0][0].equals(fits_of[1][0])
    np.testing.assert_array_equal(fits_of[0][1], fits_of[1][1])


def test_worker_processes_cannot_read_a_device() -> None:
    data = build_manager(mosaic(), {"rna": "zinb", "protein": "nb_mixture"}).data
    with pytest.raises(RequestError, match="num_workers=0"):
        MosaicDataModule(data, resident=True, loader_kwargs={"num_workers": 2})


@pytest.mark.gpu
def test_on_a_gpu_no_step_waits_for_a_minibatch() -> None:
    dataset = datasets()["plain"]
    moved = ResidentDataset(dataset, np.arange(len(dataset)), torch.device("cuda", 0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = moved[np.array([25, 3, 15, 3])]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert batch.indices.device.type == "cuda"
    assert parts(batch.to("cpu")) == parts(dataset[np.array([25, 3, 15, 3])])
