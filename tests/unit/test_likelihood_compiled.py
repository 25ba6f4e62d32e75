"""Compiled densities against the same densities written with tensors, in double precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from mosaicvi import likelihoods
from mosaicvi._compiled import _blocks, _math
from mosaicvi._types import SparseCounts
from mosaicvi.likelihoods import _fused, _nb_mixture, _rows, _wide
from mosaicvi.likelihoods._base import Product

if TYPE_CHECKING:
    from collections.abc import Callable

N_DRAWS, N_CELLS, N_FEATURES = 3, 70, 1500
COUNTED = ["nb", "zinb", "poisson", "bernoulli"]


def drawn(name: str, seed: int = 0, *, spread: float = 1.5) -> dict[str, Any]:
    """Counts from ones to thousands, and parameters, of which dispersions span their range."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    heads = {"mean": spread * normal(N_DRAWS, N_CELLS, N_FEATURES)}
    if name == "zinb":
        heads["dropout"] = 4 * normal(N_DRAWS, N_CELLS, N_FEATURES) - 2
    own = {"nb": "log_dispersion", "zinb": "log_dispersion", "bernoulli": "log_factor"}
    parameters = {own[name]: 3 * normal(N_FEATURES)} if name in own else {}
    library = torch.rand(N_CELLS, generator=generator) * 3000 + 10
    rates = torch.softmax(heads["mean"][0], -1) * library[:, None]
    counts = torch.poisson(rates * torch.exp(normal(N_CELLS, N_FEATURES)), generator)
    counts[3] = 0
    if name == "bernoulli":
        counts = (counts > 0).float()
        # of which each is the number of open regions
        library = library / 4
    return {
        "values": SparseCounts.from_dense(counts),
        "heads": heads,
        "feature_parameters": parameters,
        "library_size": library,
        "panel": None,
    }


def double(given: Any) -> Any:
    """The same in double precision, for which nothing is compiled."""
    if isinstance(given, SparseCounts):
        return given.with_values(given.values.double())
    if isinstance(given, dict):
        return {key: double(each) for key, each in given.items()}
    return given.double() if isinstance(given, Tensor) and given.is_floating_point() else given


