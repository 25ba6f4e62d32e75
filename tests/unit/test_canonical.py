"""Canonical directions against closed forms, scikit-learn and a signal that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import linalg, stats
from sklearn.cross_decomposition import CCA

from mosaicvi.alignment import CellPairs, _canonical, fit_canonical

if TYPE_CHECKING:
    from mosaicvi.alignment import Canonical

N_CELLS = 900


def same_cells(n_cells: int = N_CELLS) -> CellPairs:
    rows = np.arange(n_cells)
    return CellPairs(rows, rows, np.ones(n_cells))


def two_views(
    correlations: tuple[float, ...] = (0.9, 0.6, 0.3), widths: tuple[int, int] = (6, 4)
) -> dict[str, np.ndarray]:
    """Two modalities whose population canonical correlations are known, mixed and shifted."""
    rng = np.random.default_rng(0)
    views = [rng.normal(size=(N_CELLS, width)) for width in widths]
    for column, rho in enumerate(correlations):
        noise = views[1][:, column]
        views[1][:, column] = rho * views[0][:, column] + np.sqrt(1 - rho**2) * noise
    mixed = [view @ rng.normal(size=(view.shape[1],) * 2) + 3.0 for view in views]
    return dict(zip(("rna", "protein"), mixed, strict=True))


def closed_form(
    left: np.ndarray, right: np.ndarray, weight: np.ndarray, ridge: float
) -> np.ndarray:
    """Canonical correlations of weighted rows: singular values of the whitened covariance."""
    mass = weight / weight.sum()
    factors, centred = [], []
    for side in (left, right):
        middle = side - np.average(side, axis=0, weights=weight)
        covariance = np.cov(side.T, aweights=weight, ddof=0)
        largest = np.linalg.eigvalsh(covariance)[-1]
        factors.append(linalg.cholesky(covariance + ridge * largest * np.eye(len(covariance))))
        centred.append(middle)
    cross = (centred[0] * mass[:, None]).T @ centred[1]
    half = linalg.solve_triangular(factors[0], cross, trans="T")
    return linalg.svdvals(linalg.solve_triangular(factors[1], half.T, trans="T"))


def test_correlations_equal_the_closed_form_over_weighted_and_repeated_pairs() -> None:
    values = two_views()
    rng = np.random.default_rng(1)
    left = rng.integers(N_CELLS, size=2000)
    right = np.where(rng.random(2000) < 0.8, left, rng.integers(N_CELLS, size=2000))
    weight = rng.gamma(1.0, size=2000)
    found = fit_canonical(values, {("rna", "protein"): CellPairs(left, right, weight)}, 20)
    expected = closed_form(values["rna"][left], values["protein"][right], weight, _canonical.RIDGE)
    assert found.correlation.shape == (4,)
    np.testing.assert_allclose(found.correlation, expected, atol=1e-8)


def test_directions_equal_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_canonical, "RIDGE", 1e-10)
    values = two_views()
    found = fit_canonical(values, {("rna", "protein"): same_cells()}, 3)
    oracle = CCA(3, max_iter=20_000, tol=1e-12).fit(values["rna"], values["protein"])
    sides = oracle.transform(values["rna"], values["protein"])
    for name, theirs in zip(values, sides, strict=True):
        ours = found.scores(name, values[name])
        for direction in range(3):
            r = stats.pearsonr(ours[:, direction], theirs[:, direction]).statistic
            assert abs(r) == pytest.approx(1.0, abs=1e-4)
    for direction in range(3):
        r = stats.pearsonr(sides[0][:, direction], sides[1][:, direction]).statistic
        assert found.correlation[direction] == pytest.approx(r, abs=1e-5)


def test_scores_of_a_pair_agree_in_sign() -> None:
    values = two_views()
    found = fit_canonical(values, {("rna", "protein"): same_cells()}, 3)
    scores = [found.scores(name, each) for name, each in values.items()]
    for direction in range(2):
        assert np.corrcoef(scores[0][:, direction], scores[1][:, direction])[0, 1] > 0.5


def test_scores_are_centred_and_weighted_by_the_likelihood_ratio() -> None:
    """The weight's square is how fast log p(a, b) / p(a) p(b) grows with a b."""
    values = two_views()
    found = fit_canonical(values, {("rna", "protein"): same_cells()}, 3)

    def gain(rho: float) -> float:
        joint = stats.multivariate_normal(cov=[[1, rho], [rho, 1]])
        return sum(sign * joint.logpdf([1.0, sign]) for sign in (1, -1)) / 2

    gains = np.array([gain(rho) for rho in found.correlation])
    expected = np.sqrt(gains / gains[0])
    for name in values:
        scores = found.scores(name, values[name])
        np.testing.assert_allclose(scores.mean(0), 0.0, atol=1e-10)
        # The ridge takes a little of the variance of each score.
        np.testing.assert_allclose(scores.std(0) / scores.std(0)[0], expected, rtol=0.05)
        assert scores.std(0)[0] == pytest.approx(1.0, rel=0.05)


