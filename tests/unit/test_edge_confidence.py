"""Confidence in edges: right ones above wrong ones, on features whose truth is known."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import stats
from sklearn.metrics import roc_auc_score
from tests.helpers import make_mudata

from mosaicvi.alignment import _edge_confidence, edge_confidence, group_cells
from mosaicvi.alignment._edge_confidence import edge_correlation, group_means
from mosaicvi.data import build_manager
from mosaicvi.datasets import SimulatedModality, simulate
from mosaicvi.graph import FeatureGraph
from mosaicvi.model._edge_evidence import graph_confidence

N_GROUPS, N_FEATURES = 40, 300


def features(agreement: float = 0.7, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of two modalities' features; feature i of both goes together, with a sign."""
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(N_GROUPS, N_FEATURES))
    sign = rng.choice([-1.0, 1.0], size=N_FEATURES, p=[0.3, 0.7])
    noise = rng.normal(size=left.shape)
    right = sign * agreement * left + np.sqrt(1 - agreement**2) * noise
    return left * 3 + 5, right * 0.2 - 1, sign


def edges(share_wrong: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, targets and which are right; of the wrong, targets are rewired."""
    rng = np.random.default_rng(seed)
    source = np.arange(N_FEATURES)
    is_right = rng.permutation(N_FEATURES) >= round(share_wrong * N_FEATURES)
    target = np.where(is_right, source, (source + 1 + rng.integers(250, size=N_FEATURES)))
    return source, target % N_FEATURES, is_right


def test_correlation_equals_scipy() -> None:
    left, right, _ = features()
    rng = np.random.default_rng(1)
    source, target = rng.integers(N_FEATURES, size=(2, 50))
    found = edge_correlation(left, right, source, target)
    expected = [
        stats.pearsonr(left[:, i], right[:, j]).statistic
        for i, j in zip(source, target, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_constant_feature_correlates_with_nothing() -> None:
    left, right, sign = features()
    left[:, 3] = 2.0
    source, target, _ = edges(0.0)
    assert edge_correlation(left, right, source[3:4], target[3:4])[0] == pytest.approx(0)
    assert np.isfinite(edge_confidence(left, right, source, target, sign, seed=0)).all()


@pytest.mark.parametrize("share_wrong", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_right_edges_stand_above_rewired_ones(share_wrong: float, seed: int) -> None:
    left, right, sign = features(seed=seed)
    source, target, is_right = edges(share_wrong, seed)
    found = edge_confidence(left, right, source, target, sign, seed=seed)
    assert roc_auc_score(is_right, found) > 0.95
    # As a probability, it counts the right edges.
    assert found.mean() == pytest.approx(1 - share_wrong, abs=0.12)


def test_all_wrong_is_low_and_all_right_is_high() -> None:
    left, right, sign = features(0.9)
    source, target, _ = edges(1.0)
    assert edge_confidence(left, right, source, target, sign, seed=0).mean() < 0.2
    source, target, _ = edges(0.0)
    assert edge_confidence(left, right, source, target, sign, seed=0).mean() > 0.95


def test_an_edge_of_the_wrong_sign_is_wrong() -> None:
    left, right, sign = features(0.9)
    source, target, _ = edges(0.0)
    flipped = sign.copy()
    flipped[:60] *= -1
    found = edge_confidence(left, right, source, target, flipped, seed=0)
    assert found[:60].max() < 0.1
    assert found[60:].min() > 0.9
    assert roc_auc_score(np.arange(N_FEATURES) >= 60, found) == 1.0


def test_flipping_features_and_signs_together_changes_nothing() -> None:
    left, right, sign = features()
    source, target, _ = edges(0.3)
    found = edge_confidence(left, right, source, target, sign, seed=0)
    np.testing.assert_allclose(
        edge_confidence(-left, right, source, target, -sign, seed=0), found, atol=1e-12
    )


def test_confidence_rises_with_the_signed_correlation_and_is_bounded() -> None:
    left, right, sign = features()
    source, target, _ = edges(0.5)
    found = edge_confidence(left, right, source, target, sign, seed=0)
    signed = sign * edge_correlation(left, right, source, target)
    assert (np.diff(found[np.argsort(signed)]) >= 0).all()
    assert found.min() >= _edge_confidence.LEAST_CONFIDENCE
    assert found.max() <= 1


def test_seed_and_number_of_edges() -> None:
    left, right, sign = features()
    source, target, _ = edges(0.3)
    first, again = (edge_confidence(left, right, source, target, sign, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = edge_confidence(left, right, source, target, sign, seed=5)
    assert stats.spearmanr(first, other).statistic > 0.95
    none = np.zeros(0, dtype=np.int64)
    assert edge_confidence(left, right, none, none, np.zeros(0), seed=0).shape == (0,)
    one = edge_confidence(left, right, source[:1], target[:1], sign[:1], seed=0)
    assert np.isfinite(one).all()


def test_groups_follow_the_cells_and_not_the_larger_modality() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 4)) * 20
    types = [np.repeat(np.arange(10), 60), np.repeat(np.arange(10), 6)]
    spaces = [centres[each] + rng.normal(size=(len(each), 4)) for each in types]
    groups = group_cells(spaces, seed=0)
    assert [len(each) for each in groups] == [600, 60]
    for codes, each in zip(groups, types, strict=True):
        for code in np.unique(codes):
            counts = np.bincount(each[codes == code])
            assert counts.max() / counts.sum() > 0.45  # a group has few types
    for first, second in zip(groups, group_cells(spaces, seed=0), strict=True):
        np.testing.assert_array_equal(first, second)


def test_means_of_groups_leave_out_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(4, size=60)
    dense = rng.normal(3.0, 1.0, size=(60, 5))
    dense[rng.random(dense.shape) < 0.3] = np.nan
    dense[codes == 2, 1] = np.nan
    found = group_means(dense, codes, 4)
    expected = pd.DataFrame(dense).groupby(codes).mean().fillna(pd.DataFrame(dense).mean())
    np.testing.assert_allclose(found, expected.to_numpy())
    counts = rng.poisson(0.5, size=(60, 5)).astype(float)
    known = pd.DataFrame(counts).groupby(codes).mean().to_numpy()
    for values in (counts, sp.csr_matrix(counts)):
        np.testing.assert_allclose(group_means(values, codes, 4), known)


def test_fewer_cells_than_groups() -> None:
    rng = np.random.default_rng(0)
    few, many = group_cells([rng.normal(size=(4, 3)), rng.normal(size=(50, 3))], seed=0)
    assert len(few) == 4
    assert max(few.max(), many.max()) < 4


def test_no_group_of_cells_says_nothing_of_edges() -> None:
    """Numpy had warned of means of nothing."""
    edges = np.arange(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = edge_confidence(
            np.zeros((0, 3)), np.zeros((0, 3)), edges, edges, np.ones(3), seed=0
        )
    assert np.isfinite(found).all()
    assert np.ptp(found) == 0.0


def test_a_small_third_modality_changes_nothing_of_edges_between_two() -> None:
    """Groups had been as few as its cells allowed, and those without such a cell were left out."""
    kinds = SimulatedModality
    modalities = {"rna": kinds.rna(60), "atac": kinds.atac(60), "protein": kinds.protein(14)}
    patterns = {"rna": 0.49, "atac": 0.49, "protein": 0.02}
    mdata = simulate(1200, modalities, patterns=patterns, batches=1, seed=0)
    links = mdata.uns["links"]
    links = links[(links["source_modality"] == "atac") | (links["target_modality"] == "atac")]
    found = {}
    for names in (("rna", "atac"), ("rna", "atac", "protein")):
        data = build_manager(
            make_mudata({name: mdata.mod[name].copy() for name in names}),
            {name: modalities[name].likelihood for name in names},
        ).data
        features = {name: mdata.mod[name].var_names for name in names}
        rows = {name: np.arange(data.modalities[name].n_cells) for name in names}
        spaces = {
            name: mdata[mdata.mod[name].obs_names].obsm["truth_z"].astype(float) for name in names
        }
        graph = FeatureGraph.from_pandas(links, features)
        found[names] = graph_confidence(data, graph, spaces, rows, seed=0)
    two, three = found.values()
    assert np.ptp(two) > 0.1
    np.testing.assert_array_equal(three, two)
