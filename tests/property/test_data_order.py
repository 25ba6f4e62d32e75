"""The order of cells and modalities changes nothing but the order of cells and modalities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.helpers import PROTEINS, cell_names, counts_modality, make_mudata

from mosaicvi.data import MosaicData, MultiBatch, MultiDataset, build_manager
from mosaicvi.data._sampler import StratifiedBatchSampler
from mosaicvi.data._splitter import split_cells

N_CELLS = 12
FEATURES = {"rna": tuple(f"GENE{i}" for i in range(6)), "protein": PROTEINS, "atac": ("p1", "p2")}
SPECS = {"rna": "zinb", "protein": "nb_mixture", "atac": "poisson"}

few = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

presences = st.lists(
    st.integers(min_value=1, max_value=7), min_size=N_CELLS, max_size=N_CELLS
).filter(lambda masks: all(any(mask >> bit & 1 for mask in masks) for bit in range(3)))
seeds = st.integers(min_value=0, max_value=2**16)


def build(masks: list[int], seed: int, modalities: list[str]) -> MosaicData:
    """Data whose cells and modalities come in an order that the seed decides."""
    generator = np.random.default_rng(seed)
    names = cell_names(N_CELLS)
    batch = {name: "ab"[i % 2] for i, name in enumerate(names)}
    parts = {}
    for bit, modality in enumerate(SPECS):
        cells = [name for name, mask in zip(names, masks, strict=True) if mask >> bit & 1]
        shuffled = [cells[i] for i in generator.permutation(len(cells))]
        parts[modality] = counts_modality(
            shuffled, FEATURES[modality], seed=bit, batch=batch, mean=5.0
        )
    stacked = make_mudata({name: parts[name] for name in generator.permutation(list(parts))})
    specs = {name: SPECS[name] for name in modalities}
    return build_manager(stacked, specs, batch_key="batch").data


def cells_of(data: MosaicData, names: list[str]) -> np.ndarray:
    places = {name: place for place, name in enumerate(data.obs_names)}
    return np.array([places[name] for name in names])


def assert_same(left: MultiBatch, right: MultiBatch) -> None:
    assert set(left.modalities) == set(right.modalities)
    for name, part in left.modalities.items():
        other = right.modalities[name]
        for slot in ("positions", "library_size", "batch"):
            assert np.array_equal(getattr(part, slot), getattr(other, slot)), slot
        assert np.array_equal(part.values.to_dense(), other.values.to_dense())


@pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")
@few
@given(masks=presences, seed=seeds, order=st.permutations(list(SPECS)))
def test_minibatches_are_equivariant(masks: list[int], seed: int, order: list[str]) -> None:
    first, second = build(masks, 0, list(SPECS)), build(masks, seed, order)
    assert list(second.modalities) == order
    chosen = list(np.random.default_rng(seed).permutation(cell_names(N_CELLS))[:7])
    assert_same(
        MultiDataset(first, {}).fetch(cells_of(first, chosen)),
        MultiDataset(second, {}).fetch(cells_of(second, chosen)),
    )


@pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")
@few
@given(masks=presences, seed=seeds)
def test_arrays_are_equivariant(masks: list[int], seed: int) -> None:
    first, second = build(masks, 0, list(SPECS)), build(masks, seed, list(SPECS))
    places = cells_of(second, list(first.obs_names))
    assert np.array_equal(second.presence[places], first.presence)
    assert np.array_equal(second.patterns[places], first.patterns)
    assert second.presence.sum() == sum(bin(mask).count("1") for mask in masks)
    for name, part in first.modalities.items():
        other = second.modalities[name]
        assert other.batch_categories == part.batch_categories
        assert np.array_equal(other.cell_batch[places], part.cell_batch)


@few
@given(
    masks=st.lists(st.integers(0, 5), min_size=1, max_size=200),
    batch_size=st.integers(1, 40),
    seed=seeds,
)
def test_every_cell_is_seen_once_an_epoch(masks: list[int], batch_size: int, seed: int) -> None:
    patterns = np.array(masks)
    sampler = StratifiedBatchSampler(patterns, np.arange(len(masks)), batch_size, seed=seed)
    batches = list(sampler)
    assert sorted(np.concatenate(batches)) == list(range(len(masks)))
    for batch in batches:
        for pattern in set(masks):
            share = (patterns == pattern).mean() * len(batch)
            assert abs((patterns[batch] == pattern).sum() - share) < 2


@few
@given(
    masks=st.lists(st.integers(0, 3), min_size=1, max_size=200),
    train_size=st.floats(0.05, 1.0),
    seed=seeds,
)
def test_a_split_is_a_partition(masks: list[int], train_size: float, seed: int) -> None:
    patterns = np.array(masks)
    train, val, test = split_cells(patterns, train_size, None, seed)
    assert sorted(np.concatenate([train, val, test])) == list(np.flatnonzero(patterns))
    assert len(test) == 0
    for pattern in set(masks) - {0}:
        n_cells = (patterns == pattern).sum()
        n_train = (patterns[train] == pattern).sum()
        assert n_train >= 1
        assert abs(n_train - train_size * n_cells) <= 1
