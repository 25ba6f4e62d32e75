"""Continuous likelihoods against scipy: values, gradients, draws, starting values."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special as special
import scipy.stats as stats
import torch

from mosaicvi import likelihoods
from mosaicvi._noise import CellNoise
from mosaicvi.likelihoods._pairs import pair

DTYPES = (torch.float64, torch.float32)
ABSOLUTE, RELATIVE = 1e-4, 1e-5

READS = [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (40, 100), (1, 1000), (999, 1000), (5e4, 1e5)]
LOGITS = np.array([-20.0, -5.0, -0.3, 0.0, 2.0, 8.0, 20.0])
CONCENTRATIONS = np.array([0.06, 0.5, 1.0, 10.0, 300.0, 9e4])


def close(actual: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(
        actual.detach().double().numpy(), expected, atol=ABSOLUTE, rtol=RELATIVE
    )


def pairs(k: np.ndarray, n: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.complex(torch.tensor(k, dtype=dtype), torch.tensor(n, dtype=dtype))


def read_grid(dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray, torch.Tensor, torch.Tensor]:
    """Methylated reads, coverage, log odds and log concentrations of every combination."""
    place, logit, phi = np.meshgrid(np.arange(len(READS)), LOGITS, CONCENTRATIONS, indexing="ij")
    k, n = np.array(READS)[place.ravel()].T
    shape = (-1, len(CONCENTRATIONS))
    tensors = (
        torch.tensor(part.reshape(shape), dtype=dtype, requires_grad=True)
        for part in (logit, np.log(phi))
    )
    return k.reshape(shape), n.reshape(shape), *tensors


def beta_binomial_oracle(k: np.ndarray, n: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Log density by ``betaln``, an algorithm that is not ``lgamma``; scipy's own is the same."""
    chosen = -np.log1p(n) - special.betaln(n - k + 1, k + 1)
    return chosen + special.betaln(k + a, n - k + b) - special.betaln(a, b)


def shape_parameters(
    logit: torch.Tensor, log_phi: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``a``, ``b`` and ``phi`` in float64."""
    eta, phi = (part.detach().double().numpy() for part in (logit, log_phi.exp()))
    return special.expit(eta) * phi, special.expit(-eta) * phi, phi


def test_oracle_is_scipys_betabinom() -> None:
    k, n, logit, log_phi = read_grid(torch.float64)
    a, b, _ = shape_parameters(logit, log_phi)
    moderate = (a > 1e-3) & (b > 1e-3) & (n <= 100)
    expected = stats.betabinom.logpmf(k, n, a, b)
    np.testing.assert_allclose(beta_binomial_oracle(k, n, a, b)[moderate], expected[moderate])


@pytest.mark.parametrize("dtype", DTYPES)
def test_beta_binomial_entries_and_gradients(dtype: torch.dtype) -> None:
    k, n, logit, log_phi = read_grid(dtype)
    parameters = {"logit": logit, "log_concentration": log_phi}
    actual = likelihoods.get("beta_binomial").log_prob_entries(pairs(k, n, dtype), parameters)
    a, b, phi = shape_parameters(logit, log_phi)
    close(actual, beta_binomial_oracle(k, n, a, b))
    actual.sum().backward()
    by_a = special.digamma(k + a) - special.digamma(a)
    by_b = special.digamma(n - k + b) - special.digamma(b)
    by_phi = special.digamma(n + phi) - special.digamma(phi)
    assert logit.grad is not None
    assert log_phi.grad is not None
    close(logit.grad, a * b / phi * (by_a - by_b))
    close(log_phi.grad, a * by_a + b * by_b - phi * by_phi)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lognormal_entries_and_gradients(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    x = torch.tensor(np.exp(rng.normal(0, 4, (20, 8))), dtype=dtype)
    location = torch.tensor(rng.normal(0, 3, (20, 8)), dtype=dtype, requires_grad=True)
    log_sd = torch.tensor(rng.normal(0, 1, 8), dtype=dtype, requires_grad=True)
    parameters = {"location": location, "log_sd": log_sd}
    likelihood = likelihoods.get("lognormal")
    actual = likelihood.log_prob(x, parameters)
    given, m, s = (part.detach().double().numpy() for part in (x, location, log_sd.exp()))
    close(actual, stats.lognorm.logpdf(given, s, scale=np.exp(m)).sum(-1))
    close(likelihood.log_prob_entries(x, parameters), stats.lognorm.logpdf(given, s, 0, np.exp(m)))
    close(likelihood.mean(parameters).log(), np.log(stats.lognorm.mean(s, 0, np.exp(m))))
    actual.sum().backward()
    score = (np.log(given) - m) / s
    assert location.grad is not None
    assert log_sd.grad is not None
    close(location.grad, score / s)
    close(log_sd.grad, (score**2 - 1).sum(0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_student_entries_and_gradients(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_t(2.2, (20, 8)) * 5, dtype=dtype)
    mean = torch.tensor(rng.normal(0, 3, (20, 8)), dtype=dtype, requires_grad=True)
    log_sd = torch.tensor(rng.normal(0, 1, 8), dtype=dtype, requires_grad=True)
    df = torch.tensor([2.05, 2.5, 3, 5, 10, 30, 100, 150], dtype=dtype, requires_grad=True)
    likelihood = likelihoods.get("student")
    actual = likelihood.log_prob(x, {"mean": mean, "log_sd": log_sd, "df": df})
    given, m, s, v = (part.detach().double().numpy() for part in (x, mean, log_sd.exp(), df))
    close(actual, stats.t.logpdf(given, v, m, s).sum(-1))
    actual.sum().backward()
    score = (given - m) / s
    pull = (v + 1) * score / (v + score**2)
    for part, expected in ((mean, pull / s), (log_sd, (pull * score - 1).sum(0))):
        assert part.grad is not None
        close(part.grad, expected)
    step = 1e-5
    rise = stats.t.logpdf(given, v + step, m, s) - stats.t.logpdf(given, v - step, m, s)
    assert df.grad is not None
    np.testing.assert_allclose(df.grad.double(), rise.sum(0) / (2 * step), atol=1e-3, rtol=1e-3)


def test_one_value_far_off_hardly_moves_a_student() -> None:
    """Nor its starting values; a normal's move in proportion."""
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, (2000, 2))
    x[:100, 0] = np.nan
    x[-20:] = 1e4
    start = {name: likelihoods.get(name).start(x, np.ones(2000)) for name in ("student", "normal")}
    scale = {name: np.exp(each.parameters["log_scale"]) for name, each in start.items()}
    np.testing.assert_allclose(scale["student"], 2.0, rtol=0.1)
    np.testing.assert_allclose(start["student"].heads["mean"] * scale["student"], 3.0, atol=0.2)
    assert (scale["normal"] > 500).all()


