"""Time of a forward and backward pass, as training calls them, compiled and with tensors.

``python -m pytest tests/benchmarks/test_likelihood_speed.py --benchmark-only``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn.functional import linear

from mosaicvi import likelihoods
from mosaicvi._types import SparseCounts
from mosaicvi.likelihoods import _nb_mixture, _rows
from mosaicvi.likelihoods._base import Product

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("pytest_benchmark")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn(name: str, shape: tuple[int, int], density: float) -> dict[str, Any]:
    """Counts of which most are small, and parameters of features."""
    counts = torch.poisson(torch.rand(shape) * 3) + 1
    if name == "bernoulli":
        counts.fill_(1.0)
    values = SparseCounts.from_dense(counts * (torch.rand(shape) < density))
    likelihood = likelihoods.get(name)
    return {
        "values": values,
        "feature_parameters": {
            key: torch.zeros(shape[-1], requires_grad=True) for key in likelihood.feature_parameters
        },
        "library_size": values.row_sums() if likelihood.uses_library_size else None,
    }


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("name", "shape", "density"),
    [
        ("zinb", (250, 1000), 0.25),
        ("nb", (512, 4000), 0.09),
        ("zinb", (512, 4000), 0.09),
        ("poisson", (512, 4000), 0.09),
        ("bernoulli", (128, 25_000), 0.03),
        ("nb_mixture", (600, 14), 0.9),
        ("nb_mixture", (600, 224), 0.9),
    ],
)
def test_forward_and_backward(
    benchmark: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    shape: tuple[int, int],
    density: float,
    compiled: bool,
) -> None:
    if not compiled:
        monkeypatch.setattr(_rows, "fused_rows", lambda *_, **__: None)
        monkeypatch.setattr(_nb_mixture, "fused_mixture", lambda *_: None)
    likelihood, given = likelihoods.get(name), drawn(name, shape, density)
    heads = {head.name: torch.randn(shape, requires_grad=True) for head in likelihood.heads}

    def step() -> None:
        (-likelihood.log_prob_of_heads(heads=heads, panel=None, **given).mean()).backward()

    benchmark.pedantic(step, rounds=15, warmup_rounds=2)


@pytest.mark.parametrize("chunks", [True, False])
@pytest.mark.parametrize("name", ["poisson", "bernoulli"])
def test_wide_product(benchmark: Any, name: str, chunks: bool) -> None:
    """A decoder's product with 100,000 regions and its density."""
    likelihood, given = likelihoods.get(name), drawn(name, (168, 100_000), 0.03)
    inputs = torch.randn(168, 40, requires_grad=True)
    embeddings = (0.1 * torch.randn(100_000, 40)).requires_grad_()
    bias = torch.randn(100_000, requires_grad=True)

    def step() -> None:
        if chunks:
            product = Product(inputs, embeddings, bias)
            value = likelihood.log_prob_of_product(product=product, **given)
            assert value is not None
        else:
            heads = {"mean": linear(inputs, embeddings, bias)}
            value = likelihood.log_prob_of_heads(heads=heads, panel=None, **given)
        (-value.mean()).backward()

    benchmark.pedantic(step, rounds=10, warmup_rounds=2)
