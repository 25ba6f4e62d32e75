"""Scores where predictions are missing or infinite, levels in every form, and labels as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import stats
from sklearn.metrics import roc_auc_score

from mosaicvi import metrics
from mosaicvi._errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

SCORES = {"pearson": metrics.pearson, "spearman": metrics.spearman, "rmse": metrics.rmse}


def tables(n_cells: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Predictions, a third of them missing in each feature, and what was measured."""
    rng = np.random.default_rng(0)
    measured = rng.normal(size=(n_cells, 2))
    predicted = measured + rng.normal(size=measured.shape)
    predicted[: n_cells // 3, 0] = np.nan
    predicted[n_cells // 2 :: 3, 1] = np.nan
    measured[5::20] = np.nan
    return predicted, measured


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("pearson", lambda x, y: stats.pearsonr(x, y)[0]),
        ("spearman", lambda x, y: stats.spearmanr(x, y)[0]),
        ("rmse", lambda x, y: np.sqrt(np.mean((x - y) ** 2))),
    ],
)
def test_cells_without_a_prediction_are_left_out(
    name: str, oracle: Callable[[np.ndarray, np.ndarray], float]
) -> None:
    predicted, measured = tables()
    found = SCORES[name](predicted, measured)
    for feature in range(2):
        both = ~np.isnan(predicted[:, feature]) & ~np.isnan(measured[:, feature])
        expected = oracle(predicted[both, feature], measured[both, feature])
        np.testing.assert_allclose(found[feature], expected)
    nothing = SCORES[name](np.full((9, 1), np.nan), np.arange(9.0))
    assert np.isnan(nothing).all()


def test_cells_without_a_prediction_are_called_neither() -> None:
    predicted, measured = tables(300)
    found = metrics.gate_scores(predicted, measured, np.zeros(2))
    for feature in range(2):
        both = ~np.isnan(predicted[:, feature]) & ~np.isnan(measured[:, feature])
        truth, called = measured[both, feature] > 0, predicted[both, feature] > 0
        np.testing.assert_allclose(found.recall_positive[feature], called[truth].mean())
        np.testing.assert_allclose(found.precision_positive[feature], truth[called].mean())
        np.testing.assert_allclose(found.precision_negative[feature], (~truth[~called]).mean())
        np.testing.assert_allclose(
            found.auc[feature], roc_auc_score(truth, predicted[both, feature])
        )


@pytest.mark.parametrize("name", SCORES)
def test_types_weigh_by_the_cells_that_were_scored(name: str) -> None:
    predicted, measured = tables(180)
    types = np.repeat(["a", "b", "c"], 60)
    predicted[60:105, 0] = np.nan  # 15 cells of b are too few
    found = metrics.within_type(SCORES[name], predicted, measured, types)
    for feature in range(2):
        total = weight = 0.0
        for kind in "abc":
            both = ~np.isnan(predicted[:, feature]) & ~np.isnan(measured[:, feature])
            both &= types == kind
            if both.sum() >= 20:
                score = SCORES[name](predicted[both, feature], measured[both, feature])[0]
                total, weight = total + both.sum() * score, weight + both.sum()
        np.testing.assert_allclose(found[feature], total / weight)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("key", ["predicted", "measured"])
def test_infinite_values_are_refused(key: str, sign: int) -> None:
    given = {"predicted": np.arange(4.0), "measured": np.arange(4.0)}
    given[key][1] = sign * np.inf
    for score in SCORES.values():
        with pytest.raises(RequestError, match=rf"'{key}'.*1 of 4 values are infinite"):
            score(**given)
    with pytest.raises(RequestError, match=rf"'{key}'.*infinite"):
        metrics.gate_scores(**given, threshold=np.zeros(1))


@pytest.mark.parametrize("levels", [np.array([0.5, 0.9]), [np.float32(0.5), 0.9], (0.5, 0.9)])
def test_levels_may_be_an_array(levels: Any) -> None:
    rng = np.random.default_rng(0)
    pit, draws = rng.random((50, 3)), rng.normal(size=(40, 50, 3))
    for score, given in (
        (metrics.coverage, pit),
        (metrics.miscoverage, pit),
        (metrics.interval_width, draws),
    ):
        np.testing.assert_array_equal(score(given, levels), score(given, (0.5, 0.9)))


@pytest.mark.parametrize("level", [0.9, np.float32(0.9), np.array(0.9)])
def test_one_level_is_a_level(level: Any) -> None:
    pit = np.random.default_rng(0).random((50, 3))
    found = metrics.coverage(pit, level)
    assert found.shape == (1, 3)
    np.testing.assert_array_equal(found, metrics.coverage(pit, [0.9]))


