"""Time of a forward and backward pass: ``python -m pytest tests/benchmarks --benchmark-only``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from mosaicvi import likelihoods
from mosaicvi._types import SparseCounts

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("pytest_benchmark")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "shape", "density"),
    [
        ("nb", (512, 4000), 0.09),
        ("zinb", (512, 4000), 0.09),
        ("poisson", (512, 4000), 0.09),
        ("nb", (4, 512, 4000), 0.09),
        ("nb_mixture", (5, 512, 14), 0.9),
        ("nb_mixture", (5, 512, 224), 0.9),
    ],
)
def test_forward_and_backward(benchmark, name: str, shape: tuple[int, ...], density: float) -> None:
    likelihood = likelihoods.get(name)
    counts = torch.poisson(torch.rand(shape[-2:]) * 3) + 1
    values = SparseCounts.from_dense(counts * (torch.rand(shape[-2:]) < density))
    library = values.row_sums()
    heads = {head.name: torch.randn(shape, requires_grad=True) for head in likelihood.heads}
    features = {
        key: torch.zeros(shape[-1], requires_grad=True) for key in likelihood.feature_parameters
    }

    def step() -> None:
        parameters = likelihood.parameters(
            heads,
            features,
            library_size=library if likelihood.uses_library_size else None,
            panel=None,
        )
        (-likelihood.log_prob(values, parameters).mean()).backward()

    benchmark.pedantic(step, rounds=10, warmup_rounds=2)
