"""Scores against closed forms, brute force and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import stats
from sklearn.metrics import precision_score, roc_auc_score

from mosaicvi import metrics
from mosaicvi._errors import RequestError


def normal_crps(mean: np.ndarray, sd: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Gneiting & Raftery 2007, equation 5: CRPS of N(mean, sd^2)."""
    z = (value - mean) / sd
    return sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))


def test_crps_of_many_normal_draws_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    mean, sd = rng.normal(size=(5, 4)), rng.uniform(0.5, 2.0, size=(5, 4))
    value = rng.normal(size=(5, 4))
    draws = mean + sd * rng.normal(size=(40_000, 5, 4))
    exact = normal_crps(mean, sd, value)
    np.testing.assert_allclose(metrics.crps_from_samples(draws, value), exact, atol=0.03)


def test_fair_crps_is_unbiased_for_few_draws_and_plain_is_not() -> None:
    rng = np.random.default_rng(1)
    n_repeats = 40_000
    value = np.full((n_repeats, 1), 0.3)
    draws = rng.normal(size=(3, n_repeats, 1))
    exact = float(normal_crps(np.array(0.0), np.array(1.0), np.array(0.3)))
    fair = metrics.crps_from_samples(draws, value)
    plain = metrics.crps_from_samples(draws, value, estimator="plain")
    assert abs(fair.mean() - exact) < 5 * fair.std() / np.sqrt(n_repeats)
    # E|X - X'| / 2 = 1 / sqrt(pi); of the nine pairs three are a draw with itself
    assert abs(plain.mean() - exact - 1 / np.sqrt(np.pi) / 3) < 5 * plain.std() / np.sqrt(n_repeats)


@pytest.mark.parametrize("estimator", ["fair", "plain"])
def test_crps_equals_the_double_sum(estimator: str) -> None:
    rng = np.random.default_rng(2)
    draws, value = rng.poisson(3.0, size=(7, 6, 3)).astype(float), rng.poisson(3.0, size=(6, 3))
    pairs = np.abs(draws[:, None] - draws[None]).sum(axis=(0, 1))
    pairs = pairs / (7 * 6 if estimator == "fair" else 49)
    brute = np.abs(draws - value).mean(axis=0) - pairs / 2
    np.testing.assert_allclose(
        metrics.crps_from_samples(draws, value, estimator=estimator), brute, atol=1e-12
    )


def test_plain_crps_is_the_integral_of_squared_distance_of_cdfs() -> None:
    draws, value = np.array([0.0, 1.0, 4.0])[:, None, None], np.array([[2.0]])
    grid = np.linspace(-1, 6, 700_001)
    cdf = (draws.ravel()[:, None] <= grid).mean(axis=0)
    integral = np.trapezoid((cdf - (grid >= 2.0)) ** 2, grid)
    score = metrics.crps_from_samples(draws, value, estimator="plain")
    assert score.item() == pytest.approx(integral, abs=1e-4)


def test_crps_wants_matching_shapes_and_two_draws() -> None:
    with pytest.raises(RequestError, match="n_draws"):
        metrics.crps_from_samples(np.zeros((3, 2, 2)), np.zeros((2, 3)))
    with pytest.raises(RequestError, match="two"):
        metrics.crps_from_samples(np.zeros((1, 2, 2)), np.zeros((2, 2)))
    with pytest.raises(RequestError, match="fair"):
        metrics.crps_from_samples(np.zeros((2, 1, 1)), np.zeros((1, 1)), estimator="best")  # type: ignore[arg-type]


@pytest.mark.parametrize("n_draws", [4, 100])
def test_pit_of_counts_is_uniform_for_the_true_distribution(n_draws: int) -> None:
    rng = np.random.default_rng(3)
    rate = rng.gamma(1.0, 1.5, size=(20_000, 1))  # mostly small counts: many ties
    pit = metrics.randomised_pit(rng.poisson(rate, size=(n_draws, 20_000, 1)), rng.poisson(rate))
    assert stats.kstest(pit.ravel(), "uniform").pvalue > 0.01
    covered = metrics.coverage(pit)[:, 0]
    np.testing.assert_allclose(covered, [0.5, 0.8, 0.95], atol=0.015)
    assert metrics.miscoverage(pit).item() < 0.01


