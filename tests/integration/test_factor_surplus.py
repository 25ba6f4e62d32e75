"""Factors are judged by values that they were not inferred from."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import stats
from tests.recovery.test_factors import fitted

from mosaicvi import likelihoods
from mosaicvi.data import MosaicDataModule
from mosaicvi.factor import _judgement, _surplus, _unseen
from mosaicvi.factor._head_slope import closed_slope, depth_variance, head_slope
from mosaicvi.factor._judgement import SHARES, Judgement, judge
from mosaicvi.factor._surplus import DOUBTFUL_SHARE, drop_surplus
from mosaicvi.factor._unseen import CellFit, Halves, halve, unseen_nats

if TYPE_CHECKING:
    from mosaicvi import FactorVI
    from mosaicvi.factor._factor_module import FactorModule

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def model() -> FactorVI:
    return fitted("nb", 0.0)[0]


def with_noise(model: FactorVI, *, named: bool = False) -> FactorModule:
    """The network with a further factor whose weights, of 20 features, are noise."""
    module = copy.deepcopy(model.module)
    module.keep(torch.tensor([*range(module.n_latent), 0]))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in module.modalities:
            weights, loadings = module.weights[name], module.recognition[name].loadings
            weights.loc[:, -1] = 0.0
            weights.inclusion[:, -1] = 0.01
            loadings[:, -1] = 0.1 * torch.randn(len(loadings), generator=generator)
        weights = module.weights["one"]
        weights.loc[:20, -1] = 0.2 * torch.randn(20, generator=generator)
        weights.inclusion[:20, -1] = 0.99
        if named:
            weights.log_odds[:, -1] = -4.0
    return module


def minibatches(model: FactorVI) -> MosaicDataModule:
    prepared = model._cells(None)
    parts = (model.train_indices_, model.validation_indices_, model.test_indices_)
    return MosaicDataModule(
        prepared.data,
        prepared.dataset.encoder_inputs,
        batch_size=64,
        seed=0,
        external_indexing=parts,
    )


def test_true_factors_add_and_noise_does_not(model: FactorVI) -> None:
    module = with_noise(model)
    dataset = model._cells(None).dataset
    found = judge(module, dataset, model.train_indices_, len(model.train_indices_), seed=0)
    assert found.factors[0] == module.n_latent - 1
    assert found.share[0] < SHARES[0]
    assert (found.share[1:] > 10 * DOUBTFUL_SHARE).all()


@pytest.mark.parametrize("named", [False, True])
def test_noise_is_dropped_whatever_its_name(model: FactorVI, named: bool) -> None:
    module = with_noise(model, named=named)
    before = module.n_latent
    left = drop_surplus(module, minibatches(model), learning_rate=0.005, seed=0)
    assert left == list(range(before - 1))
    assert module.n_latent == len(left)


def test_what_a_factor_must_add_falls_with_cells() -> None:
    share, nats, free = np.array([0.005, 0.02]), np.array([0.5, 3.0]), np.zeros(2, dtype=bool)
    for n_cells, least in ((100, 0.0125), (1200, 0.01), (2400, 0.005), (90_000, 0.003)):
        found = _judgement._margin(share, nats * 0, free, n_cells, None)
        np.testing.assert_allclose(found, share / least)
    # A gene set asked for it.
    np.testing.assert_allclose(_judgement._margin(share, nats, ~free, 100, None), share / 0.003)
    # A small share of what strong factors explain, which is nats enough.
    found = _judgement._margin(share / 100, nats, free, 10_000, None)
    np.testing.assert_allclose(found, [0.5, 3.0])
    np.testing.assert_allclose(_judgement._margin(share, nats, free, 100, 0.01), [0.5, 2.0])
    np.testing.assert_allclose(_judgement._margin(-share, nats, free, 100, 0.0), 1.0)


def test_factors_that_are_lost_go_whatever_they_add(model: FactorVI) -> None:
    module = copy.deepcopy(model.module)
    left = drop_surplus(module, minibatches(model), learning_rate=0.005, seed=0, lost=[0, 2])
    assert left == [1]
    assert module.n_latent == 1


def test_all_are_judged_where_the_weakest_are_surplus(
    model: FactorVI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged in turns of one, noise goes as well as when all are judged at once."""
    module = with_noise(model)
    module.keep(torch.tensor([0, 1, 2, 3, 3]))
    with torch.no_grad():
        for weights in module.weights.values():
            weights.loc[:, 4] = -0.5 * weights.loc[:, 3].flip(0)
    monkeypatch.setattr(_judgement, "N_JUDGED", 1)
    left = drop_surplus(module, minibatches(model), learning_rate=0.005, seed=0)
    assert left == [0, 1, 2]


