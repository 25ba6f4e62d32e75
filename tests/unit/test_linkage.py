"""What ties modalities before training, on simulated cells of which both sides are known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.fits import without_truth

from mosaicvi.alignment import unit
from mosaicvi.data import build_manager
from mosaicvi.datasets import SimulatedModality, simulate
from mosaicvi.graph import FeatureGraph, from_table
from mosaicvi.model import _linked_columns, _linked_features
from mosaicvi.model._construct import features_of
from mosaicvi.model._linkage import graph_arrays, true_pairs
from mosaicvi.model._linked_features import linked_features
from mosaicvi.model._technical import Technical

if TYPE_CHECKING:
    from mosaicvi.data._mosaic_data import ModalityData, MosaicData

BOTH = ("rna", "protein")
N_CELLS, N_PROTEINS = 400, 20


@pytest.fixture(scope="module")
def drawn() -> tuple[MosaicData, FeatureGraph]:
    """Deep counts of the same cells in both modalities; a third of the links are negative."""
    protein = replace(SimulatedModality.protein(N_PROTEINS), depth=10.0, signal_sd=1.0)
    specs = {
        "rna": replace(SimulatedModality.rna(60, likelihood="nb"), depth=20_000.0),
        "protein": replace(protein, negative_links=0.35, link_weight=(0.9, 0.95)),
    }
    mdata = simulate(N_CELLS, specs, patterns={"rna+protein": 1.0}, n_latent=3, seed=1)
    links = mdata.uns["links"]
    graph = from_table(mdata, links, *BOTH, weight="weight", sign="sign")
    manager = build_manager(
        without_truth(mdata), {"rna": "nb", "protein": "nb_mixture"}, batch_key="batch"
    )
    return manager.data, graph.align(features_of(manager.data))


def one_group(residuals: np.ndarray) -> Technical:
    return Technical((np.zeros((1, 1)), None), residuals, np.zeros(len(residuals), np.int64))


def sides(
    data: MosaicData, graph: FeatureGraph, both: tuple[str, str] = BOTH
) -> tuple[np.ndarray, np.ndarray]:
    """Linked features of all cells, in the order of the MuData's cells."""
    kept = {name: data.modalities[name].rows for name in both}
    spaces = np.random.default_rng(0).normal(size=(N_CELLS, 5))
    found = linked_features(data, graph, both, dict.fromkeys(both, one_group(spaces)), kept)
    assert found is not None
    return found


def agreement(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(left.T, right.T, strict=True)])


def test_columns_belong_together_and_negative_edges_are_turned(
    drawn: tuple[MosaicData, FeatureGraph],
) -> None:
    data, graph = drawn
    assert (graph.edges.sign < 0).sum() >= 3
    left, right = sides(data, graph)
    assert left.shape == right.shape == (N_CELLS, N_PROTEINS)
    np.testing.assert_allclose(left.std(0), 1.0)
    found = agreement(left, right)
    # By chance the median of twenty would be within .02 of zero.
    assert np.median(found) > 0.1
    # Columns follow the proteins; each has one edge.
    of = np.argsort(graph.edges.target)
    negative = graph.edges.sign[of] < 0
    assert np.median(found[negative]) > 0.05
    edges = graph.to_pandas().assign(sign=1)
    blind = FeatureGraph.from_pandas(edges, features=features_of(data))
    unsigned = agreement(*sides(data, blind))
    assert np.median(unsigned[negative]) < -0.05
    np.testing.assert_allclose(unsigned[~negative], found[~negative], atol=1e-8)


def test_the_order_of_the_two_modalities_changes_nothing(
    drawn: tuple[MosaicData, FeatureGraph],
) -> None:
    data, graph = drawn
    left, right = sides(data, graph)
    second, first = sides(data, graph, BOTH[::-1])
    np.testing.assert_allclose(first, left, atol=1e-8)
    np.testing.assert_allclose(second, right, atol=1e-8)


def test_batch_and_depth_are_out(drawn: tuple[MosaicData, FeatureGraph]) -> None:
    data, graph = drawn
    for name, values in zip(BOTH, sides(data, graph), strict=True):
        modality = data.modalities[name]
        batch = modality.batch[modality.rows]
        counts = np.asarray(modality.values.sum(1)).ravel()[modality.rows]
        for column in values.T:
            assert abs(column[batch == 0].mean() - column[batch == 1].mean()) < 1e-6
            assert abs(np.corrcoef(column, np.log1p(counts))[0, 1]) < 1e-6


