"""Batches and modalities that coincide are reported."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from tests.helpers import PROTEINS, cell_names, counts_modality, make_mudata, mosaic

from mosaicvi._errors import MosaicviWarning
from mosaicvi.data import build_manager
from mosaicvi.data._separable import groups_apart

BOTH = {"rna": "zinb", "protein": "nb_mixture"}


def rows(*sides: str) -> dict[str, np.ndarray]:
    """Modalities ``m0``, ``m1``, ...: x where a cell has it."""
    return {
        f"m{i}": np.array([0 if mark == "x" else -1 for mark in side])
        for i, side in enumerate(sides)
    }


@pytest.mark.parametrize(
    ("labels", "sides", "expected"),
    [
        ("aabb", ("xx..", "..xx"), [["m0"], ["m1"]]),
        ("aabb", ("xx..", ".xxx"), [["m0", "m1"]]),
        ("abab", ("xx..", "..xx"), [["m0", "m1"]]),
        ("aabbcc", ("xx....", "..xx..", "....xx"), [["m0"], ["m1"], ["m2"]]),
        # m2 ties the two others, though they have no batch in common
        ("aabbab", ("xx....", "..xx..", "....xx"), [["m0", "m1", "m2"]]),
        ("aabbcc", ("xxxx..", "..xx..", "....xx"), [["m0", "m1"], ["m2"]]),
    ],
)
def test_groups_that_no_batch_ties(
    labels: str, sides: tuple[str, ...], expected: list[list[str]]
) -> None:
    found = groups_apart(np.array(list(labels), dtype=object), rows(*sides))
    assert [sorted(group) for group in found] == expected


def test_cells_without_a_batch_tie_nothing() -> None:
    labels = np.array(["a", None, None, "b"], dtype=object)
    assert len(groups_apart(labels, rows("xxx.", ".xxx"))) == 2


def test_day_and_modality_that_coincide_are_reported() -> None:
    names = cell_names(20)
    day = {name: "day1" if i < 10 else "day2" for i, name in enumerate(names)}
    mdata = make_mudata(
        {
            "rna": counts_modality(names[10:], batch=day),
            "protein": counts_modality(names[:10], PROTEINS, batch=day),
        }
    )
    with pytest.warns(MosaicviWarning, match="inseparable") as found:
        build_manager(mdata, BOTH, batch_key="batch")
    text = str(found[0].message)
    assert "'rna' in 'day2'; 'protein' in 'day1'" in text
    assert "batch_key 'batch'" in text


def test_batches_that_hold_both_are_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", MosaicviWarning)
        build_manager(mosaic(), BOTH, batch_key="batch")
        build_manager(mosaic(), BOTH)