def test_nothing_changes_where_nothing_is_surplus(model: FactorVI) -> None:
    module = copy.deepcopy(model.module)
    assert len(drop_surplus(module, minibatches(model), learning_rate=0.005, seed=0)) == 3
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor), name


def test_halves_part_the_values_and_hidden_ones_are_not_read(model: FactorVI) -> None:
    module = model.module
    batch = model._cells(None).dataset.fetch(np.arange(50))
    halves = halve(module, batch, np.random.default_rng(0))
    for name in module.modalities:
        assert not (halves.shown[name] & halves.hidden[name]).any()
        assert (halves.shown[name] | halves.hidden[name]).all()
    kept = torch.ones(module.n_latent, dtype=torch.bool)
    fit = CellFit(module, module.feature_embeddings(), kept, n_train=200)
    before = fit.infer(halves)
    for part in batch.modalities.values():
        dense = part.values.to_dense()
        assert dense.shape[0] == 50
    other = Halves(batch, halves.shown, {n: ~h for n, h in halves.hidden.items()})
    assert torch.equal(fit.infer(other), before)


def test_predictions_are_whole_densities(model: FactorVI) -> None:
    """Networks are compared whose dispersions differ: nothing that these change may be left out."""
    cells = np.arange(30)
    batch = model._cells(None).dataset.fetch(cells)
    halves = halve(model.module, batch, np.random.default_rng(0))
    part, hidden = batch.modalities["one"], halves.hidden["one"].numpy()
    counts = part.values.to_dense().numpy()
    for shift in (0.0, -1.0):
        module = copy.deepcopy(model.module)
        decoder = module.decoders["one"]
        with torch.no_grad():
            decoder.feature_parameters["log_dispersion"] += shift
        kept = torch.ones(module.n_latent, dtype=torch.bool)
        fit = CellFit(module, module.feature_embeddings(), kept, n_train=200)
        point = torch.zeros(len(cells), module.n_latent + len(fit.depths))
        found = fit.predict(halves, point)["one"].numpy()
        parameters = decoder.distribution(
            point[:, : module.n_latent], part.batch, part.library_size, linked=fit.weights["one"]
        )
        mean, theta = (
            parameters[name].detach().double().numpy() for name in ("mean", "dispersion")
        )
        nats = stats.nbinom.logpmf(counts, theta, theta / (theta + mean))
        np.testing.assert_allclose(found, (nats * hidden).sum(1), rtol=1e-4)


def test_a_factor_without_weights_adds_nothing(model: FactorVI) -> None:
    """More steps alone predict better: with and without it, there must be as many."""
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for weights in module.weights.values():
            weights.loc[:, 1] = 0.0
    cells = np.arange(40)
    found = unseen_nats(module, model._cells(None).dataset, cells, [1, 0], n_train=200, seed=0)
    for name, table in found.items():
        np.testing.assert_allclose(table[:, 2], table[:, 1], rtol=1e-4, err_msg=name)
        assert table[:, 1].mean() > table[:, 3].mean(), name


