from __future__ import annotations

import numpy as np
import pytest

from mosaicvi.factor._stability import correlations, match, together


def test_modalities_count_alike_whatever_their_size() -> None:
    rng = np.random.default_rng(0)
    weights = {"rna": 5 * rng.normal(size=(4000, 3)), "protein": 0.1 * rng.normal(size=(14, 3))}
    stacked = together(weights)
    assert stacked.shape == (4014, 3)
    assert np.square(stacked[:4000]).sum() == pytest.approx(np.square(stacked[4000:]).sum())
    assert np.isfinite(together({"rna": np.zeros((5, 2))})).all()


def test_correlations_are_numpys() -> None:
    rng = np.random.default_rng(1)
    own, other = rng.normal(size=(40, 3)), rng.normal(2.0, 3.0, size=(40, 2))
    oracle = np.abs(np.corrcoef(own.T, other.T))[:3, 3:]
    np.testing.assert_allclose(correlations(own, other), oracle)
    other[:, 1] = 7.0
    np.testing.assert_array_equal(correlations(own, other)[:, 1], 0.0)


def test_columns_are_matched_one_to_one_and_may_have_no_partner() -> None:
    own = np.random.default_rng(2).normal(size=(60, 4))
    partner, correlation = match(own, -own[:, [2, 0, 1]])
    assert partner.tolist() == [1, 2, 0, -1]
    np.testing.assert_allclose(correlation, [1, 1, 1, 0], atol=1e-12)