def test_many_linked_features_are_reduced_and_still_belong_together(
    drawn: tuple[MosaicData, FeatureGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, graph = drawn
    monkeypatch.setattr(_linked_features, "MAX_LINKED", 6)
    left, right = sides(data, graph)
    assert left.shape == right.shape == (N_CELLS, 6)
    # The last component varies most.
    assert agreement(left, right)[-1] > 0.3


def test_sparse_features_are_freed_of_noise_in_two_ways_that_count_alike(
    drawn: tuple[MosaicData, FeatureGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, graph = drawn
    plain = sides(data, graph)
    monkeypatch.setattr(_linked_columns, "SPARSE_COUNTS", np.inf)
    few = sides(data, graph)
    monkeypatch.setattr(_linked_features, "MANY_LINKED", N_PROTEINS)
    both = sides(data, graph)
    for values, smoothed in zip(both, few, strict=True):
        assert smoothed.shape == (N_CELLS, N_PROTEINS)
        np.testing.assert_array_equal(values[:, :N_PROTEINS], unit(smoothed))
    for values, raw in zip(both, plain, strict=True):
        assert values.shape == (N_CELLS, 2 * N_PROTEINS)
        near, linear = values[:, :N_PROTEINS], values[:, N_PROTEINS:]
        np.testing.assert_allclose(np.linalg.norm(near, axis=1), 1.0)
        np.testing.assert_allclose(np.linalg.norm(linear, axis=1), 1.0)
        # Five components explain the one, and columns stay in their order in both.
        assert np.linalg.matrix_rank(linear, tol=1e-6) <= 5 < np.linalg.matrix_rank(near, tol=1e-6)
        for part in (near, linear):
            assert np.median(agreement(part, raw)) > 0.03
    # Where one modality alone is sparse, the other's features stand beside each way.
    _only(monkeypatch, data.modalities["rna"])
    rna, protein = sides(data, graph)
    np.testing.assert_allclose(rna, both[0])
    np.testing.assert_array_equal(protein[:, :N_PROTEINS], protein[:, N_PROTEINS:])
    np.testing.assert_allclose(protein[:, :N_PROTEINS], unit(plain[1]))


def _only(monkeypatch: pytest.MonkeyPatch, sparse: ModalityData) -> None:
    """Take one modality for sparse, and no other."""
    monkeypatch.setattr(_linked_columns, "is_sparse", lambda modality, *_: modality is sparse)


def test_without_edges_between_them_there_are_no_linked_features(
    drawn: tuple[MosaicData, FeatureGraph],
) -> None:
    data, graph = drawn
    kept = {name: np.arange(N_CELLS) for name in BOTH}
    spaces = dict.fromkeys(BOTH, one_group(np.zeros((N_CELLS, 2))))
    assert linked_features(data, None, BOTH, spaces, kept) is None
    assert linked_features(data, FeatureGraph(features_of(data)), BOTH, spaces, kept) is None
    assert graph.n_edges == N_PROTEINS


def test_true_pairs_are_cells_that_hold_both_among_those_kept(
    drawn: tuple[MosaicData, FeatureGraph],
) -> None:
    data, _ = drawn
    rng = np.random.default_rng(3)
    kept = {name: np.sort(rng.permutation(N_CELLS)[:250]) for name in BOTH}
    pairs = true_pairs(data, kept)[BOTH]
    names = {
        name: np.asarray(data.obs_names)[data.modalities[name].cells][kept[name]] for name in BOTH
    }
    np.testing.assert_array_equal(names["rna"][pairs.left], names["protein"][pairs.right])
    assert len(pairs) == len(set(names["rna"]) & set(names["protein"]))


def test_confidence_multiplies_the_weights_of_edges(
    drawn: tuple[MosaicData, FeatureGraph],
) -> None:
    data, graph = drawn
    confidence = np.linspace(0.01, 1.0, graph.n_edges)
    arrays = graph_arrays(data, graph, confidence)
    np.testing.assert_allclose(arrays.weight, graph.edges.weight * confidence)
    np.testing.assert_array_equal(graph_arrays(data, graph, None).weight, graph.edges.weight)
    assert arrays.n_features == (60, N_PROTEINS + 2)