def test_each_step_is_better_and_many_find_the_maximum(
    model: FactorVI, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = model.module
    batch = model._cells(None).dataset.fetch(np.arange(40))
    halves = halve(module, batch, np.random.default_rng(0))
    kept = torch.ones(module.n_latent, dtype=torch.bool)
    fit = CellFit(module, module.feature_embeddings(), kept, n_train=200)
    spread = torch.tensor([1.0] * module.n_latent + list(fit.depths.values())).expand(40, -1)
    before = fit._slopes(halves, torch.zeros_like(spread), spread)[0]
    for n_steps in (4, 12, 200):
        monkeypatch.setattr(_unseen, "N_STEPS", n_steps)
        point = fit.infer(halves)
        value = fit._slopes(halves, point, spread)[0]
        assert (value >= before).all()
        before = value
    for column in range(point.shape[1]):
        for step in (-0.2, 0.2):
            moved = point.clone()
            moved[:, column] += step * spread[:, column].sqrt()
            assert (fit._slopes(halves, moved, spread)[0] < value + 0.05).all()


def test_slopes_against_differences(model: FactorVI) -> None:
    module = model.module
    part = model._cells(None).dataset.fetch(np.arange(20)).modalities["one"]
    decoder, weights = module.decoders["one"], module.weights["one"].mean().detach()
    generator = torch.Generator().manual_seed(1)
    z, depth = 0.5 * torch.randn(20, module.n_latent, generator=generator), torch.zeros(20)
    slope = head_slope(decoder, part, z, weights, log_depth=depth)
    step = 0.01
    for k in range(module.n_latent):
        up, down = z.clone(), z.clone()
        up[:, k] += step
        down[:, k] -= step
        nats = [
            head_slope(decoder, part, each, weights, log_depth=depth).nats for each in (up, down)
        ]
        numeric = (nats[0] - nats[1]) / (2 * step)
        torch.testing.assert_close(slope.heads @ weights[:, k], numeric, rtol=0.02, atol=0.1)
    nats = [head_slope(decoder, part, z, weights, log_depth=depth + s).nats for s in (step, -step)]
    torch.testing.assert_close(slope.depth, (nats[0] - nats[1]) / (2 * step), rtol=0.02, atol=0.1)


@pytest.mark.parametrize("kind", ["nb", "poisson"])
@pytest.mark.parametrize("with_depth", [False, True])
def test_closed_slopes_are_those_of_automatic_differentiation(
    model: FactorVI, kind: str, with_depth: bool
) -> None:
    module = copy.deepcopy(model.module)
    part = model._cells(None).dataset.fetch(np.arange(30)).modalities["one"]
    decoder, weights = module.decoders["one"], module.weights["one"].mean().detach()
    decoder.likelihood = likelihoods.get(kind)
    generator = torch.Generator().manual_seed(1)
    z = 0.5 * torch.randn(30, module.n_latent, generator=generator)
    depth = 0.1 * torch.randn(30, generator=generator) if with_depth else None
    shown = torch.rand(30, len(weights), generator=generator) < 0.5
    closed = closed_slope(
        decoder, part, z, weights, covariates=None, observed=shown, log_depth=depth
    )
    assert closed is not None
    slow = head_slope(decoder, part, z, weights, observed=shown, log_depth=depth)
    scale = slow.heads.abs().max()
    torch.testing.assert_close(closed.heads, slow.heads, rtol=1e-3, atol=float(1e-4 * scale))
    # Their log-probabilities differ by what factors do not change.
    other = closed_slope(
        decoder, part, 0 * z, weights, covariates=None, observed=shown, log_depth=depth
    )
    before = head_slope(decoder, part, 0 * z, weights, observed=shown, log_depth=depth)
    assert other is not None
    torch.testing.assert_close(
        closed.nats - other.nats, slow.nats - before.nats, rtol=1e-3, atol=0.02
    )
    if with_depth:
        torch.testing.assert_close(closed.depth, slow.depth, rtol=1e-3, atol=0.05)
        if kind == "nb":
            torch.testing.assert_close(
                closed.depth_information, slow.depth_information, rtol=1e-3, atol=0.05
            )


@pytest.mark.parametrize("with_depth", [False, True])
def test_slopes_with_tensors_are_the_compiled_ones(model: FactorVI, with_depth: bool) -> None:
    """Double precision takes the path that accelerators take."""
    module = copy.deepcopy(model.module)
    part = model._cells(None).dataset.fetch(np.arange(150)).modalities["one"]
    decoder, weights = module.decoders["one"], module.weights["one"].mean().detach()
    decoder.likelihood = likelihoods.get("nb")
    generator = torch.Generator().manual_seed(1)
    z = 0.5 * torch.randn(150, module.n_latent, generator=generator)
    depth = 0.1 * torch.randn(150, generator=generator) if with_depth else None
    shown = torch.rand(150, len(weights), generator=generator) < 0.5
    rest = {"covariates": None, "observed": shown}
    compiled = closed_slope(decoder, part, z, weights, log_depth=depth, **rest)
    wide = None if depth is None else depth.double()
    tensors = closed_slope(
        decoder.double(), part, z.double(), weights.double(), log_depth=wide, **rest
    )
    assert compiled is not None
    assert tensors is not None
    assert tensors.heads.dtype == torch.float64
    for name in ("nats", "heads", "depth", "depth_information"):
        one, other = getattr(compiled, name).double(), getattr(tensors, name)
        scale = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * max(scale, 1e-3))


