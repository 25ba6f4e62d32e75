"""Draws, encoder transforms and starting values of likelihoods."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy import special
from tests.likelihood_helpers import COUNTS, draw_counts, draw_parameters

from mosaicvi import likelihoods
from mosaicvi._noise import CellNoise
from mosaicvi._types import SparseCounts


@pytest.mark.parametrize("name", [*COUNTS, "normal"])
def test_moments_of_draws(name: str) -> None:
    likelihood = likelihoods.get(name)
    parameters = draw_parameters(name, (1, 2, 3), torch.float32, seed=3)
    if name == "nb_mixture":
        parameters["dispersion_foreground"] = parameters["dispersion_foreground"].clamp(min=1.0)
        parameters["dispersion_background"] = parameters["dispersion_background"].clamp(min=1.0)
    elif "dispersion" in parameters:
        parameters["dispersion"] = parameters["dispersion"].clamp(min=1.0)
    mean = likelihood.mean(parameters)
    repeated = {
        key: value.expand(20_000, *value.shape[-2:]) if value.dim() == 3 else value
        for key, value in parameters.items()
    }
    draws = likelihood.sample(repeated, CellNoise(0, ["a", "b"], purpose="test")).double()
    assert draws.shape == (20_000, 2, 3)
    # a region that is nearly always open may show no closed draw at all
    error = draws.std(0).clamp(min=1e-2) / 20_000**0.5
    assert ((draws.mean(0) - mean[0]).abs() < 5 * error).all()
    zeros = torch.zeros(2, 3)
    if likelihood.is_count:
        share = (draws == 0).double().mean(0)
        expected = likelihood.log_prob_entries(zeros, parameters)[0].exp()
        spread = (expected * (1 - expected) / 20_000).sqrt() + 1e-4
        assert ((share - expected).abs() < 5 * spread).all()
    # a second moment against the density itself
    if likelihood.is_count:
        n_values = 2000 if likelihood.largest is None else int(likelihood.largest) + 1
        support = torch.arange(float(n_values))[:, None, None].expand(n_values, 2, 3)
        density = likelihood.log_prob_entries(support, parameters).double().exp()
        second = (density * support.double() ** 2).sum(0)
        drawn = draws.square()
        assert ((drawn.mean(0) - second).abs() < 6 * drawn.std(0) / 20_000**0.5).all()


@pytest.mark.parametrize("name", [*COUNTS, "normal"])
def test_draws_belong_to_cells(name: str) -> None:
    likelihood = likelihoods.get(name)
    parameters = draw_parameters(name, (4, 3, 5), torch.float32)
    whole = likelihood.sample(parameters, CellNoise(1, ["a", "b", "c"], purpose="x"))
    order = [2, 0]
    part = {k: v[:, order] if v.dim() == 3 else v for k, v in parameters.items()}
    again = likelihood.sample(part, CellNoise(1, ["c", "a"], purpose="x"))
    assert torch.equal(whole[:, order], again)


def test_encode() -> None:
    x = torch.tensor([[0.0, 3.0, 1.0], [0.0, 0.0, 0.0]])
    library = x.sum(-1)
    sparse = SparseCounts.from_dense(x)
    for name in ("nb", "zinb", "poisson", "bernoulli"):
        likelihood = likelihoods.get(name)
        expected = torch.log1p(torch.tensor([[0.0, 7.5, 2.5], [0.0, 0.0, 0.0]]))
        dense = likelihood.encode(x, library, target_sum=10.0)
        coded = likelihood.encode(sparse, library, target_sum=10.0)
        assert isinstance(coded, SparseCounts)
        assert isinstance(dense, torch.Tensor)
        torch.testing.assert_close(dense, expected)
        torch.testing.assert_close(coded.to_dense(), expected)
    mixture = likelihoods.get("nb_mixture")
    coded = mixture.encode(sparse, library, target_sum=10.0)
    assert isinstance(coded, SparseCounts)
    torch.testing.assert_close(coded.to_dense(), torch.log1p(x))
    assert likelihoods.get("normal").encode(x, library, target_sum=10.0) is x


@pytest.mark.parametrize("name", [*COUNTS, "normal"])
@pytest.mark.parametrize("n_cells", [1, 5, 200])
def test_start_is_finite_and_sane(name: str, n_cells: int) -> None:
    likelihood = likelihoods.get(name)
    x = draw_counts(n_cells, 6).numpy()
    x[:, 2] = 0
    if likelihood.largest is not None:
        x = np.minimum(x, likelihood.largest)
    if name == "normal":
        x[:, 3] = np.nan
    values = sp.csr_matrix(x) if likelihood.is_count else x
    panel = np.array([[1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0]], dtype=bool)
    batch = np.arange(n_cells) % 2
    for kwargs in ({}, {"panel": panel, "batch": batch}):
        start = likelihood.start(
            values, np.nansum(x, axis=1), background=np.full(6, np.nan), **kwargs
        )
        assert start.heads.keys() == {head.name for head in likelihood.heads}
        assert tuple(start.parameters) == likelihood.feature_parameters
        for part in (*start.heads.values(), *start.parameters.values()):
            assert part.shape == (6,)
            assert part.dtype == np.float32
            assert np.isfinite(part).all()


def test_start_recovers_proportions_and_dispersion() -> None:
    rng = np.random.default_rng(0)
    proportion = np.array([0.5, 0.3, 0.15, 0.05])
    library = rng.uniform(500, 2000, 4000)
    theta = np.array([0.5, 1.0, 4.0, 20.0])
    mean = library[:, None] * proportion
    x = rng.poisson(mean * rng.gamma(theta, 1 / theta, mean.shape))
    panel = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], dtype=bool)
    batch = np.repeat([0, 1], 2000)
    x[2000:, 3] = 0
    start = likelihoods.get("nb").start(sp.csr_matrix(x), library, panel=panel, batch=batch)
    np.testing.assert_allclose(np.exp(start.heads["mean"]), proportion, rtol=0.1)
    np.testing.assert_allclose(np.exp(start.parameters["log_dispersion"]), theta, rtol=0.25)


def test_start_separates_background_from_foreground() -> None:
    rng = np.random.default_rng(0)
    n_cells = 3000
    is_background = rng.random(n_cells) < 0.7
    x = np.stack(
        [
            np.where(
                is_background, rng.negative_binomial(5, 0.5, n_cells), rng.poisson(200, n_cells)
            ),
            rng.poisson(4, n_cells),
        ],
        axis=1,
    )
    likelihood = likelihoods.get("nb_mixture")
    start = likelihood.start(sp.csr_matrix(x), np.ones(n_cells), background=None)
    low = np.exp(start.heads["background"])
    high = low * (1 + np.exp(start.heads["foreground"]))
    np.testing.assert_allclose([low[0], high[0]], [5, 200], rtol=0.1)
    assert abs(special.expit(start.heads["mixing"][0]) - 0.7) < 0.03
    known = likelihood.start(
        sp.csr_matrix(x), np.ones(n_cells), background=np.array([np.nan, np.log(3.0)])
    )
    assert known.heads["background"][0] == start.heads["background"][0]
    np.testing.assert_allclose(np.exp(known.heads["background"][1]), 3.0, rtol=1e-5)