def test_pit_sees_intervals_that_are_too_narrow() -> None:
    rng = np.random.default_rng(4)
    pit = metrics.randomised_pit(
        0.5 * rng.normal(size=(200, 5_000, 1)), rng.normal(size=(5_000, 1))
    )
    expected = [2 * stats.norm.cdf(0.5 * stats.norm.ppf(0.5 + x / 2)) - 1 for x in (0.5, 0.8, 0.95)]
    np.testing.assert_allclose(metrics.coverage(pit)[:, 0], expected, atol=0.03)
    gaps = np.abs(np.array(expected) - [0.5, 0.8, 0.95])
    assert metrics.miscoverage(pit).item() == pytest.approx(gaps.mean(), abs=0.03)


def test_pit_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    rng = np.random.default_rng(7)
    pit = np.column_stack([rng.random(400), rng.beta(2.0, 5.0, 400), rng.beta(0.5, 0.5, 400)])
    expected = [stats.kstest(column, "uniform").statistic for column in pit.T]
    np.testing.assert_allclose(metrics.pit_distance(pit), expected)
    some = np.where(np.arange(400)[:, None] < 300, pit, np.nan)
    expected = [stats.kstest(column, "uniform").statistic for column in pit[:300].T]
    np.testing.assert_allclose(metrics.pit_distance(some), expected)
    assert np.isnan(metrics.pit_distance(np.full((4, 1), np.nan))).all()


def test_unmeasured_entries_are_left_out() -> None:
    rng = np.random.default_rng(5)
    measured, predicted = rng.normal(size=(50, 2)), rng.normal(size=(50, 2))
    masked = measured.copy()
    masked[30:, 0] = np.nan
    for score in (metrics.pearson, metrics.spearman, metrics.rmse):
        expected = [score(predicted[:30, :1], measured[:30, :1]), score(predicted, measured)[1:]]
        np.testing.assert_allclose(score(predicted, masked), np.concatenate(expected))
    pit = metrics.randomised_pit(rng.normal(size=(9, 50, 2)), masked)
    assert np.isnan(pit[30:, 0]).all()
    assert np.isfinite(metrics.coverage(pit)).all()


def test_entries_without_draws_are_left_out() -> None:
    rng = np.random.default_rng(12)
    draws, measured = rng.normal(size=(40, 30, 3)), rng.normal(size=(30, 3))
    lacking = draws.copy()
    lacking[:, 20:, :2] = np.nan
    lacking[7, :20, 1] = np.nan  # one draw is enough: the second feature has no entry left
    pit, whole = (metrics.randomised_pit(each, measured) for each in (lacking, draws))
    np.testing.assert_array_equal(pit[:20, 0], whole[:20, 0])
    np.testing.assert_array_equal(pit[:, 2], whole[:, 2])
    assert np.isnan(pit[20:, :2]).all()
    assert np.isnan(pit[:, 1]).all()
    for score in (metrics.coverage, metrics.miscoverage, metrics.pit_distance):
        found = score(pit)
        np.testing.assert_array_equal(found[..., :1], score(whole[:20, :1]))
        np.testing.assert_array_equal(found[..., 2:], score(whole[:, 2:]))
        assert np.isnan(found[..., 1]).all()
    width = metrics.interval_width(lacking)
    np.testing.assert_array_equal(width[:, :1], metrics.interval_width(draws[:, :20, :1]))
    np.testing.assert_array_equal(width[:, 2:], metrics.interval_width(draws[:, :, 2:]))
    assert np.isnan(width[:, 1]).all()


def test_width_is_the_normal_one() -> None:
    draws = np.random.default_rng(6).normal(size=(20_000, 3, 2)) * np.array([1.0, 2.0])
    expected = 2 * stats.norm.ppf([0.75, 0.9, 0.975])[:, None] * np.array([1.0, 2.0])
    np.testing.assert_allclose(metrics.interval_width(draws), expected, rtol=0.03)


