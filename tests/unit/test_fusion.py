"""Fusion against closed forms and torch.distributions."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    kl_divergence,
)

from mosaicvi import fusion
from mosaicvi._errors import RequestError
from mosaicvi.fusion import GaussianMixture, kl

N_MODALITIES, N_CELLS, N_LATENT = 3, 5, 4


def experts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    means = torch.randn(N_MODALITIES, N_CELLS, N_LATENT, dtype=torch.float64)
    variances = torch.rand(N_MODALITIES, N_CELLS, N_LATENT, dtype=torch.float64) * 3 + 0.05
    present = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 1, 0, 0], [0, 1, 0, 0, 1]]).bool()
    return means, variances, present


def distribution(mixture: GaussianMixture) -> MixtureSameFamily:
    return MixtureSameFamily(
        Categorical(mixture.weights.T),
        Independent(
            Normal(mixture.means.transpose(0, 1), mixture.variances.transpose(0, 1).sqrt()), 1
        ),
    )


def test_product_is_the_closed_form_with_the_prior() -> None:
    """Oracle: Bayes' rule for a Gaussian observed with Gaussian noise, one expert at a time."""
    means, variances, present = experts()
    fused = fusion.get("product_of_experts")(means, variances, present)
    assert fused.n_components == 1
    for cell in range(N_CELLS):
        mean = torch.zeros(N_LATENT, dtype=torch.float64)
        covariance = torch.eye(N_LATENT, dtype=torch.float64)
        for m in range(N_MODALITIES):
            if present[m, cell]:
                gain = covariance @ torch.linalg.inv(covariance + variances[m, cell].diag())
                mean = mean + gain @ (means[m, cell] - mean)
                covariance = covariance - gain @ covariance
        torch.testing.assert_close(fused.mean[cell], mean)
        torch.testing.assert_close(fused.variance[cell], covariance.diagonal())


def test_rules_agree_on_one_modality_and_on_none() -> None:
    means, variances, _ = experts()
    for m in (*range(N_MODALITIES), None):
        present = torch.zeros(N_MODALITIES, N_CELLS, dtype=torch.bool)
        if m is not None:
            present[m] = True
        product, mixture = (rule(means, variances, present) for rule in fusion.TABLE.values())
        torch.testing.assert_close(product.mean, mixture.mean)
        torch.testing.assert_close(product.variance, mixture.variance)
        torch.testing.assert_close(product.kl_to_prior(), mixture.kl_to_prior())
        if m is None:
            assert (product.mean == 0).all()
            assert (product.variance == 1).all()
            assert (mixture.kl_to_prior().abs() < 1e-12).all()


@pytest.mark.parametrize("name", list(fusion.TABLE))
def test_absent_experts_may_hold_anything(name: str) -> None:
    means, variances, present = experts()
    expected = fusion.get(name)(means, variances, present)
    broken_means = means.masked_fill(~present[..., None], torch.nan).requires_grad_()
    broken = variances.masked_fill(~present[..., None], torch.nan).requires_grad_()
    fused = fusion.get(name)(broken_means, broken, present)
    torch.testing.assert_close(fused.mean, expected.mean)
    (fused.kl_to_prior().sum() + fused.mean.sum() + fused.variance.sum()).backward()
    for leaf in (broken_means, broken):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert (leaf.grad[~present] == 0).all()


def test_mixture_weights_are_uniform_over_present_modalities() -> None:
    means, variances, present = experts()
    mixture = fusion.get("mixture_of_experts")(means, variances, present)
    torch.testing.assert_close(mixture.weights.sum(0), torch.ones(N_CELLS, dtype=torch.float64))
    assert mixture.weights[:, 4].tolist() == [0.5, 0.0, 0.5]
    oracle = distribution(mixture)
    torch.testing.assert_close(mixture.mean, oracle.mean)
    torch.testing.assert_close(mixture.variance, oracle.variance)


@pytest.mark.parametrize("name", list(fusion.TABLE))
def test_log_prob_is_torchs(name: str) -> None:
    mixture = fusion.get(name)(*experts())
    points = torch.randn(7, N_CELLS, N_LATENT, dtype=torch.float64)
    torch.testing.assert_close(mixture.log_prob(points), distribution(mixture).log_prob(points))


@pytest.mark.parametrize("name", list(fusion.TABLE))
def test_draws_have_the_moments(name: str) -> None:
    mixture = fusion.get(name)(*experts())
    n_draws = 40_000
    noise = torch.randn(n_draws, N_CELLS, N_LATENT, dtype=torch.float64)
    draws = mixture.rsample(noise, torch.rand(n_draws, N_CELLS))
    error = (mixture.variance / n_draws).sqrt()
    assert ((draws.mean(0) - mixture.mean).abs() < 5 * error).all()
    torch.testing.assert_close(draws.var(0), mixture.variance, rtol=0.05, atol=0.0)


