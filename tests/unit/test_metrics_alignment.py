"""Scores of alignments against naive loops, scikit-learn, invariances and trivial embeddings."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from mosaicvi import metrics
from mosaicvi._errors import RequestError


def pair(seed: int, n_cells: int = 40, n_latent: int = 3, noise: float = 0.6) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n_cells, n_latent))
    return [shared + noise * rng.normal(size=shared.shape) for _ in range(2)]


def naive_foscttm(left: np.ndarray, right: np.ndarray, groups: np.ndarray | None = None) -> float:
    """FOSCTTM by two loops over cells, one cell's score after another."""
    groups = np.zeros(len(left)) if groups is None else groups
    scores = []
    for a, b in ((left, right), (right, left)):
        for i in range(len(a)):
            others = [j for j in range(len(b)) if j != i and groups[j] == groups[i]]
            if not others:
                continue
            own, total = float(((a[i] - b[i]) ** 2).sum()), 0.0
            for j in others:
                other = float(((a[i] - b[j]) ** 2).sum())
                total += 1.0 if other < own else 0.5 if other == own else 0.0
            scores.append(total / len(others))
    return float(np.mean(scores))


@pytest.mark.parametrize("block", [1, 100, 4_000_000])
def test_foscttm_is_the_naive_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mosaicvi.metrics._match_ranks.BLOCK", block)
    left, right = pair(0)
    groups = np.random.default_rng(1).integers(4, size=40)
    groups[7] = 9  # alone in its group
    assert metrics.foscttm(left, right, standardise=False) == pytest.approx(
        naive_foscttm(left, right)
    )
    grouped = metrics.foscttm(left, right, groups=groups, standardise=False)
    assert grouped == pytest.approx(naive_foscttm(left, right, groups))
    names = np.array(list("abcdefghij"))[groups]
    assert metrics.foscttm(left, right, groups=names, standardise=False) == grouped


def test_foscttm_counts_ties_one_half() -> None:
    rng = np.random.default_rng(2)
    left, right = (rng.integers(3, size=(60, 2)).astype(float) for _ in range(2))
    assert metrics.foscttm(left, right, standardise=False) == pytest.approx(
        naive_foscttm(left, right)
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9, -3.3])
@pytest.mark.parametrize("standardise", [True, False])
def test_a_constant_embedding_scores_one_half(value: float, standardise: bool) -> None:
    constant = np.full((37, 5), value)
    assert metrics.foscttm(constant, constant, standardise=standardise) == 0.5
    groups = np.arange(37) % 6
    assert metrics.foscttm(constant, constant, groups=groups, standardise=standardise) == 0.5
    found = metrics.matching_accuracy(constant, constant, n_neighbours=3, standardise=standardise)
    assert found.accuracy == pytest.approx(3 / 37)
    assert found.expected == pytest.approx(3 / 37)


def test_the_same_embedding_twice_scores_zero_and_noise_one_half() -> None:
    rng = np.random.default_rng(3)
    left = rng.normal(size=(400, 4))
    assert metrics.foscttm(left, left) == 0.0
    assert metrics.matching_accuracy(left, left).accuracy == 1.0
    other = rng.normal(size=(400, 4))
    assert metrics.foscttm(left, other) == pytest.approx(0.5, abs=0.03)
    found = metrics.matching_accuracy(left, other, n_neighbours=40)
    assert found.accuracy == pytest.approx(found.expected, abs=0.04)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_foscttm_is_invariant(seed: int) -> None:
    left, right = pair(seed, n_cells=25)
    rng = np.random.default_rng(seed)
    order = rng.permutation(25)
    exact = metrics.foscttm(left, right)
    assert metrics.foscttm(left[order], right[order]) == pytest.approx(exact)
    assert metrics.foscttm(right, left) == pytest.approx(exact)
    # standardised: of shifts and scales of dimensions
    scale, shift = rng.uniform(0.1, 50.0, size=3), rng.normal(size=3)
    moved = metrics.foscttm(left * scale + shift, right * scale + shift)
    assert moved == pytest.approx(exact)
    # as given: of rotations
    turn = ortho_group.rvs(3, random_state=seed)
    plain = metrics.foscttm(left, right, standardise=False)
    assert metrics.foscttm(left @ turn, right @ turn, standardise=False) == pytest.approx(plain)
    # an offset between modalities is no part of the standardisation
    assert metrics.foscttm(left, right + 100.0) > exact