def test_tables_are_compared_by_their_labels() -> None:
    rng = np.random.default_rng(13)
    cells, features = [f"c{i}" for i in range(20)], ["a", "b", "c"]
    predicted = pd.DataFrame(rng.normal(size=(20, 3)), index=cells, columns=features)
    measured = predicted + 0.1 * rng.normal(size=(20, 3))
    turned = measured.sample(frac=1, random_state=0)[["c", "a", "b"]]
    for score in (metrics.pearson, metrics.spearman, metrics.rmse):
        expected = score(predicted.to_numpy(), measured.to_numpy())
        np.testing.assert_array_equal(score(predicted, turned), expected)
        np.testing.assert_array_equal(score(predicted["b"], turned["b"]), expected[1:2])
        np.testing.assert_array_equal(score(predicted, measured.to_numpy()), expected)
        with pytest.raises(RequestError, match=r"20 rows of predicted.*'c0'.*to_numpy"):
            score(predicted, measured.reset_index(drop=True))
        with pytest.raises(
            RequestError, match=r"1 columns of predicted.*'c' against 'a', 'b', 'd'"
        ):
            score(predicted, measured.rename(columns={"c": "d"}))
        with pytest.raises(RequestError, match="same name"):
            score(predicted.rename(index={"c1": "c0"}), turned.rename(index={"c1": "c0"}))
        with pytest.raises(RequestError, match="shapes"):
            score(predicted, measured[:10])


def test_sparse_tables_are_read_and_other_objects_refused() -> None:
    rng = np.random.default_rng(14)
    measured = rng.poisson(1.0, size=(30, 2)).astype(float)
    predicted = measured + rng.normal(size=(30, 2))
    expected = metrics.pearson(predicted, measured)
    for sparse in (sp.csr_matrix(measured), sp.csc_array(measured)):
        np.testing.assert_array_equal(metrics.pearson(predicted, sparse), expected)
    draws = rng.poisson(1.0, size=(5, 30, 2))
    np.testing.assert_array_equal(
        metrics.randomised_pit(draws, sp.csr_matrix(measured)),
        metrics.randomised_pit(draws, measured),
    )
    with pytest.raises(RequestError, match=r"measured.*found object.*numbers"):
        metrics.pearson(predicted, object())
    with pytest.raises(RequestError, match=r"predicted.*found list"):
        metrics.rmse([["a"], ["b"]], measured[:2, :1])
    with pytest.raises(RequestError, match=r"draws.*found list"):
        metrics.randomised_pit([["a", "b"]], measured[:2, 0])


def test_correlations_are_scipys() -> None:
    rng = np.random.default_rng(7)
    measured = rng.poisson(2.0, size=(200, 3)).astype(float)
    predicted = measured + rng.normal(size=(200, 3)).round()
    for feature in range(3):
        pair = predicted[:, feature], measured[:, feature]
        assert metrics.pearson(predicted, measured)[feature] == pytest.approx(
            stats.pearsonr(*pair).statistic
        )
        assert metrics.spearman(predicted, measured)[feature] == pytest.approx(
            stats.spearmanr(*pair).statistic
        )


def test_a_constant_prediction_scores_zero_and_a_constant_feature_is_not_scored() -> None:
    measured = np.column_stack([np.arange(5.0), np.ones(5)])
    assert metrics.pearson(np.full((5, 2), 0.1 + 0.2), measured).tolist()[0] == 0.0
    assert np.isnan(metrics.pearson(measured, measured)[1])


def test_within_type_removes_what_types_explain() -> None:
    rng = np.random.default_rng(8)
    types = np.repeat(["a", "b", "c"], [300, 100, 5])
    offset = np.repeat([0.0, 10.0, 50.0], [300, 100, 5])[:, None]
    measured = offset + rng.normal(size=(405, 1))
    assert metrics.pearson(offset, measured).item() > 0.9
    assert metrics.within_type(metrics.pearson, offset, measured, types).item() == 0.0
    noisy = measured + rng.normal(size=(405, 1))
    score = metrics.within_type(metrics.pearson, noisy, measured, types)
    parts = [metrics.pearson(noisy[types == t], measured[types == t]).item() for t in "ab"]
    assert score.item() == pytest.approx((3 * parts[0] + parts[1]) / 4)