def test_a_perfect_direction_does_not_silence_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_canonical, "RIDGE", 1e-10)
    values = two_views((1.0, 0.7))
    found = fit_canonical(values, {("rna", "protein"): same_cells()}, 2)
    scores = found.scores("rna", values["rna"])
    assert found.correlation[0] == pytest.approx(1.0)
    assert scores.std(0)[1] > 0.1


def test_noise_has_little_weight_beside_a_signal() -> None:
    values = two_views((0.9,))
    found = fit_canonical(values, {("rna", "protein"): same_cells()}, 3)
    scores = found.scores("protein", values["protein"])
    assert (scores.std(0)[1:] < 0.3 * scores.std(0)[0]).all()


def three_views() -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(2)
    signal = rng.normal(size=(N_CELLS, 2))
    views = {}
    for name, width in (("rna", 8), ("atac", 7), ("protein", 5)):
        own = rng.normal(size=(N_CELLS, width))
        # A nuisance of each modality varies most.
        own[:, 0] *= 4.0
        views[name] = own + signal @ rng.normal(size=(2, width))
    return views, signal


def pairs_of(*both: tuple[str, str]) -> dict[tuple[str, str], CellPairs]:
    """Each two modalities are paired in other cells."""
    share = N_CELLS // len(both)
    found = {}
    for number, key in enumerate(both):
        rows = np.arange(number * share, (number + 1) * share)
        found[key] = CellPairs(rows, rows, np.ones(share))
    return found


EVERY = (("rna", "atac"), ("rna", "protein"), ("atac", "protein"))


@pytest.mark.parametrize("both", [EVERY, EVERY[:2]], ids=["each two", "through the first"])
def test_three_modalities_give_the_signal_they_share(both: tuple[tuple[str, str], ...]) -> None:
    values, signal = three_views()
    found = fit_canonical(values, pairs_of(*both), 2)
    for name, each in values.items():
        scores = found.scores(name, each)
        fitted = np.column_stack([scores, np.ones(N_CELLS)])
        rest = signal - fitted @ np.linalg.lstsq(fitted, signal, rcond=None)[0]
        ceiling = np.column_stack([each, np.ones(N_CELLS)])
        best = signal - ceiling @ np.linalg.lstsq(ceiling, signal, rcond=None)[0]
        explained, possible = 1 - rest.var(0).sum() / 2, 1 - best.var(0).sum() / 2
        assert explained > 0.9 * possible
        assert possible > 0.4


def assert_same_directions(first: Canonical, second: Canonical) -> None:
    np.testing.assert_allclose(first.correlation, second.correlation, atol=1e-10)
    assert first.weights.keys() == second.weights.keys()
    signs = None
    for name in first.weights:
        turned = np.sign((first.weights[name] * second.weights[name]).sum(0))
        signs = turned if signs is None else signs
        np.testing.assert_array_equal(turned, signs)  # all modalities turn together
        np.testing.assert_allclose(first.weights[name], second.weights[name] * signs, atol=1e-7)


def test_the_order_of_modalities_and_of_sides_changes_nothing_but_signs() -> None:
    values, _ = three_views()
    pairs = pairs_of(*EVERY)
    turned = {
        (second, first): CellPairs(found.right, found.left, found.weight)
        for (first, second), found in reversed(pairs.items())
    }
    other = {name: values[name] for name in ("protein", "rna", "atac")}
    assert_same_directions(fit_canonical(values, pairs, 3), fit_canonical(other, turned, 3))


def test_the_scale_of_weights_changes_nothing() -> None:
    values = two_views()
    rows = np.arange(N_CELLS)
    weight = np.random.default_rng(3).gamma(2.0, size=N_CELLS)
    first, second = (
        fit_canonical(values, {("rna", "protein"): CellPairs(rows, rows, weight * scale)}, 3)
        for scale in (1.0, 77.0)
    )
    assert_same_directions(first, second)


def test_a_modality_without_pairs_has_no_directions() -> None:
    values, _ = three_views()
    found = fit_canonical(values, {("rna", "atac"): same_cells()}, 3)
    assert set(found.weights) == {"rna", "atac"}