def test_sampled_queries_estimate_the_exact_score_and_are_seeded() -> None:
    left, right = pair(4, n_cells=1500)
    exact = metrics.foscttm_per_cell(left, right)
    some = metrics.foscttm_per_cell(left, right, n_queries=300, seed=1)
    drawn = np.isfinite(some)
    assert drawn.sum() == 300
    np.testing.assert_array_equal(some[drawn], exact[drawn])
    sampled = metrics.foscttm(left, right, n_queries=300, seed=1)
    assert sampled == pytest.approx(exact.mean(), abs=4 * exact.std() / np.sqrt(300))
    assert sampled == metrics.foscttm(left, right, n_queries=300, seed=1)
    assert sampled != metrics.foscttm(left, right, n_queries=300, seed=2)


def test_batch_and_depth_alone_win_overall_and_not_within_strata() -> None:
    rng = np.random.default_rng(5)
    batch = rng.integers(8, size=1000)
    depth = rng.lognormal(7.0, 0.8, size=1000)
    sides = [
        np.column_stack([10.0 * np.eye(8)[batch], np.log(depth) + 0.1 * rng.normal(size=1000)])
        for _ in range(2)
    ]
    assert metrics.foscttm(*sides, standardise=False) < 0.02
    strata = metrics.depth_strata(depth, batch, n_quantiles=20)
    assert metrics.foscttm(*sides, groups=strata, standardise=False) > 0.25


def test_strata_are_quantiles_within_batches() -> None:
    depth = np.concatenate([np.arange(10.0), 1000.0 + np.arange(20)])
    batch = np.repeat(["a", "b"], [10, 20])
    strata = metrics.depth_strata(depth, batch)
    names, counts = np.unique(strata, return_counts=True)
    assert dict(zip(names, counts, strict=True)) == {
        **{f"a:{i}": 2 for i in range(5)},
        **{f"b:{i}": 4 for i in range(5)},
    }
    assert strata[0] == "a:0"
    assert strata[9] == "a:4"
    assert len(set(metrics.depth_strata(np.ones(9)))) == 1
    with pytest.raises(RequestError, match="depth"):
        metrics.depth_strata(np.ones(3), np.ones(4))
    with pytest.raises(RequestError, match="n_quantiles"):
        metrics.depth_strata(np.ones(3), n_quantiles=0)


def test_strata_need_depth_and_batch() -> None:
    with pytest.raises(RequestError, match=r"'depth'.*1 of 3 cells"):
        metrics.depth_strata([1.0, np.nan, 2.0])
    with pytest.raises(RequestError, match=r"'batch'.*1 of 3 cells"):
        metrics.depth_strata([1.0, 2.0, 3.0], ["a", None, "a"])


def test_cells_without_a_group_are_left_out() -> None:
    left, right = pair(8)
    groups = np.where(np.arange(40) < 30, np.arange(40) % 3, np.nan)
    found = metrics.foscttm_per_cell(left, right, groups=groups, standardise=False)
    assert np.isnan(found[30:]).all()
    known = metrics.foscttm(left[:30], right[:30], groups=groups[:30], standardise=False)
    assert np.nanmean(found) == pytest.approx(known)