@pytest.mark.parametrize("none", [np.nan, None, pd.NA])
def test_cells_without_a_type_or_batch_are_left_out(none: object) -> None:
    rng = np.random.default_rng(9)
    measured, latent = rng.normal(size=(120, 2)), rng.normal(size=(120, 3))
    predicted = measured + rng.normal(size=(120, 2))
    types, batch = rng.choice(["a", "b"], 120), rng.choice(["x", "y"], 120)
    partly, some = types.astype(object), batch.astype(object)
    partly[:30] = some[20:40] = none
    score = metrics.within_type(metrics.pearson, predicted, measured, partly)
    expected = metrics.within_type(metrics.pearson, predicted[30:], measured[30:], types[30:])
    np.testing.assert_array_equal(score, expected)
    kept = np.arange(120) >= 40
    mixing = metrics.batch_mixing(latent, list(some), list(partly))
    assert mixing == metrics.batch_mixing(latent[kept], batch[kept], types[kept])
    nobody = np.full(120, none, dtype=object)
    assert np.isnan(metrics.within_type(metrics.pearson, predicted, measured, nobody)).all()
    assert np.isnan(metrics.batch_mixing(latent, nobody))


def test_gate_splits_two_groups_and_is_the_best_two_means() -> None:
    rng = np.random.default_rng(9)
    values = np.concatenate([rng.normal(1, 0.3, 400), rng.normal(4, 0.5, 100)])[:, None]
    gate = metrics.gate_threshold(values).item()
    assert 1.8 < gate < 3.0

    def within(threshold: float) -> float:
        groups = values[values <= threshold], values[values > threshold]
        return sum(((g - g.mean()) ** 2).sum() for g in groups if g.size)

    ordered = np.sort(values.ravel())
    assert within(gate) == pytest.approx(min(within(t) for t in ordered[:-1]))
    assert np.isnan(metrics.gate_threshold(np.ones((4, 1)))).all()


def test_gate_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(10)
    measured = rng.normal(size=(300, 2))
    predicted = measured + rng.normal(size=(300, 2))
    scores = metrics.gate_scores(predicted, measured, [0.2, 9.0])
    truth, called = measured[:, 0] > 0.2, predicted[:, 0] > 0.2
    assert scores.precision_positive[0] == pytest.approx(precision_score(truth, called))
    assert scores.precision_negative[0] == pytest.approx(precision_score(~truth, ~called))
    assert scores.auc[0] == pytest.approx(roc_auc_score(truth, predicted[:, 0]))
    assert np.isnan(scores.precision[1])
    silent = metrics.gate_scores(np.zeros((300, 1)), measured[:, :1], [0.2])
    assert silent.precision_positive.item() == 0.0


def test_gates_belong_to_features() -> None:
    values = np.random.default_rng(15).normal(size=(40, 2))
    with pytest.raises(RequestError, match=r"'threshold'.*shape \(\) for 2 features.*np.full"):
        metrics.gate_scores(values, values, 2.0)
    with pytest.raises(RequestError, match=r"'measured_threshold'.*\(3,\)"):
        metrics.gate_scores(values, values, [0.0, 0.0], [0.0, 0.0, 0.0])


def test_auc_counts_ties_one_half() -> None:
    assert metrics.auc(np.zeros(4), np.array([True, False, True, False])) == 0.5
    assert np.isnan(metrics.auc(np.zeros(3), np.ones(3, dtype=bool)))


def test_truth_is_true_or_false() -> None:
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    truth = np.array([False, False, True, True])
    for written in (truth.astype(int), truth.astype(float), truth.astype(object), truth.tolist()):
        assert metrics.auc(scores, written) == 0.75
        assert metrics.accuracy_at_coverage(scores, written, [0.5])[0] == 0.5
    for wrong in (
        ["B", "B", "T", "T"],
        [1, 1, 2, 2],
        [0, 1, np.nan, 1],
        pd.Series([True, None, False, True]),
        pd.array([True, None, False, True], dtype="boolean"),
    ):
        with pytest.raises(RequestError, match=r"'positive'.*booleans.*labels =="):
            metrics.auc(scores, wrong)
        with pytest.raises(RequestError, match=r"'correct'.*booleans"):
            metrics.accuracy_at_coverage(scores, wrong, [0.5])


