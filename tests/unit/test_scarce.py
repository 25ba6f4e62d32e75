"""Cells that few modalities tie are seen more often, and overfit sooner."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback
from tests.fits import build, fit, small_mosaic

from mosaicvi.data import BlockBatchSampler, BlockShuffle, StratifiedBatchSampler
from mosaicvi.model._scarce import MOST_VISITS, n_tied, visits


def held(likelihood: str = "nb", **cells: np.ndarray) -> Any:
    """Data of which nothing is known but who holds what."""
    table = np.stack(list(cells.values()))
    modalities = {
        name: SimpleNamespace(
            rows=np.where(own, np.cumsum(own) - 1, -1), spec=SimpleNamespace(likelihood=likelihood)
        )
        for name, own in cells.items()
    }
    patterns = (table * 2 ** np.arange(len(table))[:, None]).sum(0)
    return SimpleNamespace(modalities=modalities, patterns=patterns, n_cells=table.shape[1])


def first(n_held: int, n_cells: int) -> np.ndarray:
    return np.arange(n_cells) < n_held


@pytest.mark.parametrize(
    ("n_pairs", "often"),
    [(3000, None), (1000, None), (600, 1.226), (300, 1.619), (150, 2**0.5), (75, None), (20, None)],
)
def test_pairs_are_seen_more_often_the_fewer_but_a_handful(
    n_pairs: int, often: float | None
) -> None:
    data = held(rna=first(3000, 3000), protein=first(n_pairs, 3000))
    found = visits(data, np.arange(3000))
    if often is None:
        assert found is None
    else:
        assert found == {1: 1.0, 3: pytest.approx(often, abs=1e-3)}


def test_only_training_cells_and_modalities_that_say_something_count() -> None:
    data = held(rna=first(3000, 3000), protein=first(300, 3000), noise=np.arange(3000) >= 2600)
    training = np.arange(0, 3000, 2)
    found, alone = visits(data, training), visits(data, training, {"noise"})
    assert found is not None
    assert alone is not None
    assert found[5] > 1
    assert alone == {1: 1.0, 3: pytest.approx(2**0.5), 5: 1.0}
    assert all(1 <= often <= MOST_VISITS for often in found.values())


def test_how_many_cells_tie_the_modalities() -> None:
    rna, protein = first(3000, 3000), first(300, 3000)
    assert n_tied(held(rna=rna)) == 3000
    assert n_tied(held(rna=rna, protein=protein)) == 300
    assert n_tied(held(rna=rna, protein=~rna)) == 3000
    # The third shares 50 cells with the protein, and is tied by the RNA.
    other = np.arange(3000) >= 250
    assert n_tied(held(rna=rna, protein=protein, other=other)) == 300
    assert n_tied(held("bernoulli", rna=rna, protein=protein)) == 3000


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=200),
    st.floats(1.0, 4.0),
    st.integers(1, 40),
    st.booleans(),
)
def test_every_cell_is_seen_as_often_as_it_should(
    kinds: list[int], often: float, batch_size: int, on_disk: bool
) -> None:
    patterns, asked = np.array(kinds), {2: often}
    cells = np.arange(len(kinds))
    sampler: Any = (
        BlockBatchSampler(patterns, cells, batch_size, BlockShuffle(5, 30), visits=asked)
        if on_disk
        else StratifiedBatchSampler(patterns, cells, batch_size, visits=asked)
    )
    batches = list(sampler)
    assert len(batches) == len(sampler)
    seen = np.bincount(np.concatenate(batches), minlength=len(kinds))
    assert (seen[patterns != 2] == 1).all()
    few = seen[patterns == 2]
    assert few.sum() == round(len(few) * often)
    assert len(few) == 0 or few.max() - few.min() <= 1


def test_without_visits_the_order_is_that_of_visits_of_one() -> None:
    patterns = np.arange(500) % 3
    plain = StratifiedBatchSampler(patterns, np.arange(500), 64, seed=2)
    asked = StratifiedBatchSampler(patterns, np.arange(500), 64, seed=2, visits={1: 1.0})
    for one, two in zip(plain, asked, strict=True):
        np.testing.assert_array_equal(one, two)


class Steps(Callback):
    """Counts the steps of each epoch."""

    def __init__(self) -> None:
        self.found: list[int] = []

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        self.found.append(trainer.num_training_batches)


def test_a_fit_sees_few_pairs_more_often() -> None:
    mdata = small_mosaic(1000, patterns={"rna": 0.86, "rna+protein": 0.14}, n_genes=20)
    model, steps = build(mdata), Steps()
    fit(model, 1, 100, train_size=0.8, callbacks=[steps])
    data = model.adata_manager.data
    often = visits(data, model.train_indices)
    assert often is not None
    n_pairs = int((data.patterns[model.train_indices] == 3).sum())
    extra = round(n_pairs * often[3]) - n_pairs
    assert extra > 0
    assert steps.found == [-(-(len(model.train_indices) + extra) // 100)]
