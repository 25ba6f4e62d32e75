"""Surplus factors are merged or dropped, and nothing else changes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tests.recovery.test_factors import fitted

from mosaicvi.factor._level import level_factors
from mosaicvi.factor._reduce import _moves, reduce_factors

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


def with_copy(model: FactorVI, sign: float) -> FactorModule:
    """The network with its first factor split into halves, the second times ``sign``."""
    module = copy.deepcopy(model.module)
    module.keep(torch.tensor([*range(module.n_latent), 0]))
    with torch.no_grad():
        for name in module.modalities:
            weights, loadings = module.weights[name], module.recognition[name].loadings
            for number, factor in ((0, 0.7), (-1, 0.7 * sign)):
                weights.loc[:, number] *= factor
                loadings[:, number] *= factor
    return module


def reduced(model: FactorVI, module: FactorModule) -> list[int]:
    dataset = model._cells(None).dataset
    return reduce_factors(module, dataset, model.train_indices_, seed=0)


def test_true_factors_stay(model: FactorVI) -> None:
    module = copy.deepcopy(model.module)
    assert reduced(model, module) == list(range(len(model.factors)))


def test_halves_become_one_factor(model: FactorVI) -> None:
    module = with_copy(model, 1.0)
    left = reduced(model, module)
    assert len(left) == module.n_latent == len(model.factors)
    whole = model.module.weights["one"].mean().detach().numpy()
    again = module.weights["one"].mean().detach().numpy()
    table = np.abs(np.corrcoef(whole.T, again.T)[: whole.shape[1], whole.shape[1] :])
    found = table.max(1)[np.abs(whole).max(0) > 0.1]
    assert (found > 0.98).all()


def test_a_named_factor_is_neither_dropped_nor_changed(model: FactorVI) -> None:
    """An empty factor goes, unless a gene set stands behind it."""
    for named in (False, True):
        module = with_copy(model, 1.0)
        last = module.n_latent - 1
        with torch.no_grad():
            for name in module.modalities:
                weights = module.weights[name]
                weights.loc[:, last] = 0.0
                weights.inclusion[:, last] = 0.01
                module.recognition[name].loadings[:, last] = 0.0
            if named:
                module.weights["one"].log_odds[:, last] = -4.0
        before = module.weights["one"].loc[:, last].clone()
        left = reduced(model, module)
        assert (last in left) == named
        if named:
            torch.testing.assert_close(module.weights["one"].loc[:, left.index(last)], before)


def test_opposite_halves_are_no_pair_where_weights_must_not_be_negative(model: FactorVI) -> None:
    batch = model._cells(None).dataset.fetch(model.train_indices_)
    for nonnegative in (False, True):
        module = with_copy(model, -1.0)
        module.weights["one"].nonnegative = nonnegative
        with torch.no_grad():
            moves = _moves(module, batch, len(model.train_indices_))
        pairs = {(move.kept, move.removed) for move in moves if move.kept is not None}
        assert ((0, module.n_latent - 1) in pairs) != nonnegative


def test_a_factor_comes_back_to_the_level_where_most_weights_are_zero(model: FactorVI) -> None:
    """All shares are what they were when one number is added to all weights of a factor."""
    module, before = copy.deepcopy(model.module), model.module.weights["one"]
    weights = module.weights["one"]
    number = int(((before.inclusion > 0.5).float().mean(0) - 0.4).abs().argmin())
    with torch.no_grad():
        weights.loc[:, number] = before.mean()[:, number] + 0.5
        weights.log_scale[:, number] = before.errors()[:, number].log()
        weights.settle()
    assert (weights.inclusion[:, number] > 0.5).float().mean() > 0.9
    other = module.weights["two"].loc.detach().clone()
    level_factors(module, model._cells(None).dataset, model.train_indices_, seed=0)
    change = (weights.mean() - before.mean())[:, number].detach().abs()
    assert change.median() < 0.01
    assert change.max() < 0.2
    assert ((weights.inclusion > 0.5) == (before.inclusion > 0.5))[:, number].float().mean() > 0.9
    torch.testing.assert_close(module.weights["two"].loc, other)
    nonnegative = copy.deepcopy(module)
    with torch.no_grad():
        nonnegative.weights["one"].loc[:, number] += 0.5
        nonnegative.weights["one"].nonnegative = True
    as_it_was = nonnegative.weights["one"].loc.clone()
    level_factors(nonnegative, model._cells(None).dataset, model.train_indices_, seed=0)
    torch.testing.assert_close(nonnegative.weights["one"].loc, as_it_was)
