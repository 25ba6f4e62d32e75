"""Log density of whole cells: sparse against dense, masks, panels, gradients, extreme counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special as special
import scipy.stats as stats
import torch
from tests.likelihood_helpers import COUNTS, draw_counts, draw_parameters

from mosaicvi import likelihoods
from mosaicvi._types import SparseCounts


def _sums(
    name: str,
    values: SparseCounts | torch.Tensor,
    parameters: dict[str, torch.Tensor],
    **kwargs: Any,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Cell sums, and gradients by parameters of a weighted sum of them."""
    leaves = {key: value.detach().clone().requires_grad_() for key, value in parameters.items()}
    for key in leaves:
        if f"log_{key}" in leaves:
            leaves[key] = leaves[f"log_{key}"].exp()
    total = likelihoods.get(name).log_prob(values, leaves, **kwargs)
    weights = torch.linspace(0.5, 2.0, total.numel(), dtype=total.dtype).view(total.shape)
    (total * weights).sum().backward()
    return total.detach(), {
        key: leaf.grad for key, leaf in leaves.items() if leaf.is_leaf and leaf.grad is not None
    }


def _entry_sums(
    name: str, x: torch.Tensor, parameters: dict[str, torch.Tensor], observed: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The same through dense entries."""
    leaves = {key: value.detach().clone().requires_grad_() for key, value in parameters.items()}
    entries = likelihoods.get(name).log_prob_entries(x, leaves)
    total = torch.where(observed, entries, 0.0).sum(-1)
    weights = torch.linspace(0.5, 2.0, total.numel(), dtype=total.dtype).view(total.shape)
    (total * weights).sum().backward()
    return total.detach(), {k: leaf.grad for k, leaf in leaves.items() if leaf.grad is not None}


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", COUNTS)
def test_sparse_rows_equal_dense_entries(
    name: str, masked: bool, leading: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mosaicvi.likelihoods import _math

    monkeypatch.setattr(_math, "_BLOCK_ENTRIES", 50)  # several blocks
    x = draw_counts(7, 9)
    parameters = draw_parameters(name, (*leading, 7, 9))
    observed = torch.rand(7, 9) > (0.4 if masked else -1.0)
    sparse = SparseCounts.from_dense(x)
    # one explicit zero, which a file may hold
    sparse.values[3] = 0.0
    x = sparse.to_dense()
    expected, slopes = _entry_sums(name, x, parameters, observed)
    for values in (sparse, x):
        actual, gradients = _sums(name, values, parameters, observed=observed if masked else None)
        assert actual.shape == (*leading, 7)
        torch.testing.assert_close(actual, expected)
        assert gradients.keys() == slopes.keys()
        for key, slope in slopes.items():
            torch.testing.assert_close(gradients[key], slope, msg=key)


@pytest.mark.parametrize("name", COUNTS)
def test_gradients_by_finite_differences(name: str) -> None:
    likelihood = likelihoods.get(name)
    x = SparseCounts.from_dense(draw_counts(3, 5))
    heads = [
        torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True) for _ in likelihood.heads
    ]
    features = [
        torch.randn(5, dtype=torch.float64, requires_grad=True)
        for _ in likelihood.feature_parameters
    ]
    library = torch.tensor([3.0, 20.0, 100.0], dtype=torch.float64)
    panel = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [1, 1, 1, 0, 0]]).bool()

    def total(*arguments: torch.Tensor) -> torch.Tensor:
        parameters = likelihood.parameters(
            {head.name: a for head, a in zip(likelihood.heads, arguments, strict=False)},
            dict(zip(likelihood.feature_parameters, arguments[len(heads) :], strict=True)),
            library_size=library if likelihood.uses_library_size else None,
            panel=panel,
        )
        return likelihood.log_prob(x, parameters, observed=panel)

    assert torch.autograd.gradcheck(total, (*heads, *features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", COUNTS)
def test_dispersion_may_differ_between_cells(name: str) -> None:
    x = draw_counts(4, 6)
    parameters = draw_parameters(name, (2, 4, 6))
    spread = {
        key: value.expand(4, 6) * torch.rand(4, 6) if "dispersion" in key else value
        for key, value in parameters.items()
    }
    expected, slopes = _entry_sums(name, x, spread, torch.ones(4, 6, dtype=torch.bool))
    actual, gradients = _sums(name, SparseCounts.from_dense(x), spread)
    torch.testing.assert_close(actual, expected)
    for key, slope in slopes.items():
        torch.testing.assert_close(gradients[key], slope)


@pytest.mark.parametrize("name", [*COUNTS, "normal"])
def test_masked_entries_add_nothing(name: str) -> None:
    """Hidden values, even absurd ones, change neither value nor gradient by a bit."""
    x = draw_counts(6, 8).float()
    parameters = draw_parameters(name, (6, 8), torch.float32)
    observed = torch.rand(6, 8) > 0.5
    kept, kept_gradients = _sums(name, x, parameters, observed=observed)
    absurd = torch.where(observed, x, torch.nan if name == "normal" else 1e6)
    again, gradients = _sums(name, absurd, parameters, observed=observed)
    assert torch.equal(kept, again)
    for key, gradient in kept_gradients.items():
        assert torch.equal(gradient, gradients[key])
        if gradient.shape == observed.shape:
            assert (gradient[~observed] == 0).all()


@pytest.mark.parametrize("name", ["nb", "zinb", "poisson"])
def test_softmax_runs_over_measured_features_only(name: str) -> None:
    likelihood = likelihoods.get(name)
    panel = torch.rand(5, 12) > 0.4
    panel[:, 0] = True
    panel[4] = False  # a cell measured nowhere must not produce NaN
    heads = {head.name: torch.randn(5, 12, requires_grad=True) for head in likelihood.heads}
    features = {key: torch.zeros(12) for key in likelihood.feature_parameters}
    library = torch.tensor([10.0, 100.0, 1000.0, 0.0, 7.0])
    parameters = likelihood.parameters(heads, features, library_size=library, panel=panel)
    mean = parameters["mean"]
    expected = torch.softmax(heads["mean"][0][panel[0]], -1) * 10.0
    torch.testing.assert_close(mean[0][panel[0]], expected)
    torch.testing.assert_close(mean[:4].sum(-1), library[:4], atol=1e-5, rtol=1e-5)
    assert (mean[:4][~panel[:4]] == 0).all()
    value = likelihood.log_prob(torch.zeros(5, 12), parameters, observed=panel)
    value.sum().backward()
    assert value[4] == 0
    for head in heads.values():
        assert head.grad is not None
        assert head.grad.isfinite().all()
        assert (head.grad[~panel] == 0).all()


@pytest.mark.parametrize("name", [*COUNTS, "normal"])
def test_extreme_values_stay_finite(name: str) -> None:
    likelihood = likelihoods.get(name)
    x = torch.tensor([[0.0, 1e6, 1.0, 0.0], [1e6, 1e6, 1e6, 1e6], [0.0, 0.0, 0.0, 0.0]])
    for scale in (-60.0, -1.0, 0.0, 1.0, 60.0):
        heads = {
            head.name: torch.tensor([[1.0, -1.0, 0.5, 0.0]]).repeat(3, 1).mul_(scale)
            for head in likelihood.heads
        }
        for log_parameter in (-50.0, 50.0):
            features = {
                key: torch.full((4,), log_parameter, requires_grad=True)
                for key in likelihood.feature_parameters
            }
            leaves = {key: head.clone().requires_grad_() for key, head in heads.items()}
            parameters = likelihood.parameters(
                leaves, features, library_size=torch.tensor([1e6, 4e6, 0.0]), panel=None
            )
            value = likelihood.log_prob(x, parameters)
            assert value.isfinite().all()
            value.sum().backward()
            # A feature's scale is not learnt.
            learnt = [each for key, each in features.items() if key != "log_scale"]
            for leaf in (*leaves.values(), *learnt):
                assert leaf.grad is not None
                assert leaf.grad.isfinite().all()


def test_a_parameter_outside_its_range_finds_the_way_back() -> None:
    from mosaicvi.likelihoods._math import one_way_clamp

    x = torch.tensor([-3.0, 0.0, 3.0], requires_grad=True)
    clamped = one_way_clamp(x, -1.0, 1.0)
    assert clamped.tolist() == [-1.0, 0.0, 1.0]
    (inwards,) = torch.autograd.grad(clamped @ torch.tensor([-1.0, 1.0, 1.0]), x, retain_graph=True)
    assert inwards.tolist() == [-1.0, 1.0, 1.0]
    (outwards,) = torch.autograd.grad(clamped @ torch.tensor([1.0, 1.0, -1.0]), x)
    assert outwards.tolist() == [0.0, 1.0, 0.0]


def _wide_oracle(
    name: str, x: np.ndarray, heads: dict[str, np.ndarray], theta: np.ndarray, library: np.ndarray
) -> np.ndarray:
    """Log density of each cell by scipy in float64, from the decoder's heads."""
    mean = library[:, None] * special.softmax(heads["mean"], -1)
    if name == "poisson":
        return np.asarray(stats.poisson.logpmf(x, mean).sum(-1))
    coefficient = -np.log(np.maximum(x, 1)) - special.betaln(np.maximum(x, 1), theta)
    count = np.where(x > 0, coefficient, 0) - theta * np.log1p(mean / theta)
    count = count - x * np.log1p(theta / mean)
    if name == "zinb":
        rest = count + special.log_expit(-heads["dropout"])
        count = np.where(x > 0, rest, np.logaddexp(special.log_expit(heads["dropout"]), rest))
    return np.asarray(count.sum(-1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("dropout", [-60.0, -3.0, 40.0])
@pytest.mark.parametrize("name", ["nb", "zinb", "poisson"])
def test_heads_to_density_equal_scipy(name: str, dropout: float, dtype: torch.dtype) -> None:
    """Counts of 1e6, dispersions from 1e-3 to 1e4, cells without counts, odd numbers of features.

    Dropout below -20 takes the branch without products of probabilities.
    """
    likelihood = likelihoods.get(name)
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.rand(6, 131, generator=generator) * 3, generator=generator)
    x[0], x[1, :3] = 0.0, torch.tensor([1e6, 1e6, 12345.0])
    heads = {
        head.name: torch.randn(6, 131, generator=generator).to(dtype) for head in likelihood.heads
    }
    if "dropout" in heads:
        heads["dropout"] += dropout
    log_theta = torch.linspace(np.log(1e-3), np.log(1e4), 131).to(dtype)
    library = x.sum(-1).clamp(min=1.0).to(dtype)
    actual = likelihood.log_prob_of_heads(
        SparseCounts.from_dense(x.to(dtype)),
        heads,
        dict.fromkeys(likelihood.feature_parameters, log_theta),
        library_size=library,
        panel=None,
    )
    expected = _wide_oracle(
        name,
        x.double().numpy(),
        {key: head.double().numpy() for key, head in heads.items()},
        log_theta.double().exp().numpy(),
        library.double().numpy(),
    )
    tolerance = 1e-9 if dtype == torch.float64 else 2e-5
    np.testing.assert_allclose(actual.double().numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("blocks", [1 << 20, 30])
@pytest.mark.parametrize("name", ["nb", "zinb", "poisson", "bernoulli"])
def test_heads_to_density_by_finite_differences(
    name: str, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients through softmax and density at once, with draws, a panel and an empty cell."""
    from mosaicvi.likelihoods import _math

    monkeypatch.setattr(_math, "_BLOCK_ENTRIES", blocks)
    likelihood = likelihoods.get(name)
    x = draw_counts(3, 5)
    x[2] = 0.0
    if name == "bernoulli":
        x = (x > 0).to(x.dtype)
    heads = [
        torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True) for _ in likelihood.heads
    ]
    features = [
        torch.randn(5, dtype=torch.float64, requires_grad=True)
        for _ in likelihood.feature_parameters
    ]
    library = torch.tensor([3.0, 20.0, 100.0], dtype=torch.float64)
    panel = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [1, 1, 1, 0, 0]]).bool()

    def total(*arguments: torch.Tensor) -> torch.Tensor:
        return likelihood.log_prob_of_heads(
            SparseCounts.from_dense(x),
            {head.name: a for head, a in zip(likelihood.heads, arguments, strict=False)},
            dict(zip(likelihood.feature_parameters, arguments[len(heads) :], strict=True)),
            library_size=library,
            panel=panel,
            observed=panel,
        )

    assert torch.autograd.gradcheck(total, (*heads, *features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("with_panel", [False, True])
@pytest.mark.parametrize("name", [*COUNTS, "normal"])
def test_heads_to_density_is_the_density_at_the_parameters(name: str, with_panel: bool) -> None:
    """What training maximises is what every answer is drawn from, feature parameters included."""
    likelihood = likelihoods.get(name)
    x = draw_counts(3, 5)
    if name == "bernoulli":
        x = (x > 0).to(x.dtype)
    keys = [*(head.name for head in likelihood.heads), *likelihood.feature_parameters]
    shapes = [(2, 3, 5)] * len(likelihood.heads) + [(5,)] * len(likelihood.feature_parameters)
    leaves = {
        k: torch.randn(s).double().requires_grad_() for k, s in zip(keys, shapes, strict=True)
    }
    heads = {head.name: leaves[head.name] for head in likelihood.heads}
    features = {key: leaves[key] for key in likelihood.feature_parameters}
    panel = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [1, 1, 1, 0, 0]]).bool()
    x = torch.where(panel, x, 0.0) if with_panel else x
    given = {
        "library_size": x.sum(-1).clamp(min=1.0) if likelihood.uses_library_size else None,
        "panel": panel if with_panel else None,
    }
    observed = given["panel"]
    actual = likelihood.log_prob_of_heads(x, heads, features, **given, observed=observed)
    parameters = likelihood.parameters(heads, features, **given)
    expected = likelihood.log_prob(x, parameters, observed=observed)
    torch.testing.assert_close(actual, expected)
    for key, leaf in leaves.items():
        if key == "log_scale":  # not learnt
            continue
        slopes = [
            torch.autograd.grad(v.sum(), leaf, retain_graph=True)[0] for v in (actual, expected)
        ]
        torch.testing.assert_close(*slopes, msg=key)


@torch.no_grad()
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["nb", "zinb", "poisson", "bernoulli"])
def test_networks_in_half_precision_leave_densities_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, weighted: bool
) -> None:
    # compiled functions, which know nothing of autocast, are for processors only
    monkeypatch.setattr("mosaicvi.likelihoods._rows.fused_rows", lambda *_, **__: None)
    likelihood = likelihoods.get(name)
    n_cells, n_features = 20, 1000
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.rand(n_cells, n_features, generator=generator), generator)
    heads = {
        head.name: torch.randn(n_cells, n_features, generator=generator)
        for head in likelihood.heads
    }
    features = {key: torch.zeros(n_features) for key in likelihood.feature_parameters}
    weights = 1 + torch.rand(n_features, generator=generator) if weighted else None

    def density() -> torch.Tensor:
        given = {"library_size": x.sum(-1), "panel": None}
        if weighted:
            return likelihood.log_prob_of_heads(x, heads, features, **given, weights=weights)
        return likelihood.log_prob(x, likelihood.parameters(heads, features, **given))

    expected = density()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(density(), expected)
