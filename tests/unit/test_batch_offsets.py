"""Hierarchical batch offsets against numerical integration and scipy's Student distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from mosaicvi.nn import _batch_offsets
from mosaicvi.nn._batch_offsets import BatchOffsets

SCALE, WEIGHT = 0.4, 5.0


def make(raw: np.ndarray, measured: np.ndarray | None = None) -> BatchOffsets:
    n_batches, n_features = raw.shape
    mask = np.ones(raw.shape, dtype=bool) if measured is None else measured
    offsets = BatchOffsets(
        n_batches,
        n_features,
        measured=torch.from_numpy(mask),
        prior_scale=SCALE,
        prior_weight=WEIGHT,
    )
    offsets.raw.data = torch.as_tensor(raw, dtype=torch.float32)
    return offsets


def test_table_has_mean_zero_over_measured_batches() -> None:
    raw = np.random.default_rng(0).normal(size=(4, 6))
    measured = np.ones((4, 6), dtype=bool)
    measured[0, :3] = False
    measured[2] = False
    measured[:, 5] = False  # a feature that no batch measured
    table = make(raw, measured).table().detach().numpy()
    assert (table[~measured] == 0).all()
    np.testing.assert_allclose(table.sum(0), 0, atol=1e-5)
    for feature in range(5):
        rows = measured[:, feature]
        expected = raw[rows, feature] - raw[rows, feature].mean()
        np.testing.assert_allclose(table[rows, feature], expected, atol=1e-5)


def log_density(offsets: np.ndarray) -> float:
    """Log of the prior of centred offsets, its variance integrated out numerically.

    Centred offsets of S batches are S - 1 normal variables (Helmert), whose squares have the same
    sum.
    """
    n_free, squares = len(offsets) - 1, float((offsets**2).sum())
    prior = stats.invgamma(WEIGHT / 2, scale=WEIGHT * SCALE**2 / 2)

    def integrand(log_variance: float) -> float:
        variance = np.exp(log_variance)
        normal = (2 * np.pi * variance) ** (-n_free / 2) * np.exp(-squares / (2 * variance))
        return float(normal * prior.pdf(variance) * variance)

    return float(np.log(integrate.quad(integrand, -15, 10, limit=200)[0]))


@pytest.mark.parametrize("n_batches", [2, 3, 6])
def test_negative_log_prior_equals_integration(n_batches: int) -> None:
    rng = np.random.default_rng(n_batches)
    first, second = rng.normal(0, 0.5, (2, n_batches, 1))
    values = [make(raw).negative_log_prior().item() for raw in (first, second)]
    expected = [-log_density((raw - raw.mean()).ravel()) for raw in (first, second)]
    # equal up to a constant, so differences agree
    assert values[0] - values[1] == pytest.approx(expected[0] - expected[1], rel=1e-3, abs=1e-3)


def test_negative_log_prior_adds_over_features_and_ignores_unmeasured() -> None:
    raw = np.random.default_rng(1).normal(size=(3, 4))
    each = sum(make(raw[:, [f]]).negative_log_prior().item() for f in range(4))
    assert make(raw).negative_log_prior().item() == pytest.approx(each, rel=1e-5)
    measured = np.ones((4, 4), dtype=bool)
    measured[3] = False
    more = np.vstack([raw, np.full((1, 4), 9.0)])
    assert make(more, measured).negative_log_prior().item() == pytest.approx(each, rel=1e-5)


def pooled(table: np.ndarray, freedom: int) -> float:
    weight = _batch_offsets.POOLING_WEIGHT
    return (weight * SCALE**2 + (table**2).sum()) / (weight + freedom)


@pytest.mark.parametrize("n_batches", [1, 2, 5])
def test_predictive_equals_monte_carlo_of_the_hierarchy(n_batches: int) -> None:
    """Draw variance, then mean, then a new batch, given the offsets of the measured ones."""
    rng = np.random.default_rng(3)
    raw = rng.normal(0, 0.6, (n_batches, 3))
    table = raw - raw.mean(0)
    base = pooled(table, 3 * (n_batches - 1))
    n_draws = 200_000
    shape = (WEIGHT + n_batches - 1) / 2
    rate = (WEIGHT * base + (table**2).sum(0)) / 2
    variance = stats.invgamma(shape, scale=rate).rvs((n_draws, 3), random_state=rng)
    mean = rng.normal(size=variance.shape) * np.sqrt(variance / n_batches)
    new = mean + rng.normal(size=variance.shape) * np.sqrt(variance)
    offsets = make(raw)
    scale, degrees = (part.detach().numpy() for part in offsets.predictive())
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    for feature in range(3):
        student = stats.t(df=degrees[feature], scale=scale[feature])
        np.testing.assert_allclose(
            np.quantile(new[:, feature], levels), student.ppf(levels), atol=0.02, rtol=0.02
        )
    with torch.no_grad():
        drawn = offsets.draw_new(torch.randn(n_draws, 3), torch.rand(n_draws, 3)).numpy()
    np.testing.assert_allclose(
        np.quantile(drawn, levels, axis=0), np.quantile(new, levels, axis=0), atol=0.02, rtol=0.03
    )


def test_draws_have_students_tails_up_to_three_deviations() -> None:
    """Beyond, exponentials of a Student variable have no mean that draws could estimate."""
    offsets = make(np.zeros((1, 1)))
    with torch.no_grad():
        drawn = offsets.draw_new(torch.randn(400_000, 1), torch.rand(400_000, 1)).numpy()
    scale, degrees = (part.item() for part in offsets.predictive())
    student = stats.t(df=degrees, scale=scale)
    for level, error in ((0.9, 0.02), (0.98, 0.03)):  # the chi-square is an approximation
        assert np.quantile(drawn, level) == pytest.approx(student.ppf(level), rel=error)
    limit = 3 * student.std()
    assert abs(drawn).max() == pytest.approx(limit, rel=1e-5)
    assert (abs(drawn) > 0.999 * limit).mean() == pytest.approx(2 * student.sf(limit), rel=0.2)
    edges = torch.tensor([[0.0], [1.0 - 1e-7]])
    with torch.no_grad():
        assert torch.isfinite(offsets.draw_new(torch.full((2, 1), 3.0), edges)).all()


def test_one_batch_leaves_the_prior() -> None:
    """With one measured batch nothing is known of the spread but the prior; never zero."""
    offsets = make(np.full((1, 4), 3.0))
    scale, degrees = offsets.predictive()
    np.testing.assert_allclose(scale.detach(), SCALE * np.sqrt(2), rtol=1e-5)
    np.testing.assert_allclose(degrees, WEIGHT)
    assert offsets.negative_log_prior().item() == 0


def test_batches_that_differ_widen_the_predictive() -> None:
    near, far = make(np.array([[-0.05], [0.05]])), make(np.array([[-2.0], [2.0]]))
    assert far.predictive()[0].item() > 2 * near.predictive()[0].item()
    alike = make(np.zeros((8, 50)))
    assert alike.predictive()[0].max().item() < SCALE