def value_and_gradients(name: str, given: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Log density of cells, and the gradient of an uneven sum of them."""
    leaves = {
        key: each.detach().clone().requires_grad_()
        for group in ("heads", "feature_parameters")
        for key, each in given[group].items()
    }
    arguments = dict(given)
    for group in ("heads", "feature_parameters"):
        arguments[group] = {key: leaves[key] for key in given[group]}
    value = likelihoods.get(name).log_prob_of_heads(**arguments)
    weights = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)
    (value * weights).sum().backward()
    return value.detach(), {key: each.grad for key, each in leaves.items() if each.grad is not None}


def assert_same(name: str, given: dict[str, Any]) -> None:
    """Values and gradients are as near to double precision as tensors of single precision."""
    value, gradients = value_and_gradients(name, given)
    expected, slopes = value_and_gradients(name, double(given))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rows, "fused_rows", lambda *_, **__: None)
        tensors, tensor_gradients = value_and_gradients(name, given)
    floor = 1e-6 * float(expected.abs().mean())
    assert (value - expected).abs().max() <= 2 * (tensors - expected).abs().max() + floor
    assert set(gradients) == set(slopes)
    for key, exact in slopes.items():
        error = (gradients[key] - exact).abs().max()
        floor = 1e-6 * float(exact.abs().max())
        assert error <= 2 * (tensor_gradients[key] - exact).abs().max() + floor, key


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What :func:`fused_rows` answered, so that a test knows that it was asked."""
    answers: list[object] = []
    apply: Callable[..., Tensor] = _fused._Fused.apply

    def counted(*args: Any) -> Tensor:
        answers.append(args[0])
        return apply(*args)

    monkeypatch.setattr(_fused._Fused, "apply", counted)
    return answers


@pytest.mark.parametrize("name", COUNTED)
class TestAgainstTensors:
    def test_values_and_gradients(self, name: str, used: list[object]) -> None:
        assert_same(name, drawn(name))
        assert len(used) == 1  # and not for double precision

    def test_weighted_features(self, name: str, used: list[object]) -> None:
        weights = torch.rand(N_FEATURES, generator=torch.Generator().manual_seed(7)) * 4 + 0.5
        assert_same(name, {**drawn(name), "weights": weights})
        assert len(used) == 1

    def test_unmeasured_and_unobserved_entries(self, name: str, used: list[object]) -> None:
        generator = torch.Generator().manual_seed(8)
        panel = torch.rand(N_CELLS, N_FEATURES, generator=generator) < 0.8
        panel[5] = False
        hidden = torch.rand(N_CELLS, N_FEATURES, generator=generator) < 0.3
        assert_same(name, {**drawn(name), "panel": panel, "observed": panel & ~hidden})
        assert len(used) == 1

    def test_extreme_logits(self, name: str, used: list[object]) -> None:
        assert_same(name, drawn(name, spread=8.0))
        assert len(used) == 1

    def test_stored_zeros_and_fractions(self, name: str, used: list[object]) -> None:
        given = drawn(name)
        values = given["values"].values.clone()
        values[::7] = 0
        if name != "bernoulli":
            values[1::7] += 0.25
            values[2::7] = 40_000.0
        assert_same(name, {**given, "values": given["values"].with_values(values)})
        assert len(used) == 1

    def test_unsorted_columns(self, name: str, used: list[object]) -> None:
        given = drawn(name)
        old = given["values"]
        order = torch.cat(
            [
                torch.arange(int(a), int(b)).flip(0)
                for a, b in zip(old.indptr[:-1], old.indptr[1:], strict=True)
            ]
        )
        turned = SparseCounts(old.indptr, old.indices[order], old.values[order], N_FEATURES)
        expected, _ = value_and_gradients(name, given)
        value, _ = value_and_gradients(name, {**given, "values": turned})
        torch.testing.assert_close(value, expected)
        assert len(used) == 2

    def test_bits_do_not_depend_on_the_number_of_threads(self, name: str) -> None:
        given, before = drawn(name), torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            value, gradients = value_and_gradients(name, given)
            torch.set_num_threads(3)
            other, others = value_and_gradients(name, given)
        finally:
            torch.set_num_threads(before)
        assert torch.equal(value, other)
        assert all(torch.equal(gradients[key], others[key]) for key in gradients)


@pytest.mark.parametrize("name", ["nb", "zinb"])
def test_parameters_of_entries_are_left_to_tensors(name: str, used: list[object]) -> None:
    given = drawn(name)
    rows = {key: each.expand(N_CELLS, -1) for key, each in given["feature_parameters"].items()}
    assert_same(name, {**given, "feature_parameters": rows})
    assert not used


def test_exponential_and_logarithm() -> None:
    """Within two units of the last place of numpy's."""
    x = np.linspace(-86, 87, 20_001).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    found = np.array([_math.exp(each) for each in x])
    assert np.abs(found / exact - 1).max() < 2.4e-7
    logs = np.array([_math.log(each) for each in exact.astype(np.float32)])
    expected = np.log(exact.astype(np.float32).astype(np.float64))
    assert np.abs(logs - expected).max() < 2.4e-7 * 90
    small = np.geomspace(1e-30, 1e30, 4001).astype(np.float32)
    ratios = np.array([_math.log1p(each) for each in small])
    assert np.abs(ratios / np.log1p(small.astype(np.float64)) - 1).max() < 3e-7


def test_compiles_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.caching.FunctionCache._impl_class, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(lambda x: x + 1)
    assert _math.compiled(lambda x: x + 1)(2) == 3


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["poisson", "bernoulli"])
class TestWideProducts:
    def products(self, name: str, weighted: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A decoder's product with 2,300 features: two whole chunks and a part of one."""
        generator = torch.Generator().manual_seed(3)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        n_cells, n_features = 40, 2300
        leaves = {
            "inputs": normal(n_cells, 6),
            "embeddings": 0.7 * normal(n_features, 6),
            "bias": normal(n_features),
        }
        if name == "bernoulli":
            leaves["log_factor"] = normal(n_features)
        counts = torch.poisson(torch.rand(n_cells, n_features, generator=generator) * 0.3)
        counts[0, ::3] = 40.0
        counts[1] = 0.0
        if name == "bernoulli":
            counts = (counts > 0).float()
        given = {
            "values": SparseCounts.from_dense(counts),
            "library_size": counts.sum(1),
            "weights": torch.rand(n_features, generator=generator) + 1 if weighted else None,
        }
        return given, leaves

    @pytest.mark.parametrize("folded", [False, True])
    def test_as_the_logits_would_give(
        self, name: str, weighted: bool, folded: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given, leaves = self.products(name, weighted)
        likelihood = likelihoods.get(name)
        monkeypatch.setattr(_wide, "WIDE", 0)
        results = []
        for exact in (False, True):
            tensors = {
                key: (each.double() if exact else each.clone()).requires_grad_()
                for key, each in leaves.items()
            }
            own = {key: each for key, each in tensors.items() if key == "log_factor"}
            product = Product(tensors["inputs"], tensors["embeddings"], tensors["bias"])
            if folded:
                ones = torch.ones(len(product.inputs), 1, dtype=product.inputs.dtype)
                columns = product.embeddings, tensors["bias"].unsqueeze(-1)
                product = Product(torch.cat([product.inputs, ones], 1), torch.cat(columns, 1), None)
            if exact:
                logits = tensors["inputs"] @ tensors["embeddings"].T + tensors["bias"]
                value = likelihood.log_prob_of_heads(
                    heads={"mean": logits}, feature_parameters=own, panel=None, **double(given)
                )
            else:
                found = likelihood.log_prob_of_product(
                    product=product, feature_parameters=own, **given
                )
                assert found is not None
                value = found
            (value * torch.linspace(-1, 1, len(value))).sum().backward()
            results.append((value.detach(), {key: each.grad for key, each in tensors.items()}))
        (value, gradients), (expected, slopes) = results
        torch.testing.assert_close(value.double(), expected, rtol=2e-6, atol=1e-3)
        for key, gradient in gradients.items():
            scale = float(slopes[key].abs().max())
            torch.testing.assert_close(gradient.double(), slopes[key], rtol=1e-4, atol=1e-5 * scale)

    def test_rows_are_shared_among_threads(
        self, name: str, weighted: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Eight rows a block, so that there are five; matrix products may differ in last bits."""
        given, leaves = self.products(name, weighted)
        monkeypatch.setattr(_wide, "WIDE", 0)
        monkeypatch.setattr(_blocks, "ROWS_A_BLOCK", 8)
        own = {key: each for key, each in leaves.items() if key == "log_factor"}
        tensors = [each.requires_grad_() for each in leaves.values()]
        before, results = torch.get_num_threads(), []
        try:
            for n_threads in (1, 3):
                torch.set_num_threads(n_threads)
                value = likelihoods.get(name).log_prob_of_product(
                    product=Product(leaves["inputs"], leaves["embeddings"], leaves["bias"]),
                    feature_parameters=own,
                    **given,
                )
                assert value is not None
                weights = torch.linspace(-1, 1, len(value))
                results.append((value, *torch.autograd.grad((value * weights).sum(), tensors)))
        finally:
            torch.set_num_threads(before)
        for left, right in zip(*results, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-4)

    def test_columns_out_of_order_are_left_to_logits(
        self, name: str, weighted: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given, leaves = self.products(name, weighted)
        monkeypatch.setattr(_wide, "WIDE", 0)
        old = given["values"]
        turned = SparseCounts(old.indptr, old.indices.flip(0), old.values.flip(0), old.n_features)
        own = {key: each for key, each in leaves.items() if key == "log_factor"}
        product = Product(leaves["inputs"], leaves["embeddings"], leaves["bias"])
        value = likelihoods.get(name).log_prob_of_product(
            product=product, feature_parameters=own, **{**given, "values": turned}
        )
        assert value is None


class TestMixture:
    @staticmethod
    def drawn(n_features: int, *, spread: float = 2.0) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(5)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        n_cells = 150
        counts = torch.poisson(torch.exp(2 + 3 * normal(n_cells, n_features)), generator)
        counts[::5] = 0.0
        return {
            "values": counts,
            "heads": {
                "background": 1 + spread * normal(n_cells, n_features),
                "foreground": 1 + spread * normal(n_cells, n_features),
                "mixing": 2 * spread * normal(n_cells, n_features),
            },
            "feature_parameters": {
                "log_dispersion_background": 3 * normal(n_features),
                "log_dispersion_foreground": 3 * normal(n_features),
            },
            "library_size": None,
            "panel": None,
        }

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize(("n_features", "spread"), [(14, 2.0), (1, 2.0), (1100, 2.0), (9, 9.0)])
    def test_against_tensors(self, n_features: int, spread: float, masked: bool) -> None:
        given = self.drawn(n_features, spread=spread)
        if masked:
            generator = torch.Generator().manual_seed(6)
            given["observed"] = torch.rand(150, n_features, generator=generator) < 0.7
        value, gradients = value_and_gradients("nb_mixture", given)
        expected, slopes = value_and_gradients("nb_mixture", double(given))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_nb_mixture, "fused_mixture", lambda *_: None)
            tensors, tensor_gradients = value_and_gradients("nb_mixture", given)
        assert not torch.equal(value, tensors) or n_features == 1
        floor = 1e-6 * float(expected.abs().mean())
        assert (value - expected).abs().max() <= 2 * (tensors - expected).abs().max() + floor
        for key, exact in slopes.items():
            error = (gradients[key] - exact).abs().max()
            floor = 1e-6 * float(exact.abs().max())
            assert error <= 2 * (tensor_gradients[key] - exact).abs().max() + floor, key

    def test_bits_do_not_depend_on_the_number_of_threads(self) -> None:
        given, before = self.drawn(14), torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            value, gradients = value_and_gradients("nb_mixture", given)
            torch.set_num_threads(3)
            other, others = value_and_gradients("nb_mixture", given)
        finally:
            torch.set_num_threads(before)
        assert torch.equal(value, other)
        assert all(torch.equal(gradients[key], others[key]) for key in gradients)

    def test_a_graph_can_be_run_backward_twice(self) -> None:
        given = self.drawn(14)
        logit = given["heads"]["mixing"].requires_grad_()
        value = likelihoods.get("nb_mixture").log_prob_of_heads(**given).sum()
        (first,) = torch.autograd.grad(value, logit, retain_graph=True)
        (second,) = torch.autograd.grad(value, logit)
        assert torch.equal(first, second)


@pytest.mark.parametrize("name", [*COUNTED, "nb_mixture"])
def test_nan_stays_nan(name: str, used: list[object]) -> None:
    """A fit that has diverged must show it."""
    likelihood = likelihoods.get(name)
    given = TestMixture.drawn(14) if name == "nb_mixture" else drawn(name)
    for group in ("heads", "feature_parameters"):
        for key, each in given[group].items():
            wrong = each.clone()
            wrong[..., 7] = torch.nan
            value = likelihood.log_prob_of_heads(**{**given, group: {**given[group], key: wrong}})
            assert value.isnan().all(), key
    assert name == "nb_mixture" or len(used) == len(likelihood.heads) + len(
        likelihood.feature_parameters
    )


@numba.njit
def rows_side_by_side(given: np.ndarray, n_rows: int, n: int) -> list[np.ndarray]:
    return [_math.row_of(n) if number % 2 else _math.row_like(given) for number in range(n_rows)]


@pytest.mark.parametrize("n", [1, 14, 30, 300])
def test_rows_lie_apart_so_that_bits_do_not_depend_on_where_memory_is_free(n: int) -> None:
    """No loop finds what it writes a few vectors behind what it reads, and none goes one by one."""
    given = np.arange(n, dtype=np.float32)
    rows = [given, *rows_side_by_side(given, 40, n)]
    starts = np.sort([row.ctypes.data for row in rows])
    assert np.diff(starts).min() >= 4 * _math.APART
    for number, row in enumerate(rows[1:]):
        np.testing.assert_array_equal(row, 0.0 if number % 2 else given)