def test_a_component_of_weight_zero_is_never_drawn() -> None:
    weights = torch.tensor([[0.0], [0.7], [0.0], [0.3], [0.0]])
    means = torch.arange(5.0).view(5, 1, 1)
    mixture = GaussianMixture(weights, means, torch.full((5, 1, 1), 1e-12))
    uniforms = torch.tensor([0.0, 0.5, 0.6999, 0.7001, 0.99999994]).view(5, 1)
    drawn = mixture.rsample(torch.zeros(5, 1, 1), uniforms).flatten()
    assert drawn.tolist() == [1.0, 1.0, 1.0, 3.0, 3.0]
    with pytest.raises(ValueError, match="uniforms"):
        mixture.rsample(torch.zeros(5, 1, 1))


def single(mean: torch.Tensor, variance: torch.Tensor) -> GaussianMixture:
    return GaussianMixture(mean.new_ones(1, mean.shape[0]), mean[None], variance[None])


def test_divergences_of_single_gaussians_are_exact() -> None:
    means, variances, _ = experts()
    q, p = (single(means[i], variances[i]) for i in range(2))
    left, right = (Independent(Normal(means[i], variances[i].sqrt()), 1) for i in range(2))
    prior = Independent(Normal(torch.zeros_like(means[0]), 1.0), 1)
    torch.testing.assert_close(kl(q, p), kl_divergence(left, right))
    torch.testing.assert_close(q.kl_to_prior(), kl_divergence(left, prior))


def test_mixture_bound_holds_and_is_tight_at_both_ends() -> None:
    means, variances, present = experts()
    mixture = fusion.get("mixture_of_experts")(means, variances, torch.ones_like(present))
    uniforms, noise = torch.rand(20_000, N_CELLS), torch.randn(20_000, N_CELLS, N_LATENT)
    draws = mixture.rsample(noise.double(), uniforms)
    prior = Normal(0.0, 1.0).log_prob(draws).sum(-1)
    ratio = mixture.log_prob(draws) - prior
    sampled, error = ratio.mean(0), ratio.std(0) / 20_000**0.5
    bound = mixture.kl_to_prior()
    each = torch.stack([single(m, v).kl_to_prior() for m, v in _parts(mixture)])
    assert (bound > sampled - 4 * error).all()
    assert (bound <= each.mean(0) + 1e-12).all()
    # equal components: the Gaussian's own; far components: the average less the entropy of choice
    weights = torch.full((2, 1), 0.5, dtype=torch.float64)
    spread = variances[:1, :1].repeat(2, 1, 1)
    same = GaussianMixture(weights, means[:1, :1].repeat(2, 1, 1), spread)
    torch.testing.assert_close(same.kl_to_prior(), single(*_parts(same)[0]).kl_to_prior())
    apart = torch.stack([means[0, :1], means[0, :1] + 100.0])
    far = GaussianMixture(weights, apart, spread)
    average = torch.stack([single(m, v).kl_to_prior() for m, v in _parts(far)]).mean(0)
    torch.testing.assert_close(far.kl_to_prior(), average - torch.log(torch.tensor(2.0)).double())


def _parts(mixture: GaussianMixture) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(mixture.means, mixture.variances, strict=True))


def test_divergence_between_mixtures() -> None:
    means, variances, present = experts()
    rule = fusion.get("mixture_of_experts")
    q, p = rule(means, variances, present), rule(means + 3.0, variances, present)
    torch.testing.assert_close(kl(q, q), torch.zeros(N_CELLS, dtype=torch.float64))
    assert (kl(q, p)[present.any(0)] > 0.1).all()
    leaf = means.clone().requires_grad_()
    kl(rule(leaf, variances, present), p).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_take_and_detach() -> None:
    means, variances, present = experts()
    mixture = fusion.get("mixture_of_experts")(means.requires_grad_(), variances, present)
    part = mixture.take(torch.tensor([4, 1]))
    assert part.n_cells == 2
    assert torch.equal(part.mean, mixture.mean[[4, 1]])
    assert not mixture.detach().means.requires_grad


@pytest.mark.parametrize("name", sorted(fusion.TABLE))
def test_runs_of_cells_can_be_split(name: str) -> None:
    means, variances, present = experts()
    whole = fusion.get(name)(means, variances, present)
    parts = whole.split(3)
    assert [part.n_cells for part in parts[:-1]] == [3] * (len(parts) - 1)
    for field in ("weights", "means", "variances"):
        joined = torch.cat([getattr(part, field) for part in parts], 1)
        assert torch.equal(joined, getattr(whole, field))


def test_unknown_rule_lists_the_known() -> None:
    with pytest.raises(RequestError, match="'product_of_experts', 'mixture_of_experts'"):
        fusion.get("sum")
