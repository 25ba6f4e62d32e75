"""Likelihoods entry by entry against scipy, in float64 and float32."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special as special
import scipy.stats as stats
import torch

from mosaicvi import likelihoods
from mosaicvi._errors import RequestError
from mosaicvi._types import SparseCounts

DTYPES = (torch.float64, torch.float32)
ABSOLUTE, RELATIVE = 1e-4, 1e-5

X = np.array([0, 1, 2, 3, 7, 10, 50, 999, 1000, 12345, 1e5, 1e6])
MEAN = np.array([1e-6, 1e-3, 0.1, 1.0, 10.0, 100.0, 1003.0, 12345.0, 1e6])
THETA = np.array([1e-3, 0.1, 0.5, 1.0, 3.9, 4.1, 10.0, 100.0, 1e4])


def entry_grid(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Counts, log means and dispersions of every combination, one row each, as torch sees them."""
    parts = [part.ravel() for part in np.meshgrid(X, np.log(MEAN), THETA, indexing="ij")]
    return tuple(torch.tensor(part, dtype=dtype).reshape(-1, 12) for part in parts)


def nb_oracle(x: np.ndarray, mean: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Negative binomial log density by scipy in float64, stable for large dispersions.

    scipy's own nbinom loses digits where p is close to one, so the coefficient is taken from
    betaln (an independent algorithm) and the probabilities from log1p.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        coefficient = np.where(
            x > 0, -np.log(np.maximum(x, 1)) - special.betaln(np.maximum(x, 1), theta), 0.0
        )
    return coefficient - theta * np.log1p(mean / theta) - x * np.log1p(theta / mean)


def close(actual: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(
        actual.detach().double().numpy(), expected, atol=ABSOLUTE, rtol=RELATIVE
    )


def test_nb_oracle_is_scipys_nbinom() -> None:
    x, log_mean, theta = (part.numpy() for part in entry_grid(torch.float64))
    moderate = (theta <= 100) & (x <= 1000) & (np.exp(log_mean) > 1e-2)
    mean = np.exp(log_mean)
    expected = stats.nbinom.logpmf(x, theta, theta / (theta + mean))
    np.testing.assert_allclose(
        nb_oracle(x, mean, theta)[moderate], expected[moderate], rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_nb_entries(dtype: torch.dtype) -> None:
    x, log_mean, theta = entry_grid(dtype)
    mean = log_mean.exp()
    actual = likelihoods.get("nb").log_prob_entries(x, {"mean": mean, "dispersion": theta})
    given = [part.double().numpy() for part in (x, mean, theta)]
    close(actual, nb_oracle(*given))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nb_entry_gradients(dtype: torch.dtype) -> None:
    x, log_mean, theta = entry_grid(dtype)
    log_mean.requires_grad_()
    theta.requires_grad_()
    parameters = {"mean": log_mean.exp(), "log_mean": log_mean, "dispersion": theta}
    likelihoods.get("nb").log_prob_entries(x, parameters).sum().backward()
    k, m, t = (part.detach().double().numpy() for part in (x, log_mean.exp(), theta))
    if dtype == torch.float32:
        # in float32, digamma of a dispersion of 1e-3 is itself good to 1e-4 only
        assert log_mean.grad is not None
        close(log_mean.grad, t * (k - m) / (m + t))
        return
    by_theta = special.digamma(k + t) - special.digamma(t) - np.log1p(m / t) + (m - k) / (m + t)
    assert log_mean.grad is not None
    assert theta.grad is not None
    close(log_mean.grad, t * (k - m) / (m + t))
    close(theta.grad, by_theta)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zinb_entries(dtype: torch.dtype) -> None:
    x, log_mean, theta = entry_grid(dtype)
    mean = log_mean.exp()
    for logit in (-200.0, -20.0, -3.0, 0.0, 2.0, 20.0, 200.0):
        parameters = {
            "mean": mean,
            "dispersion": theta,
            "dropout_logit": torch.full_like(mean, logit),
        }
        actual = likelihoods.get("zinb").log_prob_entries(x, parameters)
        k, m, t = (part.double().numpy() for part in (x, mean, theta))
        count = nb_oracle(k, m, t) + special.log_expit(-logit)
        expected = np.where(k == 0, np.logaddexp(special.log_expit(logit), count), count)
        close(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nb_mixture_entries(dtype: torch.dtype) -> None:
    x, log_mean, theta = entry_grid(dtype)
    background = (log_mean - 2.0).exp()
    foreground = log_mean.exp()
    for logit in (-30.0, -1.0, 0.5, 30.0):
        parameters = {
            "background_mean": background,
            "foreground_mean": foreground,
            "mixing_logit": torch.full_like(background, logit),
            "dispersion_background": theta,
            "dispersion_foreground": theta.flip(-1),
        }
        likelihood = likelihoods.get("nb_mixture")
        k, b, f, low, high = (
            part.double().numpy() for part in (x, background, foreground, theta, theta.flip(-1))
        )
        at_low = nb_oracle(k, b, low) + special.log_expit(logit)
        at_high = nb_oracle(k, f, high) + special.log_expit(-logit)
        close(likelihood.log_prob_entries(x, parameters), np.logaddexp(at_low, at_high))
        probability = likelihood.foreground_probability(x, parameters)  # type: ignore[attr-defined]
        np.testing.assert_allclose(
            probability.double().numpy(),
            special.expit(at_high - at_low),
            atol=1e-9 if dtype == torch.float64 else 2e-2,
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_poisson_entries(dtype: torch.dtype) -> None:
    x, log_mean, _ = entry_grid(dtype)
    log_mean = log_mean.requires_grad_()
    mean = log_mean.exp()
    actual = likelihoods.get("poisson").log_prob_entries(x, {"mean": mean, "log_mean": log_mean})
    k, m = (part.detach().double().numpy() for part in (x, mean))
    close(actual, stats.poisson.logpmf(k, m))
    actual.sum().backward()
    assert log_mean.grad is not None
    close(log_mean.grad, k - m)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bernoulli_entries(dtype: torch.dtype) -> None:
    """Against scipy: seen where at least one of Poisson(mean) fragments is."""
    log_mean = torch.tensor(np.log(np.tile(MEAN, (2, 1))), dtype=dtype).requires_grad_()
    x = torch.tensor([[0.0], [1.0]], dtype=dtype).expand(2, len(MEAN)).contiguous()
    parameters = {"mean": log_mean.exp(), "log_mean": log_mean}
    actual = likelihoods.get("bernoulli").log_prob_entries(x, parameters)
    mean = log_mean.exp().detach().double().numpy()[0]
    close(actual, np.stack([stats.poisson.logpmf(0, mean), stats.poisson.logsf(0, mean)]))
    probability = likelihoods.get("bernoulli").mean(parameters)[0]
    close(probability, stats.poisson.sf(0, mean))
    actual.sum().backward()
    assert log_mean.grad is not None
    with np.errstate(over="ignore"):
        close(log_mean.grad, np.stack([-mean, mean / np.expm1(mean)]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_entries(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    x, mean = torch.tensor(rng.normal(0, 30, (2, 20, 8)), dtype=dtype)
    sd = torch.tensor(np.exp(rng.normal(0, 1, 8)), dtype=dtype)
    actual = likelihoods.get("normal").log_prob_entries(x, {"mean": mean, "sd": sd})
    expected = stats.norm.logpdf(*(part.double().numpy() for part in (x, mean, sd)))
    close(actual, expected)


def _stored_gradients(
    name: str, x: torch.Tensor, parameters: dict[str, torch.Tensor]
) -> dict[str, np.ndarray]:
    """Gradients of the sum over cells, which is one per entry, through the sparse path."""
    leaves = {key: value.detach().clone().requires_grad_() for key, value in parameters.items()}
    likelihoods.get(name).log_prob(SparseCounts.from_dense(x), leaves).sum().backward()
    return {key: leaf.grad.numpy() for key, leaf in leaves.items() if leaf.grad is not None}


def _nb_slopes(k: np.ndarray, m: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of the negative binomial log density by log mean and by dispersion."""
    by_theta = special.digamma(k + t) - special.digamma(t) - np.log1p(m / t) + (m - k) / (m + t)
    return t * (k - m) / (m + t), by_theta


@pytest.mark.parametrize("logit", [-20.0, -3.0, 0.0, 2.0, 20.0])
def test_zinb_entry_gradients(logit: float) -> None:
    x, log_mean, theta = entry_grid(torch.float64)
    k, m, t = (part.numpy() for part in (x, log_mean.exp(), theta))
    gradients = _stored_gradients(
        "zinb",
        x,
        {
            "mean": log_mean.exp(),
            "log_mean": log_mean,
            "dispersion": theta,
            "dropout_logit": torch.full_like(x, logit),
        },
    )
    own = np.where(k == 0, special.expit(-t * np.log1p(m / t) - logit), 1.0)
    by_mean, by_theta = _nb_slopes(k, m, t)
    by_logit = np.where(k == 0, special.expit(-logit) - own, -special.expit(logit))
    expected = {
        "log_mean": own * by_mean,
        "dispersion": own * by_theta,
        "dropout_logit": by_logit,
    }
    assert gradients.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(gradients[key], value, atol=ABSOLUTE, rtol=RELATIVE)


@pytest.mark.parametrize("logit", [-20.0, -1.0, 0.5, 20.0])
def test_nb_mixture_entry_gradients(logit: float) -> None:
    x, log_mean, theta = entry_grid(torch.float64)
    low, high = log_mean - 2.0, log_mean
    gradients = _stored_gradients(
        "nb_mixture",
        x,
        {
            "background_mean": low.exp(),
            "foreground_mean": high.exp(),
            "log_background_mean": low,
            "log_foreground_mean": high,
            "mixing_logit": torch.full_like(x, logit),
            "dispersion_background": theta,
            "dispersion_foreground": theta.flip(-1),
        },
    )
    k, b, f, s, t = (p.numpy() for p in (x, low.exp(), high.exp(), theta, theta.flip(-1)))
    share = special.expit(nb_oracle(k, b, s) - nb_oracle(k, f, t) + logit)
    expected = {
        "log_background_mean": share * _nb_slopes(k, b, s)[0],
        "log_foreground_mean": (1 - share) * _nb_slopes(k, f, t)[0],
        "mixing_logit": share - special.expit(logit),
        "dispersion_background": share * _nb_slopes(k, b, s)[1],
        "dispersion_foreground": (1 - share) * _nb_slopes(k, f, t)[1],
    }
    assert gradients.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(gradients[key], value, atol=ABSOLUTE, rtol=RELATIVE)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        RequestError,
        match="'nb', 'zinb', 'nb_mixture', 'poisson', 'bernoulli', 'normal', "
        "'student', 'lognormal', 'beta_binomial'",
    ):
        likelihoods.get("gauss")


def test_table_is_consistent() -> None:
    for name, likelihood in likelihoods.TABLE.items():
        assert likelihood.name == name
        assert likelihood.heads[0].bilinear
        assert sum(head.bilinear for head in likelihood.heads) == 1