def test_paired_difference_covers_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    hits = 0
    for repeat in range(200):
        shared = rng.normal(size=30)
        found = metrics.paired_difference(
            shared + 0.3 + 0.5 * rng.normal(size=30), shared, n_resamples=500, seed=repeat
        )
        hits += found.low <= 0.3 <= found.high
    assert 0.87 < hits / 200 < 0.99


def test_paired_difference_wants_pairs() -> None:
    found = metrics.paired_difference([1.0, 2.0], [0.5, 1.5])
    assert found.mean == pytest.approx(0.5)
    assert found.excludes_zero
    single = metrics.paired_difference([1.0], [0.5])
    assert single.mean == pytest.approx(0.5)
    assert np.isnan([single.low, single.high]).all()
    assert not single.excludes_zero
    with pytest.raises(RequestError, match="seed"):
        metrics.paired_difference([1.0, 2.0], [1.0])


def test_batches_that_mix_score_one_and_batches_apart_zero() -> None:
    rng = np.random.default_rng(0)
    latent, batch = rng.normal(size=(900, 5)), rng.integers(3, size=900)
    assert metrics.batch_mixing(latent, batch) == pytest.approx(1.0, abs=0.03)
    apart = latent + 100.0 * batch[:, None]
    assert metrics.batch_mixing(apart, batch) == 0.0
    # half of a batch shifted away: between the two
    half = latent + 100.0 * ((batch == 0) & (rng.random(900) < 0.5))[:, None]
    assert 0.5 < metrics.batch_mixing(half, batch) < 0.95


def test_mixing_is_judged_within_types() -> None:
    rng = np.random.default_rng(1)
    types = rng.integers(2, size=1200)
    # Batches of unlike composition: across types they lie apart, within types they mix.
    batch = (rng.random(1200) < np.where(types == 0, 0.9, 0.1)).astype(int)
    latent = rng.normal(size=(1200, 4)) + 50.0 * types[:, None]
    assert metrics.batch_mixing(latent, batch, types) == pytest.approx(1.0, abs=0.05)
    assert metrics.batch_mixing(latent, batch) < 0.5
    names = np.array(["T cell", "B cell"])[types]
    assert metrics.batch_mixing(latent, batch, names) == metrics.batch_mixing(latent, batch, types)


@pytest.mark.parametrize("number", [0, -1, 1.5, "3", None, True])
def test_numbers_of_cells_are_whole(number: object) -> None:
    """One and a half neighbours were taken, as a rank that no match has."""
    cells, groups = np.random.default_rng(0).normal(size=(20, 2)), np.tile(["a", "b"], 10)
    wrong: Any = number
    for key, ask in {
        "n_neighbours": (
            lambda: metrics.batch_mixing(cells, groups, n_neighbours=wrong),
            lambda: metrics.matching_accuracy(cells, cells, n_neighbours=wrong),
            lambda: metrics.label_transfer(cells, groups, cells, groups, n_neighbours=wrong),
        ),
        "n_quantiles": (lambda: metrics.depth_strata(cells[:, 0], n_quantiles=wrong),),
        "n_resamples": (
            lambda: metrics.paired_difference(cells[:, 0], cells[:, 1], n_resamples=wrong),
        ),
    }.items():
        for score in ask:
            with pytest.raises(RequestError, match=f"{key}.*a whole number, 1 or more"):
                score()
    if number is not None:
        with pytest.raises(RequestError, match=r"n_queries.*or None, for all"):
            metrics.foscttm(cells, cells, n_queries=wrong)


def test_mixing_needs_two_batches_and_matching_lengths() -> None:
    assert np.isnan(metrics.batch_mixing(np.zeros((5, 2)), np.zeros(5)))
    with pytest.raises(RequestError, match="5 rows"):
        metrics.batch_mixing(np.zeros((5, 2)), np.zeros(4))
    with pytest.raises(RequestError, match="n_neighbours"):
        metrics.batch_mixing(np.zeros((5, 2)), np.arange(5), n_neighbours=0)