@pytest.mark.parametrize("levels", [(), 95, [0.5, 95], 0.0, None, "many", [[0.5]], np.nan])
def test_other_levels_are_refused(levels: Any) -> None:
    pit, draws = np.zeros((4, 2)), np.zeros((3, 4, 2))
    for score, given in (
        (metrics.coverage, pit),
        (metrics.miscoverage, pit),
        (metrics.interval_width, draws),
    ):
        with pytest.raises(RequestError, match=r"'levels'.*between 0 and 1"):
            score(given, levels)


@pytest.mark.parametrize("level", [95, 0.0, 1.0, -0.1, np.nan])
def test_the_level_of_a_difference_is_a_share(level: float) -> None:
    with pytest.raises(RequestError, match=r"'level'.*between 0 and 1"):
        metrics.paired_difference([1.0, 2.0], [0.0, 1.0], level=level)


def test_codes_as_integers_floats_and_names_are_one_label() -> None:
    latent = np.random.default_rng(0).normal(size=(60, 3))
    codes = np.repeat([0, 1, 2], 20)
    for source in (codes, codes.astype(float), codes.astype(str), codes.astype(object)):
        for target in (codes, codes.astype(np.float32), codes.astype(str)):
            found = metrics.label_transfer(latent, source, latent, target, n_neighbours=1)
            assert found.accuracy.plain == 1.0
            assert set(found.predicted) == {"0", "1", "2"}
    halves = codes + 0.5
    found = metrics.label_transfer(latent, codes, latent, halves, n_neighbours=1)
    assert found.accuracy.plain == 0.0


ROW = np.zeros(60)


@pytest.mark.parametrize(
    "score",
    [
        lambda x: metrics.pearson(x, x),
        lambda x: metrics.crps_from_samples(x, ROW),
        lambda x: metrics.randomised_pit(np.zeros((2, 60)), x),
        lambda x: metrics.interval_width(x),
        lambda x: metrics.coverage(x),
        lambda x: metrics.batch_mixing(x, ROW),
        lambda x: metrics.foscttm(x, x),
        lambda x: metrics.supervised_accuracy(x, ROW),
        lambda x: metrics.leakage(x, batch=ROW),
    ],
)
def test_objects_of_tables_are_refused_at_once(score: Callable[[Any], Any]) -> None:
    """numpy would make an array of them a value at a time, which does not end."""
    adata = AnnData(np.ones((60, 20), dtype=np.float32))
    with pytest.raises(RequestError, match=r"found AnnData.*adata\.to_df\(\)"):
        score(adata)
    with pytest.raises(RequestError, match=r"found MuData.*of one modality"):
        score(MuData({"rna": adata}))


def test_series_are_matched_by_name() -> None:
    rng = np.random.default_rng(0)
    cells = pd.Index([f"cell{number}" for number in range(90)])
    table = pd.DataFrame(rng.normal(size=(90, 3)), index=cells)
    measured = table + rng.normal(size=table.shape)
    types = pd.Series(np.repeat(["a", "b", "c"], 30), index=cells, dtype="category")
    order = rng.permutation(90)
    expected = metrics.within_type(metrics.pearson, table, measured, types)
    found = metrics.within_type(metrics.pearson, table, measured, types.iloc[order])
    np.testing.assert_array_equal(found, expected)
    # of an array, or of other names, there is nothing to match: rows are those of the table
    for other in (types.to_numpy(), types.reset_index(drop=True)):
        again = metrics.within_type(metrics.pearson, table, measured, other)
        np.testing.assert_array_equal(again, expected)
    truth, score = types == "a", table[0]
    assert metrics.auc(score, truth.iloc[order]) == metrics.auc(score, truth)
    shares = [0.3, 1.0]
    np.testing.assert_array_equal(
        metrics.accuracy_at_coverage(score, truth.iloc[order], shares),
        metrics.accuracy_at_coverage(score, truth, shares),
    )
    assert metrics.paired_difference(score, measured[0].iloc[order]) == metrics.paired_difference(
        score, measured[0]
    )


@pytest.mark.parametrize("score", [metrics.coverage, metrics.miscoverage, metrics.pit_distance])
@pytest.mark.parametrize("draws", [np.zeros((5, 4, 3)), np.full((4, 3), 7.0)])
def test_what_is_no_pit_is_refused(score: Callable[[Any], Any], draws: np.ndarray) -> None:
    """Draws or counts in place of the PIT: shares of them would mean nothing."""
    with pytest.raises(RequestError, match=r"randomised_pit\(draws, measured\)"):
        score(draws)
