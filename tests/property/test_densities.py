"""Properties that every density has, whatever its parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaicvi import likelihoods
from mosaicvi._types import SparseCounts

COUNTS = ("nb", "zinb", "nb_mixture", "poisson", "bernoulli")
logs = st.floats(-4.0, 4.0)
logits = st.floats(-8.0, 8.0)


def parameters_of(
    name: str, log_mean: float, excess: float, log_theta: float, logit: float
) -> dict[str, torch.Tensor]:
    """Parameters of one entry."""
    low, high = np.exp(log_mean), np.exp(log_mean) * (1 + np.exp(excess))
    theta = np.exp(log_theta)
    table = {
        "nb": {"mean": low, "dispersion": theta},
        "zinb": {"mean": low, "dispersion": theta, "dropout_logit": logit},
        "poisson": {"mean": low},
        "bernoulli": {"mean": low},
        "nb_mixture": {
            "background_mean": low,
            "foreground_mean": high,
            "mixing_logit": logit,
            "dispersion_background": theta,
            "dispersion_foreground": 2.0 * theta,
        },
    }
    return {key: torch.tensor([[value]], dtype=torch.float64) for key, value in table[name].items()}


@pytest.mark.parametrize("name", COUNTS)
@settings(max_examples=25, deadline=None)
@given(st.floats(-4.0, 2.5), st.floats(-4.0, 1.0), st.floats(-1.0, 8.0), logits)
def test_densities_sum_to_one_and_have_the_mean(
    name: str, log_mean: float, excess: float, log_theta: float, logit: float
) -> None:
    likelihood = likelihoods.get(name)
    parameters = parameters_of(name, log_mean, excess, log_theta, logit)
    n_values = 6000 if likelihood.largest is None else int(likelihood.largest) + 1
    support = torch.arange(n_values, dtype=torch.float64)[:, None]
    density = likelihood.log_prob_entries(support, parameters).exp()
    assert abs(float(density.sum()) - 1.0) < 1e-6
    mean = float((density * support).sum())
    assert abs(mean - float(likelihood.mean(parameters))) < 1e-5 * (1.0 + mean)


@pytest.mark.parametrize("name", COUNTS)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 9), st.floats(0.0, 1.0))
def test_sparse_equals_dense(
    name: str, seed: int, n_cells: int, n_features: int, sparsity: float
) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 10 ** rng.integers(1, 7), (n_cells, n_features)).astype(float)
    counts[rng.random(counts.shape) < sparsity] = 0.0
    x = torch.tensor(counts)
    likelihood = likelihoods.get(name)
    heads = {head.name: torch.tensor(rng.normal(0, 2, x.shape)) for head in likelihood.heads}
    features = {
        key: torch.tensor(rng.normal(0, 2, n_features)) for key in likelihood.feature_parameters
    }
    parameters = likelihood.parameters(
        heads,
        features,
        library_size=x.sum(-1) if likelihood.uses_library_size else None,
        panel=None,
    )
    entries = likelihood.log_prob_entries(x, parameters).sum(-1)
    sparse = likelihood.log_prob(SparseCounts.from_dense(x), parameters)
    torch.testing.assert_close(sparse, entries)
    torch.testing.assert_close(likelihood.log_prob(x, parameters), entries)


@pytest.mark.parametrize("name", COUNTS)
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=5),
    st.floats(-1e3, 1e3),
    st.floats(-1e3, 1e3),
    st.floats(0.0, 1e7),
)
def test_losses_stay_finite(
    name: str, counts: list[int], head: float, log_parameter: float, library: float
) -> None:
    x = torch.tensor([counts], dtype=torch.float32)
    likelihood = likelihoods.get(name)
    sign = torch.tensor([(-1.0) ** i for i in range(len(counts))])
    heads = {part.name: (head * sign).unsqueeze(0).requires_grad_() for part in likelihood.heads}
    features = {
        key: torch.full((len(counts),), log_parameter, requires_grad=True)
        for key in likelihood.feature_parameters
    }
    parameters = likelihood.parameters(
        heads,
        features,
        library_size=torch.tensor([library]) if likelihood.uses_library_size else None,
        panel=None,
    )
    value = likelihood.log_prob(SparseCounts.from_dense(x), parameters)
    assert value.isfinite().all()
    value.sum().backward()
    for leaf in (*heads.values(), *features.values()):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
