"""Embeddings tied by the feature graph, against dense matrices and sums over all edges."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from mosaicvi.nn import _graph_prior
from mosaicvi.nn._graph_prior import FeatureGraphPrior, GraphArrays

SIZES = (9, 6, 4)
N_FEATURES, N_LATENT = sum(SIZES), 3
UNLINKED = (8, 14, 18)


def arrays(seed: int = 0, n_edges: int = 24) -> GraphArrays:
    """Edges between and within modalities; one feature of each has none."""
    rng = np.random.default_rng(seed)
    linked = np.setdiff1d(np.arange(N_FEATURES), UNLINKED)
    every = np.array([(i, j) for i in linked for j in linked if i < j])
    source, target = every[rng.choice(len(every), n_edges, replace=False)].T
    sign = rng.choice([-1.0, 1.0], n_edges)
    return GraphArrays(source, target, sign, rng.uniform(0.1, 1.0, n_edges), SIZES)


def make(given: GraphArrays, seed: int = 1) -> FeatureGraphPrior:
    torch.manual_seed(seed)
    prior = FeatureGraphPrior(given, N_LATENT, prior_scale=0.1)
    with torch.no_grad():
        prior.own.mul_(20)
        prior.log_scale.fill_(0.4)
    return prior


def dense_embeddings(given: GraphArrays, own: np.ndarray) -> np.ndarray:
    """D^(-1/2) (signed A + I) D^(-1/2) e with D of the weights, as dense matrices."""
    signed, weight = np.zeros((2, N_FEATURES, N_FEATURES))
    for i, j, s, w in zip(given.source, given.target, given.sign, given.weight, strict=True):
        signed[i, j] = signed[j, i] = s * w
        weight[i, j] = weight[j, i] = w
    root = np.diag((1 + weight.sum(1)) ** -0.5)
    product: np.ndarray = root @ (signed + np.eye(N_FEATURES)) @ root @ own
    return product


def exact_loss(given: GraphArrays, v: np.ndarray, scale: float) -> float:
    """Weighted mean over all edges, and over all features in the place of each target."""
    degree = np.zeros(N_FEATURES)
    for i, j, w in zip(given.source, given.target, given.weight, strict=True):
        degree[[i, j]] += w > 0
    code = np.repeat(np.arange(len(SIZES)), SIZES)
    total = 0.0
    for i, j, s, w in zip(given.source, given.target, given.sign, given.weight, strict=True):
        mass = np.where(code == code[j], degree**0.75, 0.0)
        wrong = np.log1p(np.exp(scale * s * (v @ v[i])))
        right = np.log1p(np.exp(-scale * s * (v[i] @ v[j])))
        total += w * (right + (mass / mass.sum()) @ wrong)
    return float(total / given.weight.sum())


def mean_loss(prior: FeatureGraphPrior, n_draws: int) -> tuple[float, float]:
    """Mean over draws, and its standard error."""
    with torch.no_grad():
        v = prior.embeddings()
        drawn = np.array([prior.edge_loss(v).item() for _ in range(n_draws)])
    return float(drawn.mean()), float(drawn.std() / np.sqrt(n_draws))


def test_embeddings_equal_a_dense_convolution() -> None:
    given = arrays()
    prior = make(given)
    expected = dense_embeddings(given, prior.own.detach().double().numpy())
    np.testing.assert_allclose(prior.embeddings().detach().numpy(), expected, atol=1e-5)


def test_features_without_edges_keep_their_own() -> None:
    prior = make(arrays())
    torch.testing.assert_close(prior.embeddings()[list(UNLINKED)], prior.own[list(UNLINKED)])
    empty = GraphArrays.blank(0, SIZES)
    alone = make(empty)
    torch.testing.assert_close(alone.embeddings(), alone.own)
    assert alone.edge_loss(alone.embeddings()) == 0


@pytest.mark.parametrize("what", ["sign", "weight"])
def test_sign_and_weight_count_where_the_edge_ends_and_in_the_loss(what: str) -> None:
    given = arrays()
    edge = int(np.argmax(given.weight))
    changed = getattr(given, what).copy()
    changed[edge] = -changed[edge] if what == "sign" else 0.3 * changed[edge]
    other = replace(given, **{what: changed})
    before, after = make(given), make(other)
    moved = (before.embeddings() - after.embeddings()).abs().sum(-1) > 1e-4
    ends = {int(given.source[edge]), int(given.target[edge])}
    neighbours = {
        int(k)
        for i, j in zip(given.source, given.target, strict=True)
        for k in (i, j)
        if ends & {int(i), int(j)}
    }
    found = set(moved.nonzero().flatten().tolist())
    # A weight changes the degree, and so what the ends' neighbours take of them.
    assert found == ends if what == "sign" else ends <= found <= neighbours
    expected = [
        exact_loss(g, dense_embeddings(g, before.own.detach().double().numpy()), np.exp(0.4))
        for g in (given, other)
    ]
    assert abs(expected[0] - expected[1]) > 1e-3
    for prior, value in zip((before, after), expected, strict=True):
        mean, error = mean_loss(prior, 120)
        assert mean == pytest.approx(value, abs=4.5 * error)
        assert 4.5 * error < 0.1 * value


@pytest.mark.parametrize("n_scored", [16, 512, 4096])
def test_expected_loss_does_not_depend_on_the_number_drawn(
    n_scored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arrays(3)
    prior = make(given)
    v = prior.embeddings().detach().double().numpy()
    monkeypatch.setattr(_graph_prior, "N_SCORED", n_scored)
    mean, error = mean_loss(prior, 3000 if n_scored < 100 else 300)
    assert mean == pytest.approx(exact_loss(given, v, np.exp(0.4)), abs=4.5 * error)
    assert error < 0.02 * mean


def test_edges_of_weight_zero_are_no_edges() -> None:
    given = arrays(4)
    # Two edges more, of features that had none: were they counted, negatives would be drawn there.
    more = replace(
        given,
        source=np.append(given.source, [8, 8]),
        target=np.append(given.target, [14, 18]),
        sign=np.append(given.sign, [1.0, -1.0]),
        weight=np.append(given.weight, [0.0, 0.0]),
    )
    few, many = make(given), make(more)
    torch.testing.assert_close(few.embeddings(), many.embeddings())
    with torch.no_grad():
        # Of features without edges, only a wrongly drawn negative would read these.
        many.own[list(UNLINKED)] = 1e3
    mean, error = mean_loss(many, 200)
    v = few.embeddings().detach().double().numpy()
    assert mean == pytest.approx(exact_loss(given, v, np.exp(0.4)), abs=4.5 * error)


def test_negatives_stay_in_the_modality_of_the_target_and_on_linked_features() -> None:
    prior = make(arrays())
    code = np.repeat(np.arange(len(SIZES)), SIZES)
    target = prior.target.repeat(200)
    drawn = prior._negatives(target)
    np.testing.assert_array_equal(code[drawn.numpy()], code[target.numpy()])
    assert not np.isin(drawn.numpy(), UNLINKED).any()


def test_split_gives_each_modality_its_features_in_order() -> None:
    prior = make(arrays())
    parts = prior.split(prior.own)
    assert [len(part) for part in parts] == list(SIZES)
    torch.testing.assert_close(torch.cat(parts), prior.own)


def test_the_arrays_of_a_graph_are_copied() -> None:
    """A graph's arrays are read-only: no warning of torch, and no way to write into them."""
    given = arrays()
    for values in (given.source, given.target, given.sign, given.weight):
        values.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior = make(given)
    before = given.source.copy()
    prior.load_state_dict(make(arrays(7)).state_dict())
    np.testing.assert_array_equal(given.source, before)


