"""Modalities may have any name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mosaicvi.nn._named_modules import NamedModules

NAMES = ["rna", "rna.v2", "keys", "values", "type", "training", "a b", "αβ", "to", "_modules"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name(name: str) -> None:
    module = nn.Linear(2, 2)
    named: NamedModules[nn.Linear] = NamedModules({name: module, "other": nn.Linear(1, 1)})
    assert named[name] is module
    assert name in named
    assert "nothing" not in named
    assert list(named) == [name, "other"]
    assert dict(named.items())[name] is module
    assert len(named.values()) == 2
    state = named.state_dict()
    assert len(state) == 4
    again: NamedModules[nn.Linear] = NamedModules({name: nn.Linear(2, 2), "other": nn.Linear(1, 1)})
    again.load_state_dict(state)
    assert torch.equal(again[name].weight, module.weight)


def test_all_names_at_once() -> None:
    named: NamedModules[nn.Linear] = NamedModules({name: nn.Linear(1, 1) for name in NAMES})
    assert list(named) == NAMES
    assert len({id(module) for module in named.values()}) == len(NAMES)