def test_deviance_of_a_student_is_that_of_its_density() -> None:
    """Twice what the density loses, in the scale's units; a squared error with many degrees."""
    parameters = {
        "mean": torch.tensor([[1.0, 1.0]], dtype=torch.float64),
        "sd": torch.tensor([0.5, 2.0], dtype=torch.float64),
        "df": torch.tensor([3.0, 3.0], dtype=torch.float64),
    }
    likelihood = likelihoods.get("student")
    x = torch.tensor([[1.2, -40.0]], dtype=torch.float64)
    spread = np.array([0.5, 2.0])
    lost = stats.t.logpdf(0.0, 3) - stats.t.logpdf((x.numpy() - 1.0) / spread, 3)
    close(likelihood.deviance(x, parameters), 2 * spread**2 * lost)
    parameters["df"] = parameters["df"] * 1e9
    close(likelihood.deviance(x, parameters), (x.numpy() - 1.0) ** 2)


def test_student_starts_from_what_varies() -> None:
    """Mostly one and the same value, constant, without a value, not measured by a batch."""
    x = np.zeros((100, 4))
    x[:20, 0] = np.arange(20.0)
    x[:, 1] = 5.0
    x[:, 2] = np.nan
    x[:, 3] = np.r_[np.full(50, 1e6), np.arange(50.0)]
    panel = np.array([[True, True, True, False], [True] * 4])
    batch = np.repeat([0, 1], 50)
    start = likelihoods.get("student").start(x, np.ones(100), panel=panel, batch=batch)
    scale = np.exp(start.parameters["log_scale"])
    np.testing.assert_allclose(scale[:3], [x[:, 0].std(), 1.0, 1.0], rtol=1e-5)
    np.testing.assert_allclose((start.heads["mean"] * scale)[[0, 1, 2, 3]], [0, 5, 0, 24.5])


