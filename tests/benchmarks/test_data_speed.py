"""Speed of what feeds a model: projection, samplers, loaders in memory and from disk, answers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import mudata
import numpy as np
import pytest
import torch
from tests.benchmarks.write_atlas import write_atlas

import mosaicvi
from mosaicvi.data import BlockBatchSampler, BlockShuffle, MosaicDataModule, StratifiedBatchSampler
from mosaicvi.data._manager import build_manager
from mosaicvi.model._inputs import fit_modality_projection, fit_rows, rows_read
from mosaicvi.nn._graph_prior import FeatureGraphPrior, GraphArrays

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N_CELLS, N_GENES = 4_000, 5_000
LIKELIHOODS = {"rna": "nb", "protein": "nb_mixture"}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("atlas") / "atlas.h5mu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_atlas(place, N_CELLS, n_genes=N_GENES)
    return place


def opened(path: Path, place: str) -> mudata.MuData:
    return mosaicvi.read_lazy(path) if place == "disk" else mudata.read(path)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_loader(path: Path, place: str, benchmark: Callable[..., Any]) -> None:
    data = build_manager(opened(path, place), LIKELIHOODS).data
    loader = MosaicDataModule(data).train_dataloader()
    seen = benchmark(lambda: sum(batch.n_cells for batch in loader))
    assert seen == N_CELLS * 0.9


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_registration(path: Path, place: str, benchmark: Callable[..., Any]) -> None:
    mdata = opened(path, place)
    assert benchmark(lambda: build_manager(mdata, LIKELIHOODS).data.n_cells) == N_CELLS


@pytest.mark.parametrize("kind", ["uniform", "blocks"])
def test_sampler(kind: str, benchmark: Callable[..., Any]) -> None:
    patterns, cells = np.repeat([1, 3], [20_000, 80_000]), np.arange(100_000)
    sampler = (
        StratifiedBatchSampler(patterns, cells, 128)
        if kind == "uniform"
        else BlockBatchSampler(patterns, cells, 128, BlockShuffle(32, 20_000))
    )
    assert benchmark(lambda: sum(map(len, sampler))) == 100_000


def test_projection(path: Path, benchmark: Callable[..., Any]) -> None:
    part = build_manager(opened(path, "memory"), LIKELIHOODS).data.modalities["rna"]
    rows = fit_rows(part, 0)

    def fit() -> Any:
        return fit_modality_projection(
            part, n_components=20, target_sum=1e3, seed=0, rows=rows, values=rows_read(part, rows)
        )

    assert benchmark(fit).n_inputs == 21


def test_posterior_streaming(path: Path, benchmark: Callable[..., Any]) -> None:
    mdata = opened(path, "memory")
    mosaicvi.MosaicVI.setup_mudata(mdata, LIKELIHOODS)
    model = mosaicvi.MosaicVI(mdata)
    model.train(1, limit_train_batches=2, accelerator="cpu", enable_progress_bar=False)
    cells = np.arange(500)
    model.impute("protein", ["rna"], indices=cells, n_samples=2)
    answer = benchmark(lambda: model.impute("protein", ["rna"], indices=cells, n_samples=25))
    assert answer.shape == (500, 200)


def test_graph_step(benchmark: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    n_features, n_edges = 30_000, 60_000
    prior = FeatureGraphPrior(
        GraphArrays(
            rng.integers(10_000, size=n_edges),
            10_000 + rng.integers(20_000, size=n_edges),
            np.ones(n_edges),
            np.ones(n_edges),
            (10_000, n_features - 10_000),
        ),
        30,
        prior_scale=0.1,
    )

    def step() -> torch.Tensor:
        loss = prior.edge_loss(prior.embeddings())
        loss.backward()
        return loss

    assert torch.isfinite(benchmark(step))
