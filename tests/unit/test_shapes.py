"""The annotated shapes of arrays are checked while tests run, and nobody else pays for that."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from tests.likelihood_helpers import draw_counts, draw_parameters

from mosaicvi import _types, alignment, fusion, likelihoods, nn
from mosaicvi._types import SparseCounts
from mosaicvi.likelihoods import FeatureStart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGES = (alignment, fusion, likelihoods, nn)


def _functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for package in PACKAGES:
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            holders = [module, *(c for _, c in inspect.getmembers(module, inspect.isclass))]
            for holder in holders:
                for member in vars(holder).values():
                    function = getattr(member, "fget", None) or getattr(member, "__func__", member)
                    if inspect.isfunction(function) and function.__module__ == module.__name__:
                        yield f"{info.name}.{function.__qualname__}", function


FUNCTIONS = dict(_functions())


def test_every_annotation_can_be_read() -> None:
    """What the checker cannot read, such as a name that is not imported, it lets pass."""
    assert len(FUNCTIONS) > 100
    for name, function in FUNCTIONS.items():
        try:
            get_type_hints(inspect.unwrap(function), include_extras=True)
        except (NameError, TypeError, ValueError) as error:
            pytest.fail(f"{name}: {error}")


def test_no_array_is_without_a_shape() -> None:
    bare = {torch.Tensor, np.ndarray, SparseCounts, _types.Values, _types.Matrix}
    for name, function in FUNCTIONS.items():
        hints = get_type_hints(inspect.unwrap(function), include_extras=True)
        for argument, hint in hints.items():
            parts = {hint, *getattr(hint, "__args__", ())}
            assert not parts & bare, f"{name}: {argument}"


@pytest.mark.parametrize("sparse", [False, True])
def test_a_wrong_shape_is_refused(sparse: bool) -> None:
    counts, parameters = draw_counts(4, 3), draw_parameters("nb", (4, 3))
    values = SparseCounts.from_dense(counts) if sparse else counts
    likelihood = likelihoods.get("nb")
    assert likelihood.log_prob(values, parameters).shape == (4,)
    with pytest.raises(TypeCheckError, match="observed"):
        likelihood.log_prob(values, parameters, observed=torch.ones(4, 2, dtype=torch.bool))


def test_a_wrong_type_of_number_is_refused() -> None:
    rule = fusion.get("product_of_experts")
    experts, present = torch.ones(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)
    assert rule(experts, experts, present).n_cells == 5
    with pytest.raises(TypeCheckError, match="present"):
        rule(experts, experts, present.float())


def test_a_wrong_shape_in_a_record_is_refused() -> None:
    with pytest.raises(TypeCheckError, match="variances"):
        fusion.GaussianMixture(torch.ones(1, 5), torch.zeros(1, 5, 3), torch.ones(1, 5, 2))
    with pytest.raises(TypeCheckError, match="parameters"):
        FeatureStart({"mean": np.zeros(3)}, {"log_dispersion": np.zeros(2)})


def test_a_wrong_result_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = nn.Encoder(3, 2, n_hidden=4, n_layers=1, dropout=0.0)
    monkeypatch.setattr(encoder, "location", torch.nn.Linear(4, 1))
    with pytest.raises(TypeCheckError, match="return value"):
        encoder(torch.zeros(5, 3))


def test_annotations_are_notes_where_jaxtyping_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jaxtyping", None)
    spec = spec_from_file_location("types_without_jaxtyping", _types.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    assert module.Float is Annotated
    assert module.SparseCounts.from_dense(torch.eye(2)).shape == (2, 2)