def test_matching_accuracy_is_scikit_learns_neighbours() -> None:
    left, right = pair(6, n_cells=80)
    expected = []
    for a, b in ((left, right), (right, left)):
        nearest = NearestNeighbors(n_neighbors=5).fit(b).kneighbors(a, return_distance=False)
        expected.append([i in nearest[i] for i in range(80)])
    found = metrics.matching_accuracy(left, right, n_neighbours=5, standardise=False)
    assert found.accuracy == pytest.approx(np.mean(expected))
    assert found.expected == pytest.approx(5 / 80)
    everyone = metrics.matching_accuracy(left, right, n_neighbours=500)
    assert everyone.accuracy == everyone.expected == 1.0
    groups = np.arange(80) // 4
    assert metrics.matching_accuracy(left, right, groups=groups).expected == 0.25


def test_scores_of_matches_want_matches() -> None:
    left, right = pair(7)
    for score in (metrics.foscttm, metrics.matching_accuracy):
        with pytest.raises(RequestError, match="row i"):
            score(left, right[:-1])
        with pytest.raises(RequestError, match="dimensions"):
            score(left, right[:, :2])
        with pytest.raises(RequestError, match="groups"):
            score(left, right, groups=[1, 2])
        with pytest.raises(RequestError, match="finite"):
            score(left, right * np.nan)
        with pytest.raises(RequestError, match="n_queries"):
            score(left, right, n_queries=0)
    with pytest.raises(RequestError, match="n_neighbours"):
        metrics.matching_accuracy(left, right, n_neighbours=0)
    assert np.isnan(metrics.foscttm(left[:1], right[:1]))
    assert np.isnan(metrics.matching_accuracy(left, right, groups=np.arange(40)).accuracy)