@pytest.mark.parametrize("df", [2.1, 4.0, 60.0])
def test_draws_are_students(df: float) -> None:
    parameters = {
        "mean": torch.full((20_000, 1, 2), 3.0),
        "sd": torch.tensor([0.5, 2.0]),
        "df": torch.tensor([df, df]),
    }
    noise = CellNoise(0, ["a"], purpose="test")
    draws = likelihoods.get("student").sample(parameters, noise).double().numpy()[:, 0]
    for column, scale in zip(draws.T, (0.5, 2.0), strict=True):
        assert stats.kstest((column - 3.0) / scale, stats.t(df).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["lognormal", "beta_binomial", "student"])
def test_gradients_by_finite_differences(name: str) -> None:
    """From the heads, with draws, through masked entries that hold NaN."""
    likelihood = likelihoods.get(name)
    rng = np.random.default_rng(1)
    n = rng.poisson(5.0, (3, 5)) + 1.0
    x = pairs(rng.binomial(n.astype(int), 0.4), n, torch.float64)
    if name != "beta_binomial":
        x = x.real + 0.5
    observed = torch.tensor(rng.random((3, 5)) < 0.7)
    x = x.masked_fill(~observed, torch.nan)
    head = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    # A feature's scale is not learnt.
    features = [
        torch.randn(5, dtype=torch.float64, requires_grad=parameter != "log_scale")
        for parameter in likelihood.feature_parameters
    ]

    def total(*arguments: torch.Tensor) -> torch.Tensor:
        return likelihood.log_prob_of_heads(
            x,
            {"mean": arguments[0]},
            dict(zip(likelihood.feature_parameters, arguments[1:], strict=True)),
            library_size=None,
            panel=None,
            observed=observed,
        )

    assert total(head, *features).isfinite().all()
    assert torch.autograd.gradcheck(total, (head, *features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("logit", "phi"), [(-3.0, 0.06), (0.4, 1.0), (1.0, 200.0), (-25.0, 1e4)])
def test_beta_binomial_sums_to_one(logit: float, phi: float) -> None:
    k = np.arange(41.0)[:, None]
    parameters = {
        "logit": torch.full((41, 1), logit, dtype=torch.float64),
        "log_concentration": torch.full((1,), np.log(phi), dtype=torch.float64),
    }
    x = pairs(k, np.full_like(k, 40.0), torch.float64)
    density = likelihoods.get("beta_binomial").log_prob_entries(x, parameters).exp()
    assert abs(float(density.sum()) - 1) < 1e-8
    assert abs(float((density[:, 0] * torch.tensor(k[:, 0])).sum()) / 40 - special.expit(logit)) < (
        1e-8
    )


def test_extreme_heads_stay_finite() -> None:
    x = {"beta_binomial": pairs(*np.array(READS[:6], dtype=float).T[:, None, :], torch.float32)}
    x["lognormal"] = torch.tensor([[1e-12, 1e-3, 1.0, 10.0, 1e6, 1e12]])
    x["student"] = torch.tensor([[-1e12, -1.0, 0.0, 1e-6, 10.0, 1e12]])
    for name, values in x.items():
        likelihood = likelihoods.get(name)
        for scale in (-200.0, 0.0, 200.0):
            for log_parameter in (-50.0, 50.0):
                head = torch.full((1, 6), scale, requires_grad=True)
                features = {
                    key: torch.full((6,), log_parameter) for key in likelihood.feature_parameters
                }
                parameters = likelihood.parameters(
                    {"mean": head}, features, library_size=None, panel=None
                )
                value = likelihood.log_prob(values, parameters)
                value.sum().backward()
                assert head.grad is not None
                assert head.grad.isfinite().all(), name
                assert likelihood.mean(parameters).isfinite().all()
                if name == "beta_binomial":
                    assert value.isfinite().all()


@pytest.mark.parametrize("phi", [0.06, 2.0, 50.0])
def test_draws_are_beta(phi: float) -> None:
    """Mean, spread and share below a half of drawn rates."""
    likelihood = likelihoods.get("beta_binomial")
    logit = torch.tensor([[-2.0, 0.0, 1.5]]).expand(20_000, 1, 3)
    parameters = {"logit": logit, "log_concentration": torch.full((3,), float(np.log(phi)))}
    draws = likelihood.sample(parameters, CellNoise(0, ["a"], purpose="test")).double().numpy()
    p = special.expit(np.array([-2.0, 0.0, 1.5]))
    oracle = stats.beta(p * phi, (1 - p) * phi)
    error = oracle.std() / 20_000**0.5
    assert (np.abs(draws[:, 0].mean(0) - p) < 5 * error).all()
    below = (draws[:, 0] < 0.5).mean(0)
    assert (np.abs(below - oracle.cdf(0.5)) < 5 * 0.5 / 20_000**0.5).all()
    assert (draws >= 0).all()
    assert (draws <= 1).all()


@pytest.mark.parametrize(("logit", "phi"), [(5.0, 0.05), (15.0, 0.05), (-15.0, 0.05), (15.0, 1e5)])
def test_draws_are_beta_where_gamma_draws_are_too_small_to_hold(logit: float, phi: float) -> None:
    n = 50_000
    parameters = {"logit": torch.full((n, 1, 1), logit), "log_concentration": torch.tensor([phi])}
    parameters["log_concentration"].log_()
    noise = CellNoise(0, ["a"], purpose="test")
    draws = likelihoods.get("beta_binomial").sample(parameters, noise).double().numpy().ravel()
    oracle = stats.beta(special.expit(logit) * phi, special.expit(-logit) * phi)
    for level in (1e-6, 0.5, 1 - 1e-6):
        assert abs((draws <= level).mean() - oracle.cdf(level)) < 4 * 0.5 / n**0.5
    assert abs(draws.mean() - special.expit(logit)) < 5 * oracle.std() / n**0.5 + 1e-7


def test_start_recovers_rates_and_concentrations() -> None:
    rng = np.random.default_rng(0)
    p, phi = np.array([0.1, 0.5, 0.8, 0.95]), np.array([1.0, 5.0, 20.0, 5.0])
    n = rng.poisson(12.0, (5000, 4))
    k = rng.binomial(n, rng.beta(p * phi, (1 - p) * phi, n.shape))
    start = likelihoods.get("beta_binomial").start(pair(k, n), np.ones(5000))
    np.testing.assert_allclose(special.expit(start.heads["mean"]), p, atol=0.01)
    np.testing.assert_allclose(np.exp(start.parameters["log_concentration"]), phi, rtol=0.15)
    x = np.exp(rng.normal([0.0, 3.0], [0.5, 2.0], (5000, 2)))
    x[:100, 0] = np.nan
    start = likelihoods.get("lognormal").start(x, np.ones(5000))
    sd = np.exp(start.parameters["log_scale"])
    np.testing.assert_allclose(sd, [0.5, 2.0], rtol=0.05)
    np.testing.assert_allclose(start.heads["mean"] * sd, [0.0, 3.0], atol=0.1)


@pytest.mark.parametrize("n_cells", [1, 5])
def test_start_of_a_few_cells_is_finite(n_cells: int) -> None:
    n = np.zeros((n_cells, 3))
    n[:, 1] = 4.0
    start = likelihoods.get("beta_binomial").start(pair(n * 0, n), np.ones(n_cells))
    for part in (*start.heads.values(), *start.parameters.values()):
        assert part.dtype == np.float32
        assert np.isfinite(part).all()


def test_pairs_and_rates() -> None:
    k, n = np.array([[1, 0], [2, 3]]), np.array([[4, 0], [2, 6]])
    found = pair(k, n)
    likelihood = likelihoods.get("beta_binomial")
    np.testing.assert_array_equal(likelihood.shown(found), [[0.25, np.nan], [1.0, 0.5]])
    encoded = likelihood.encode(torch.tensor(found), torch.ones(2), target_sum=1.0)
    np.testing.assert_array_equal(encoded, [[0.25, np.nan], [1.0, 0.5]])
    # A missing entry adds nothing to density or deviance.
    observed = torch.tensor(n > 0)
    parameters = likelihood.parameters(
        {"mean": torch.zeros(2, 2)},
        {"log_concentration": torch.full((2,), float(np.log(2.0)))},
        library_size=None,
        panel=None,
    )
    nats = likelihood.log_prob(torch.tensor(found), parameters, observed=observed)
    close(nats, [np.log(1 / 5), np.log(1 / 3) + np.log(1 / 7)])


def test_deviances_are_zero_at_the_values_and_binomial_elsewhere() -> None:
    k, n = np.array([[3.0, 0.0, 5.0]]), np.array([[4.0, 6.0, 5.0]])
    likelihood = likelihoods.get("beta_binomial")
    for p in (0.2, 0.75):
        logit = torch.full((1, 3), special.logit(p), dtype=torch.float64)
        parameters = {"logit": logit, "log_concentration": torch.zeros(3, dtype=torch.float64)}
        expected = 2 * (stats.binom.logpmf(k, n, k / n) - stats.binom.logpmf(k, n, p))
        close(likelihood.deviance(pairs(k, n, torch.float64), parameters), expected)
