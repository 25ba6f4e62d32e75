"""Densities of small counts from tables, against scipy and against the series for all counts."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special as special
import scipy.stats as stats
import torch

from mosaicvi._types import SparseCounts
from mosaicvi.likelihoods._math import at_stored
from mosaicvi.likelihoods._nb_density import negative_binomial, negative_binomial_at_stored
from mosaicvi.likelihoods._poisson import poisson
from mosaicvi.likelihoods._small_counts import LARGEST, split_small

COUNTS = [*range(1, LARGEST + 4), 40, 1000]


def _grid(dtype: torch.dtype) -> tuple[SparseCounts, torch.Tensor, torch.Tensor]:
    """Every count with every pair of mean and dispersion, cells x features."""
    means = torch.tensor([1e-3, 0.1, 1.0, 7.5, 300.0], dtype=dtype)
    theta = torch.tensor([1e-2, 0.7, 3.0, 50.0, 1e4], dtype=dtype)
    x = torch.tensor(COUNTS, dtype=dtype).repeat_interleave(len(means))
    mean = means.repeat(len(COUNTS)).unsqueeze(-1).expand(-1, len(theta)).contiguous()
    return SparseCounts.from_dense(x.unsqueeze(-1).expand(mean.shape)), mean, theta


@pytest.mark.parametrize(
    ("dtype", "absolute", "relative"), [(torch.float64, 1e-9, 1e-9), (torch.float32, 1e-4, 1e-5)]
)
def test_negative_binomial_equals_scipy(
    dtype: torch.dtype, absolute: float, relative: float
) -> None:
    counts, mean, theta = _grid(dtype)
    value, by_mean, by_theta = negative_binomial_at_stored(counts, mean, theta, gradients=True)
    x = counts.values.double().numpy()
    mu = at_stored(mean, counts).double().numpy()
    size = at_stored(theta, counts).double().numpy()
    expected = stats.nbinom.logpmf(x, size, size / (size + mu))
    np.testing.assert_allclose(value.numpy(), expected, rtol=relative, atol=absolute)
    np.testing.assert_allclose(
        by_mean.numpy(), size * (x - mu) / (size + mu), rtol=1e-4, atol=absolute
    )
    slope = (
        special.digamma(x + size)
        - special.digamma(size)
        - np.log1p(mu / size)
        + (mu - x) / (size + mu)
    )
    # by the log of the dispersion, which is what training moves
    np.testing.assert_allclose(by_theta.numpy() * size, slope * size, rtol=1e-3, atol=2e-3)


def test_table_and_series_agree_where_both_answer() -> None:
    """Half counts and counts beyond the table take the series; whole ones must join smoothly."""
    x = torch.tensor([[0.0, 1.0, 2.5, 15.0, 16.0, 3.0]], dtype=torch.float64).repeat(2, 1)
    counts = SparseCounts.from_dense(x)
    counts.values[1] = 0.0  # a zero that a file holds explicitly
    mean = torch.rand(3, 2, 6, dtype=torch.float64) * 4 + 0.1
    theta = torch.rand(6, dtype=torch.float64) + 0.2
    actual = negative_binomial_at_stored(counts, mean, theta, gradients=True)
    expected = negative_binomial(
        counts.values, at_stored(mean, counts), at_stored(theta, counts), gradients=True
    )
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_split_finds_what_is_not_small_and_whole() -> None:
    x = torch.tensor([[0.0, 1.0, 15.0], [15.5, 16.0, 1e6]])
    numbers, others = split_small(x)
    assert numbers.shape == x.shape
    assert numbers[0].tolist() == [0, 1, 15]
    assert others is not None
    assert others.tolist() == [3, 4, 5]
    assert split_small(x[0])[1] is None


@pytest.mark.parametrize("largest", [LARGEST, 200])
def test_poisson_equals_scipy(largest: int) -> None:
    """With and without a count for which the whole array takes the series."""
    x = torch.tensor([0.0, 1.0, 2.0, 7.0, float(largest)]).repeat(4)
    mean = torch.tensor([1e-4, 0.3, 4.0, 80.0]).repeat_interleave(5)
    expected = stats.poisson.logpmf(x.double().numpy(), mean.double().numpy())
    np.testing.assert_allclose(poisson(x, mean).numpy(), expected, rtol=1e-5, atol=1e-4)