def typed(seed: int, n_cells: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    types = rng.choice(4, size=n_cells, p=[0.6, 0.2, 0.15, 0.05])
    return 2.0 * np.eye(4)[types] + spread * rng.normal(size=(n_cells, 4)), np.array(list("ABCD"))[
        types
    ]


def test_label_transfer_is_scikit_learns() -> None:
    source, known = typed(0, 300)
    target, truth = typed(1, 200)
    # an odd number of neighbours and two types: no ties of votes
    known2, truth2 = np.where(known == "A", "A", "B"), np.where(truth == "A", "A", "B")
    found = metrics.label_transfer(source, known2, target, truth2, standardise=False)
    predicted = KNeighborsClassifier(15).fit(source, known2).predict(target)
    np.testing.assert_array_equal(found.predicted, predicted)
    np.testing.assert_allclose(
        found.confidence,
        KNeighborsClassifier(15).fit(source, known2).predict_proba(target).max(axis=1),
    )
    four = metrics.label_transfer(source, known, target, truth)
    assert four.accuracy.plain == pytest.approx(accuracy_score(truth, four.predicted))
    assert four.accuracy.balanced == pytest.approx(balanced_accuracy_score(truth, four.predicted))
    np.testing.assert_array_equal(four.correct, four.predicted == truth)


def test_label_transfer_breaks_ties_by_nearness_and_keeps_the_order_of_cells_out() -> None:
    source, target = np.array([[1.0], [2.0], [-3.0], [-4.0]]), np.zeros((1, 1))
    for labels in (["b", "b", "a", "a"], ["a", "a", "b", "b"]):
        found = metrics.label_transfer(source, labels, target, ["a"], n_neighbours=4)
        assert found.predicted[0] == labels[0]
        assert found.confidence[0] == 0.5
    source, known = typed(2, 200)
    target, truth = typed(3, 150)
    order, turn = np.random.default_rng(0).permutation(200), ortho_group.rvs(4, random_state=1)
    first = metrics.label_transfer(source, known, target, truth, standardise=False)
    second = metrics.label_transfer(
        source[order] @ turn, known[order], target @ turn, truth, standardise=False
    )
    np.testing.assert_array_equal(first.predicted, second.predicted)


def test_trivial_transfers() -> None:
    source, known = typed(4, 2000)
    target, truth = typed(5, 1000)
    nothing = metrics.label_transfer(
        np.zeros((2000, 2)), known, np.zeros((1000, 2)), truth, n_neighbours=101
    )
    assert nothing.accuracy.plain == pytest.approx((truth == "A").mean())
    assert nothing.accuracy.balanced == pytest.approx(0.25)
    np.testing.assert_allclose(nothing.at_coverage([0.1, 0.5, 1.0]), nothing.accuracy.plain)
    lacking = metrics.label_transfer(source[known != "D"], known[known != "D"], target, truth)
    assert not lacking.correct[truth == "D"].any()


def test_supervision_is_the_ceiling() -> None:
    source, known = typed(6, 600)
    target, truth = typed(7, 600)
    ceiling = metrics.supervised_accuracy(target, truth)
    assert 0.7 < ceiling.plain < 1.0
    perfect = metrics.label_transfer(target, truth, target, truth, n_neighbours=1)
    assert perfect.fraction_of(ceiling).plain > 1.0
    mixed = metrics.label_transfer(source, known, target, truth).fraction_of(ceiling)
    assert mixed.plain == pytest.approx(1.0, abs=0.12)
    noise = np.random.default_rng(0).normal(size=(600, 4))
    assert metrics.supervised_accuracy(noise, truth).balanced == pytest.approx(0.25, abs=0.05)
    assert metrics.supervised_accuracy(target, truth) == ceiling
    with pytest.raises(RequestError, match="two types"):
        metrics.supervised_accuracy(noise, np.repeat("A", 600))
    with pytest.raises(RequestError, match="labels"):
        metrics.supervised_accuracy(noise, truth[:5])


def test_labels_must_belong_to_cells() -> None:
    source, known = typed(0, 30)
    with pytest.raises(RequestError, match="source_labels"):
        metrics.label_transfer(source, known[:3], source, known)
    with pytest.raises(RequestError, match="target_labels"):
        metrics.label_transfer(source, known, source, known[:3])
    with pytest.raises(RequestError, match="n_neighbours"):
        metrics.label_transfer(source, known, source, known, n_neighbours=0)
    with pytest.raises(RequestError, match="dimensions"):
        metrics.label_transfer(source, known, source[:, :2], known)


@pytest.mark.parametrize("missing", [None, np.nan])
def test_cells_without_a_type_are_no_type(missing: float | None) -> None:
    source, known = typed(0, 60)
    lacking = known.astype(object)
    lacking[:5] = missing
    for labels in (lacking, lacking.tolist(), pd.Categorical(lacking)):
        with pytest.raises(RequestError, match=r"'source_labels'.*5 of 60 cells have no label"):
            metrics.label_transfer(source, labels, source, known)
        with pytest.raises(RequestError, match=r"'target_labels'.*5 of 60 cells have no label"):
            metrics.label_transfer(source, known, source, labels)
        with pytest.raises(RequestError, match=r"'labels'.*5 of 60 cells have no label"):
            metrics.supervised_accuracy(source, labels, n_folds=2)
    found = cells(13, 300)
    some = found.types.astype(object)
    some[:40] = missing
    given = {"batch": found.batch, "depth": found.depth}
    rest = metrics.leakage(
        found.noise[40:], found.types[40:], **{key: x[40:] for key, x in given.items()}
    )
    assert metrics.leakage(found.noise, some, **given) == rest
    with pytest.raises(RequestError, match=r"'confidence'.*1 of 3 values are NaN"):
        metrics.accuracy_at_coverage([0.5, np.nan, 0.7], [True, False, True], [0.5])


def test_strata_of_a_list_want_a_batch_of_each_cell() -> None:
    batch = ["a", "b", float("nan")] * 20
    with pytest.raises(RequestError, match=r"'batch'.*20 of 60 cells have none"):
        metrics.depth_strata(np.arange(60), batch)


def test_labels_of_several_types_are_names() -> None:
    latent, types = typed(0, 60)
    mixed = np.array([{"A": 1, "B": "2"}.get(t, 3.0) for t in types], dtype=object)
    names = np.array([{"A": "1", "B": "2"}.get(t, "3") for t in types])
    batch = np.arange(60) % 2
    assert metrics.batch_mixing(latent, batch, mixed) == metrics.batch_mixing(latent, batch, names)
    assert metrics.batch_mixing(latent, mixed) == metrics.batch_mixing(latent, names)
    scores = [
        metrics.within_type(metrics.pearson, latent, latent[:, ::-1], t, min_cells=5)
        for t in (mixed, names)
    ]
    np.testing.assert_array_equal(*scores)


def test_latents_of_cells_without_evidence_are_refused() -> None:
    latent, types = typed(0, 60)
    latent[:3] = np.nan
    batch = np.arange(60) % 2
    found = r"'{}'.*not finite, in 3 of 60 cells.*np.isfinite\(latent\)"
    with pytest.raises(RequestError, match=found.format("latent")):
        metrics.batch_mixing(latent, batch)
    with pytest.raises(RequestError, match=found.format("latent")):
        metrics.leakage(latent, batch=batch)
    with pytest.raises(RequestError, match=found.format("features")):
        metrics.supervised_accuracy(latent, types, n_folds=2)
    with pytest.raises(RequestError, match=found.format("left, right")):
        metrics.label_transfer(latent, types, latent, types)
    with pytest.raises(RequestError, match=r"'latent'.*\(60,\)"):
        metrics.batch_mixing(batch, batch)


def test_accuracy_at_coverage_is_the_mean_over_orders_of_ties() -> None:
    rng = np.random.default_rng(8)
    confidence, correct = rng.integers(4, size=50).astype(float), rng.random(50) < 0.5
    levels = np.array([0.1, 0.5, 0.9, 1.0])
    orders = []
    for _ in range(4000):
        shuffled = rng.permutation(50)
        best = shuffled[np.argsort(-confidence[shuffled], kind="stable")]
        orders.append([correct[best[: round(level * 50)]].mean() for level in levels])
    found = metrics.accuracy_at_coverage(confidence, correct, levels)
    np.testing.assert_allclose(found, np.mean(orders, axis=0), atol=0.015)
    assert found[-1] == pytest.approx(correct.mean())
    useful = metrics.accuracy_at_coverage(correct + 0.1 * rng.random(50), correct, [0.2])
    assert useful[0] == 1.0
    with pytest.raises(RequestError, match="coverage"):
        metrics.accuracy_at_coverage(confidence, correct, [0.0])
    with pytest.raises(RequestError, match="correct"):
        metrics.accuracy_at_coverage(confidence, correct[:3], [0.5])


def cells(seed: int, n_cells: int = 1200) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    types = rng.integers(3, size=n_cells)
    # batches and depths of unlike types differ: knowing the type earns nothing
    batch = (rng.random(n_cells) < np.array([0.2, 0.5, 0.8])[types]).astype(int)
    depth = rng.poisson(np.exp(6.0 + types + rng.normal(size=n_cells)))
    return SimpleNamespace(
        types=types, batch=batch, depth=depth, noise=rng.normal(size=(n_cells, 5))
    )


def test_leakage_of_nothing_and_of_everything() -> None:
    found = cells(9, 4000)
    given = {"batch": found.batch, "depth": found.depth}
    nothing = metrics.leakage(found.noise + 5.0 * found.types[:, None], found.types, **given)
    assert nothing.batch < 0.06
    assert nothing.depth < 0.02
    constant = metrics.leakage(np.zeros((4000, 3)), found.types, **given)
    assert constant.batch < 0.01
    assert constant.depth == 0.0
    told = np.column_stack([found.batch, np.log1p(found.depth)])
    everything = metrics.leakage(told, found.types, **given)
    assert everything.batch == pytest.approx(1.0)
    assert everything.depth == pytest.approx(1.0, abs=0.01)


def test_leakage_is_judged_within_types() -> None:
    found = cells(10)
    types = 5.0 * np.eye(3)[found.types] + 0.1 * found.noise[:, :3]
    given = {"batch": found.batch, "depth": found.depth}
    assert metrics.leakage(types, **given).batch > 0.2
    within = metrics.leakage(types, found.types, **given)
    assert within.batch < 0.06
    assert within.depth < 0.02


def test_leakage_finds_shifts_and_spreads_and_is_invariant() -> None:
    found = cells(11)
    shift = found.noise + 0.8 * found.batch[:, None]
    spread = found.noise * (1.0 + found.batch[:, None])
    batch = metrics.leakage(shift, found.types, batch=found.batch)
    assert 0.3 < batch.batch < 0.9
    assert np.isnan(batch.depth)
    assert metrics.leakage(spread, found.types, batch=found.batch).batch > 0.2
    order = np.random.default_rng(0).permutation(1200)
    again = metrics.leakage(
        10.0 * shift[order] + 3.0, found.types[order].astype(str), batch=found.batch[order]
    )
    assert again.batch == pytest.approx(batch.batch, abs=0.05)
    signal = np.log1p(found.depth)[:, None] + found.noise
    depth = metrics.leakage(signal, found.types, depth=found.depth).depth
    # five noisy copies of a signal of variance 1: 5 / 6 of it can be known
    assert depth == pytest.approx(5 / 6, abs=0.05)


def test_leakage_without_something_to_judge_is_nan() -> None:
    found = cells(12, 60)
    with_one = metrics.leakage(found.noise, batch=np.zeros(60), depth=found.depth)
    assert np.isnan(with_one.batch)
    few = metrics.leakage(found.noise, found.types, batch=found.batch, min_cells=500)
    assert np.isnan(few.batch)
    # one depth in all cells, as after scaling to equal totals in float32
    same = np.float32(1e4) * (1 + np.random.default_rng(0).integers(-2, 3, 60) * np.float32(1e-7))
    for depth in (np.ones(60), np.zeros(60), same):
        assert np.isnan(metrics.leakage(found.noise, depth=depth).depth)
    for wrong in (-1.0, np.inf):
        with pytest.raises(RequestError, match=r"'depth'.*1 of 60 values are negative or infinite"):
            metrics.leakage(found.noise, depth=np.r_[wrong, found.depth[1:]])
    with pytest.raises(RequestError, match="batch"):
        metrics.leakage(found.noise, batch=[1, 2])
    with pytest.raises(RequestError, match="n_folds"):
        metrics.leakage(found.noise, batch=found.batch, n_folds=1)


def test_scib_metrics_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scib_metrics", None)
    latent, types = typed(0, 40)
    with pytest.raises(RequestError, match=r"mosaicvi\[metrics\]"):
        metrics.bio_conservation(latent, types)
    with pytest.raises(RequestError, match=r"mosaicvi\[metrics\]"):
        metrics.modality_mixing(latent, types, types)


def test_what_scib_metrics_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the signatures of scib-metrics 0.5: neighbours, then labels."""

    def knn(neighbours: SimpleNamespace, labels: np.ndarray) -> float:
        assert neighbours.indices.shape == neighbours.distances.shape
        assert (neighbours.indices[:, 0] == np.arange(len(labels))).all()
        return neighbours.indices.shape[1] / 1000

    fake, inner = ModuleType("scib_metrics"), ModuleType("scib_metrics.nearest_neighbors")
    inner.NeighborsResults = SimpleNamespace  # type: ignore[attr-defined]
    fake.nmi_ari_cluster_labels_kmeans = lambda latent, labels: {"nmi": 0.5, "ari": 0.25}  # type: ignore[attr-defined]
    fake.silhouette_label = lambda latent, labels: 0.75  # type: ignore[attr-defined]
    fake.silhouette_batch = lambda latent, labels, batch: 0.125  # type: ignore[attr-defined]
    for name in ("clisi_knn", "ilisi_knn", "graph_connectivity"):
        setattr(fake, name, knn)
    monkeypatch.setitem(sys.modules, "scib_metrics", fake)
    monkeypatch.setitem(sys.modules, "scib_metrics.nearest_neighbors", inner)
    latent, types = typed(0, 40)
    modality = np.arange(40) % 2
    assert metrics.bio_conservation(latent, types, n_neighbours=20) == {
        "nmi": 0.5,
        "ari": 0.25,
        "silhouette_label": 0.75,
        "clisi": 0.02,
    }
    assert metrics.modality_mixing(latent, types, modality) == {
        "ilisi": 0.04,
        "silhouette_batch": 0.125,
        "graph_connectivity": 0.015,
    }
    with pytest.raises(RequestError, match="at least two"):
        metrics.modality_mixing(latent, types, np.zeros(40))


def test_cells_without_a_type_are_no_type_of_scib_metrics() -> None:
    pytest.importorskip("scib_metrics")
    latent, types = typed(0, 120, spread=0.3)
    modality = np.arange(120) % 2
    some = types.astype(object)
    some[:40] = np.nan
    rest = metrics.bio_conservation(latent[40:], types[40:], n_neighbours=30)
    assert metrics.bio_conservation(latent, some, n_neighbours=30) == rest
    mixed = metrics.modality_mixing(latent[40:], types[40:], modality[40:], n_neighbours=30)
    assert metrics.modality_mixing(latent, some, modality, n_neighbours=30) == mixed


def test_scib_metrics_itself() -> None:
    pytest.importorskip("scib_metrics")
    latent, types = typed(0, 300, spread=0.1)
    modality = np.random.default_rng(0).integers(2, size=300)
    assert min(metrics.bio_conservation(latent, types).values()) > 0.6
    assert metrics.modality_mixing(latent, types, modality)["ilisi"] > 0.7
    apart = np.column_stack([latent, 100.0 * modality])
    assert metrics.modality_mixing(apart, types, modality)["ilisi"] < 0.1


def test_tables_and_labels_of_the_same_cells_are_matched_by_name() -> None:
    """Labels of another order had been read by place, and gave other scores without a word."""
    left, right = pair(0, 120)
    rng = np.random.default_rng(0)
    cells = [f"cell{number}" for number in range(120)]
    batch, types = rng.choice(["a", "b"], 120), rng.choice(["T", "B"], 120)
    left = left + 2.0 * (batch == "a")[:, None] * [1.0, 0.0, 0.0]
    order = rng.permutation(120)
    table, other = pd.DataFrame(left, cells), pd.DataFrame(right, cells).iloc[order]
    batches, named = (pd.Series(part, cells).iloc[order] for part in (batch, types))
    assert metrics.foscttm(table, other) == metrics.foscttm(left, right)
    assert metrics.foscttm(table, other, groups=named) == metrics.foscttm(left, right, groups=types)
    assert metrics.matching_accuracy(table, other) == metrics.matching_accuracy(left, right)
    assert metrics.batch_mixing(table, batches, named) == metrics.batch_mixing(left, batch, types)
    assert metrics.leakage(table, named, batch=batches, min_cells=10).batch == (
        metrics.leakage(left, types, batch=batch, min_cells=10).batch
    )
    found = metrics.label_transfer(table, named, table, named)
    assert found.accuracy == metrics.label_transfer(left, types, left, types).accuracy
    assert metrics.supervised_accuracy(table, named) == metrics.supervised_accuracy(left, types)
    depth = pd.Series(rng.integers(1, 99, 120), cells)
    np.testing.assert_array_equal(
        metrics.depth_strata(depth, batches), metrics.depth_strata(depth.to_numpy(), batch)
    )


def test_foscttm_takes_sparse_latents_as_matching_accuracy_does() -> None:
    left, right = pair(1)
    assert metrics.foscttm(sp.csr_matrix(left), right) == metrics.foscttm(left, right)
