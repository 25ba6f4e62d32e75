"""FactorVI finds the factors that simulated data were made of."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from tests.fits import QUIET
from tests.helpers import make_mudata

from mosaicvi import FactorVI

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

ACTIVE = np.array([[1, 1], [1, 0], [0, 1]], dtype=bool)
"""Factors x modalities: one shared, one private to each."""


def matched(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Absolute correlations of matched factors, and the found factor of each true one."""
    table = np.abs(np.corrcoef(found.T, truth.T)[: found.shape[1], found.shape[1] :])
    rows, columns = linear_sum_assignment(-table)
    order = rows[np.argsort(columns)]
    return table[order, np.arange(truth.shape[1])], order


def draw(kind: str, n_cells: int, seed: int, missing: float = 0.0):
    """Two modalities, sparse weights, written in plain numpy; library sizes vary threefold."""
    from anndata import AnnData

    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_cells, 3))
    depth = np.exp(rng.normal(0, 0.6, n_cells))
    parts, names = {}, np.array([f"cell{i:04d}" for i in range(n_cells)])
    for column, name in enumerate(("one", "two")):
        n_features = (150, 120)[column]
        w = rng.normal(size=(n_features, 3)) * (rng.random((n_features, 3)) < 0.4)
        w = w * ACTIVE[:, column]
        if kind == "normal":
            values = z @ w.T + rng.normal(size=(n_cells, n_features))
        else:
            logits = 0.7 * z @ w.T + rng.normal(0, 1, n_features)
            share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            rate = 800 * depth[:, None] * share
            values = rng.poisson(rate * rng.gamma(5.0, 0.2, rate.shape))
        keep = np.ones(n_cells, bool)
        if column == 1 and missing:
            keep[: int(missing * n_cells)] = False
        adata = AnnData(values[keep].astype(np.float32))
        adata.obs_names = names[keep]
        adata.var_names = [f"{name}{j}" for j in range(n_features)]
        parts[name] = adata
    mdata = make_mudata(parts)
    rows = np.array([int(str(cell)[4:]) for cell in mdata.obs_names])
    return mdata, z[rows], depth[rows]


CASES = [("normal", 0.0), ("nb", 0.0), ("nb", 0.4), ("normal", 0.4)]


@cache
def fitted(kind: str, missing: float):
    """Model of 500 cells with six factors to start with, and the truth of the data."""
    mdata, z, depth = draw(kind, 500, seed=1, missing=missing)
    FactorVI.setup_mudata(mdata, {"one": kind, "two": kind})
    model = FactorVI(mdata, n_factors=6)
    model.train(60, **QUIET)
    return model, mdata, z, depth


@pytest.mark.parametrize(("kind", "missing"), CASES)
def test_factors_activity_and_depth(kind: str, missing: float) -> None:
    model, mdata, z, depth = fitted(kind, missing)
    found = model.get_latent_representation()
    has_both = np.isin(mdata.obs_names, mdata.mod["two"].obs_names)
    correlation, order = matched(found[has_both], z[has_both])
    assert correlation.mean() > 0.95, correlation
    activity = model.get_activity().to_numpy()
    np.testing.assert_array_equal(activity[order], ACTIVE)
    of_depth = [abs(np.corrcoef(f, np.log(depth))[0, 1]) for f in found.T]
    assert max(of_depth) < 0.2


@pytest.mark.parametrize(("kind", "missing"), CASES)
def test_surplus_factors_are_removed(kind: str, missing: float) -> None:
    assert len(fitted(kind, missing)[0].factors) == len(ACTIVE)


def test_features_that_take_no_part_are_told_where_there_are_many_counts() -> None:
    """Weights of a composition may all move by one number; they are sparse at one place only."""
    from anndata import AnnData

    rng = np.random.default_rng(0)
    z, parts = rng.normal(size=(500, 3)), {}
    truth = rng.normal(size=(60, 3)) * (rng.random((60, 3)) < 0.3)
    share = np.exp(0.5 * z @ truth.T + rng.normal(size=60))
    share /= share.sum(1, keepdims=True)
    depth = np.exp(rng.normal(np.log(1200), 0.3, 500))
    counts = rng.poisson(share * depth[:, None])
    values = z @ rng.normal(size=(60, 3)).T + rng.normal(size=(500, 60))
    for name, table in (("counts", counts), ("values", values)):
        parts[name] = AnnData(table.astype(np.float32))
        parts[name].obs_names = [f"cell{i:04d}" for i in range(500)]
        parts[name].var_names = [f"{name}{j}" for j in range(60)]
    mdata = make_mudata(parts)
    FactorVI.setup_mudata(mdata, {"counts": "poisson", "values": "normal"})
    model = FactorVI(mdata, n_factors=6)
    model.train(**QUIET)
    found, order = matched(model.get_latent_representation(), z)
    assert (found > 0.98).all(), found
    tidy = model.get_weights("counts", tidy=True)
    weight, inclusion = (
        tidy[key].to_numpy().reshape(60, -1)[:, order] for key in ("weight", "inclusion")
    )
    assert (np.abs(np.median(weight, axis=0)) < 0.05).all(), np.median(weight, axis=0)
    assert ((inclusion > 0.5).mean(0) < 0.7).all(), (inclusion > 0.5).mean(0)
    assert (inclusion[np.abs(truth) > 0.3] > 0.5).all()
