"""Scores of the factor comparison."""

from __future__ import annotations

import numpy as np
import pytest
from tests.helpers import mosaic

from mosaicvi._errors import RequestError
from mosaicvi.bm._factor_input import FactorAnswer, FactorInput
from mosaicvi.bm._factors import FactorTask, draw_counts
from mosaicvi.bm.factors import ON_REQUEST, TABLE, defaults, get, imported


def task(z: np.ndarray, activity: np.ndarray) -> FactorTask:
    public = FactorInput(mosaic(), {}, 2, 0)
    return FactorTask(public, z, activity, np.zeros(0))


def test_order_and_sign_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(50, 2))
    activity = np.array([[True, True], [True, False]])
    scores = task(z, activity).compare(FactorAnswer(-z[:, ::-1], activity[::-1]))
    assert scores["matched_correlation"] == pytest.approx(1.0)
    assert scores["activity_exact"] == 1.0


def test_a_factor_without_partner_counts_zero() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(50, 2))
    activity = np.array([[True, True], [True, False]])
    scores = task(z, activity).compare(FactorAnswer(z[:, :1], activity[:1]))
    assert scores["matched_correlation"] == pytest.approx(0.5)
    assert scores["activity_exact"] == 0.0


def test_simulated_activity_is_what_the_data_hold() -> None:
    mdata, likelihoods, z, activity, depth = draw_counts(60, 0.5, seed=0)
    assert set(likelihoods) == set(mdata.mod) == {"rna", "atac"}
    assert z.shape == (60, 6)
    assert depth.shape == (60,)
    assert activity.any(1).all()
    assert mdata.mod["rna"].n_obs == mdata.mod["atac"].n_obs == 45


def test_every_method_goes_by_its_name_and_some_run_only_where_they_are_named() -> None:
    assert all(get(name).name == name for name in TABLE)
    assert not set(ON_REQUEST) & set(defaults(held_out=True))


def test_a_package_that_is_missing_is_named_with_how_to_install_it() -> None:
    with pytest.raises(RequestError, match=r"package no_such_peer .*pip install no_such_peer"):
        imported("no_such_peer")


def test_what_cells_do_not_show_is_out_of_reach() -> None:
    for missing, low, high in ((0.0, 1.0, 1.0), (0.5, 0.7, 0.99)):
        mdata, likelihoods, z, activity, depth = draw_counts(400, missing, seed=0)
        drawn = FactorTask(FactorInput(mdata, likelihoods, 6, 0), z, activity, depth)
        assert low - 1e-9 <= drawn.describe()["reachable_correlation"] <= high + 1e-9
