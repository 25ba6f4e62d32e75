"""Batch and depth regressed out of a latent space, around each kind of cell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mosaicvi import FactorVI, MosaicVI, datasets, metrics, tl
from mosaicvi._errors import RequestError
from mosaicvi.datasets import SimulatedModality

if TYPE_CHECKING:
    import mudata

N_CELLS, N_LATENT = 900, 6


@pytest.fixture(scope="module")
def model() -> MosaicVI:
    mdata = datasets.simulate(
        N_CELLS,
        {"rna": SimulatedModality.rna(60), "protein": SimulatedModality.protein(8)},
        patterns={"rna+protein": 0.6, "rna": 0.2, "protein": 0.2},
        batches=("one", "two"),
        seed=3,
    )
    MosaicVI.setup_mudata(mdata, {"rna": "zinb", "protein": "nb_mixture"}, batch_key="batch")
    found = MosaicVI(mdata, n_hidden=16, n_latent=N_LATENT, seed=0)
    found.train(max_epochs=1, enable_progress_bar=False)
    return found


def holds(mdata: mudata.MuData, name: str) -> np.ndarray:
    """Cells that have a modality."""
    return np.asarray(mdata.obsm[name], dtype=bool).ravel()


def counts_of(mdata: mudata.MuData) -> np.ndarray:
    """Counts of RNA, 0 for cells without."""
    found = np.zeros(mdata.n_obs)
    places = mdata.obs_names.get_indexer(mdata["rna"].obs_names)
    found[places] = np.asarray(mdata["rna"].X.sum(1)).ravel()
    return found


@pytest.fixture(scope="module")
def planted(model: MosaicVI) -> dict[str, np.ndarray]:
    """Types far apart, and within them shifts by batch, by what a cell holds and by depth."""
    mdata, rng = model.adata, np.random.default_rng(0)
    types = np.arange(N_CELLS) % 4
    batch = (mdata.obs["batch"] == "two").to_numpy()
    # The last type is of one batch alone.
    types[(types == 3) & batch] = 0
    lone = holds(mdata, "rna") & ~holds(mdata, "protein")
    centres = 4.0 * np.eye(N_LATENT)[:4]
    directions = rng.normal(size=(3, 4, N_LATENT)) / 3
    kind = centres[types] + 0.2 * rng.normal(size=(N_CELLS, N_LATENT))
    latent = kind + batch[:, None] * directions[0][types] + lone[:, None] * directions[1][types]
    has_rna, depth = holds(mdata, "rna"), np.log1p(counts_of(mdata))
    depth = np.where(has_rna, (depth - depth[has_rna].mean()) / depth[has_rna].std(), 0.0)
    latent += 0.4 * depth[:, None] * directions[2][types]
    return {"latent": latent, "types": types, "batch": batch, "lone": lone, "kind": kind}


def test_effects_go_and_types_stay(model: MosaicVI, planted: dict[str, np.ndarray]) -> None:
    corrected = tl.correct_latent(model, planted["latent"], depth=True)
    types, depth = planted["types"], counts_of(model.adata)
    has_rna = holds(model.adata, "rna")
    for key in ("batch", "lone"):
        for each in range(3):
            chosen, effect = types == each, planted[key]
            left = [
                np.linalg.norm(z[chosen & effect].mean(0) - z[chosen & ~effect].mean(0))
                for z in (planted["latent"], corrected)
            ]
            # The penalty leaves a part: some levels hold few of a cluster's sixty cells.
            assert left[1] < left[0] / 2, (key, each, left)
    before, after = (
        metrics.leakage(z[has_rna], types[has_rna], depth=depth[has_rna]).depth
        for z in (planted["latent"], corrected)
    )
    assert before > 0.5
    assert after < 0.2 * before
    # Types lie where they lay, the one of a single batch, too.
    for each in range(4):
        moved = corrected[types == each].mean(0) - planted["latent"][types == each].mean(0)
        assert np.linalg.norm(moved) < 0.15
    own = planted["kind"] - np.stack([planted["kind"][types == t].mean(0) for t in range(4)])[types]
    rest = corrected - np.stack([corrected[types == t].mean(0) for t in range(4)])[types]
    assert np.corrcoef(own.ravel(), rest.ravel())[0, 1] > 0.8


def test_depth_is_left_where_it_is_not_asked_for(
    model: MosaicVI, planted: dict[str, np.ndarray]
) -> None:
    corrected = tl.correct_latent(model, planted["latent"])
    has_rna, types = holds(model.adata, "rna"), planted["types"]
    depth = counts_of(model.adata)[has_rna]
    assert metrics.leakage(corrected[has_rna], types[has_rna], depth=depth).depth > 0.5


def test_cells_without_a_place_and_repeats(model: MosaicVI, planted: dict[str, np.ndarray]) -> None:
    latent = planted["latent"].copy()
    latent[5] = np.nan
    once, again = tl.correct_latent(model, latent), tl.correct_latent(model, latent)
    assert np.array_equal(once, again, equal_nan=True)
    assert np.isnan(once[5]).all()
    assert np.isfinite(np.delete(once, 5, axis=0)).all()
    assert np.isnan(latent[5]).all()
    assert once.dtype == np.float32


def test_the_latent_of_the_model_is_the_default(model: MosaicVI) -> None:
    found = tl.correct_latent(model)
    assert np.array_equal(found, tl.correct_latent(model, model.get_latent_representation()))
    assert found.shape == (N_CELLS, N_LATENT)
    part = model.adata[:200].copy()
    assert tl.correct_latent(model, adata=part).shape == (200, N_LATENT)


def test_one_kind_of_cell_in_one_batch_is_as_it_was() -> None:
    mdata = datasets.simulate(
        80,
        {"protein": replace(SimulatedModality.protein(8), linked_to=None)},
        patterns={"protein": 1.0},
        batches=1,
        seed=1,
    )
    FactorVI.setup_mudata(mdata, {"protein": "nb_mixture"})
    model = FactorVI(mdata, n_factors=2, seed=0)
    model.train(max_epochs=1, enable_progress_bar=False)
    latent = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)
    assert np.array_equal(tl.correct_latent(model, latent), latent)


@pytest.mark.parametrize(
    ("latent", "found"),
    [(np.zeros((3, 2)), "shape"), (np.zeros(N_CELLS), "shape"), (None, "infinite values")],
)
def test_what_is_no_latent_is_refused(
    model: MosaicVI, latent: np.ndarray | None, found: str
) -> None:
    if latent is None:
        latent = np.full((N_CELLS, 2), np.inf)
    with pytest.raises(RequestError, match=f"latent.*{found}"):
        tl.correct_latent(model, latent)