def test_negative_log_prior_is_gaussian_up_to_a_constant() -> None:
    prior = make(arrays())
    normal = torch.distributions.Normal(0.0, 0.1)
    constant = normal.log_prob(torch.tensor(0.0)) * prior.own.numel()
    expected = constant - normal.log_prob(prior.own).sum()
    torch.testing.assert_close(prior.negative_log_prior(), expected)


def test_learning_raises_the_score_of_edges_with_their_sign() -> None:
    prior = make(arrays(5))
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (prior.edge_loss(prior.embeddings()) + 1e-4 * prior.negative_log_prior()).backward()
        optimizer.step()
    v = prior.embeddings().detach()
    agreement = prior.sign * (v[prior.source] * v[prior.target]).sum(-1)
    assert (agreement > 0).float().mean() > 0.85


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], ids=["cpu", "cuda"]
)
def test_many_features_take_memory_of_their_edges(device: str) -> None:
    """A dense square of 200,000 features would be 160 GB."""
    rng = np.random.default_rng(0)
    sizes, n_edges = (25_000, 175_000), 300_000
    source = rng.integers(sizes[0], size=n_edges)
    target = sizes[0] + rng.integers(sizes[1], size=n_edges)
    sign = np.ones(n_edges, dtype=np.int8)
    given = GraphArrays(source, target, sign, rng.uniform(0.1, 1, n_edges), sizes)
    prior = FeatureGraphPrior(given, 4, prior_scale=0.1).to(device)
    v = prior.embeddings()
    loss = prior.edge_loss(v) + prior.negative_log_prior()
    loss.backward()
    assert v.dtype == loss.dtype == torch.float32
    assert v.device.type == loss.device.type == device
    assert prior.own.grad is not None
    assert prior.own.grad.isfinite().all()