@pytest.mark.parametrize("kind", ["zinb", "bernoulli", "normal", "nb_mixture"])
def test_other_likelihoods_have_no_closed_slope(kind: str) -> None:
    likelihood = likelihoods.get(kind)
    if hasattr(likelihood, "mean_slope"):
        assert likelihood.mean_slope(torch.ones(1, 1), {}) is None


def test_a_fit_that_predicts_worse_without_a_factor_keeps_it(
    model: FactorVI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if its bound were better: trials of true factors, with bounds that favour none."""
    module = copy.deepcopy(model.module)
    monkeypatch.setattr(_surplus, "negative_bound", lambda each, *_: float(each.n_latent))
    monkeypatch.setattr(_surplus, "N_STEPS", 2)
    monkeypatch.setattr(_surplus, "DOUBTFUL_SHARE", 1.0)
    left = drop_surplus(module, minibatches(model), learning_rate=0.005, seed=0)
    assert left == [0, 1, 2]
    # With the bound alone they would go.
    monkeypatch.setattr(_surplus, "N_ERRORS", 1e9)
    given = {"learning_rate": 0.005, "seed": 0, "least_share": 0.0}
    assert len(drop_surplus(module, minibatches(model), **given)) == 1


def test_depth_variance_is_that_of_sums(model: FactorVI) -> None:
    """Against draws: counts that vary by gamma noise sum to more or less than their depth."""
    decoder = copy.deepcopy(model.module.decoders["one"])
    rng = np.random.default_rng(0)
    n_features = decoder.biases[decoder.mean_head].shape[0]
    bias, theta = rng.normal(0, 1.2, n_features), np.exp(rng.normal(np.log(2), 0.4, n_features))
    with torch.no_grad():
        decoder.biases[decoder.mean_head].copy_(torch.as_tensor(bias))
        decoder.feature_parameters["log_dispersion"].copy_(torch.as_tensor(np.log(theta)))
    share = np.exp(bias) / np.exp(bias).sum()
    sums = (share * rng.gamma(theta, 1 / theta, (20_000, n_features))).sum(1)
    variance = depth_variance(decoder)
    assert variance is not None
    np.testing.assert_allclose(variance, 4 * sums.var(), rtol=0.05)


def test_judgements_follow_factors_that_are_renumbered() -> None:
    share = np.array([0.0, 0.001, 0.0015, 0.3])
    first = Judgement([4, 0, 5, 2], share, share / 0.01)
    assert first.surplus() == [4, 0, 5]
    rest = first.without_weakest()
    assert rest.factors == [0, 4, 2]  # the factor that was 5
    again = rest.and_then(Judgement([4, 0], np.array([0.0, 0.2]), np.array([0.0, 20.0])))
    assert again.factors == [4, 0, 2]
    np.testing.assert_allclose(again.share, [0.0, 0.2, 0.3])
    assert again.surplus() == [4]
    assert Judgement([1], np.zeros(1), np.zeros(1)).without_weakest().factors == []


def test_each_factor_is_held_against_its_own_least() -> None:
    found = Judgement([1, 3, 2], np.array([0.004, 0.005, 0.4]), np.array([1.3, 0.5, 40.0]))
    assert found.surplus() == [3]
    rest = found.without_weakest()
    assert rest.factors == [1, 2]
    np.testing.assert_allclose(rest.margin, [1.3, 40.0])
    assert rest.surplus() == []


def test_a_bound_must_be_better_by_more_than_its_noise(
    model: FactorVI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_surplus, "N_STEPS", 2)
    monkeypatch.setattr(_surplus, "DOUBTFUL_SHARE", 1.0)
    monkeypatch.setattr(_surplus, "N_ERRORS", 1e9)
    given = {"learning_rate": 0.005, "seed": 0, "least_share": 0.0}
    for gain, left in ((0.9, 3), (1.1, 1)):
        step = gain * _surplus.LEAST_BETTER
        bound = lambda each, *_, step=step: step * each.n_latent  # noqa: E731
        monkeypatch.setattr(_surplus, "negative_bound", bound)
        module = copy.deepcopy(model.module)
        assert len(drop_surplus(module, minibatches(model), **given)) == left
