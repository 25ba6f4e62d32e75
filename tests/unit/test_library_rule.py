"""Library sizes of answers, as far as a cell's other modalities tell them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from tests.fits import QUIET
from tests.helpers import make_mudata

from mosaicvi import FactorVI, MosaicVI
from mosaicvi.datasets import SimulatedModality, simulate
from mosaicvi.model._answered_batches import AnsweredBatches
from mosaicvi.model._chunks import PredictiveRequest
from mosaicvi.model._libraries import LEAST_CELLS, _told, library_pools
from mosaicvi.model._library_pool import LibraryPool

if TYPE_CHECKING:
    from pathlib import Path

    from mudata import MuData

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore:Trying to query inferred values"),
]

N_CELLS = 600
N_FEATURES = 12
LIKELIHOODS = {"rna": "nb", "protein": "nb_mixture", "atac": "poisson"}


def kinds(mdata: MuData) -> np.ndarray:
    """Kind of each cell, 0 or 1."""
    return np.array([int(str(name)[1:]) % 2 for name in mdata.obs_names])


def table(mean: np.ndarray, kept: np.ndarray, prefix: str) -> AnnData:
    """Poisson counts of some cells."""
    counts = np.random.default_rng(len(prefix) + ord(prefix[0])).poisson(mean)[kept]
    made = AnnData(sp.csr_matrix(counts.astype(np.float32)))
    made.obs_names = [f"c{cell:04d}" for cell in np.flatnonzero(kept)]
    made.var_names = [f"{prefix}{i}" for i in range(mean.shape[1])]
    return made


def two_kinds(n_cells: int = N_CELLS) -> MuData:
    """Cells of two kinds, of which one has five times the RNA; a third lacks it."""
    kind = np.arange(n_cells) % 2
    shape = np.stack([np.linspace(1, 5, N_FEATURES), np.linspace(5, 1, N_FEATURES)])[kind]
    lacks = np.arange(n_cells) % 3 == 0
    return make_mudata(
        {
            "rna": table(shape * np.where(kind == 0, 25.0, 5.0)[:, None], ~lacks, "g"),
            "protein": table(shape * 10, np.ones(n_cells, dtype=bool), "p"),
        }
    )


def fit(mdata: MuData, model_class: Any = MosaicVI) -> Any:
    """A quick fit."""
    model_class.setup_mudata(mdata, {name: LIKELIHOODS[name] for name in mdata.mod})
    small = {"n_factors": 3} if model_class is FactorVI else {"n_latent": 4, "n_hidden": 16}
    model = model_class(mdata, **small)
    model.train(15, **QUIET)
    return model


def totals(model: Any, modality: str = "rna", **asked: Any) -> np.ndarray:
    """Totals of draws from other modalities, ``(n_samples, n_cells)``."""
    return np.asarray(
        model.posterior_predictive_sample(modality, n_samples=60, **asked).sum(-1), dtype=float
    )


def typical(drawn: np.ndarray, cells: np.ndarray) -> float:
    """Median over draws and some cells."""
    return float(np.median(drawn[:, cells]))


@pytest.mark.parametrize("model_class", [MosaicVI, FactorVI])
def test_kinds_have_their_own_totals(model_class: Any) -> None:
    mdata = two_kinds()
    model = fit(mdata, model_class)
    kind, drawn = kinds(mdata), totals(model)
    lacks = ~np.isin(mdata.obs_names, mdata["rna"].obs_names)
    true = {0: 25.0 * 3 * N_FEATURES, 1: 5.0 * 3 * N_FEATURES}
    for each, expected in true.items():
        assert typical(drawn, lacks & (kind == each)) == pytest.approx(expected, rel=0.2)
    # Draws from all measured cells would be a mixture, alike for both kinds.
    model.library_pool = library_pools(model.adata_manager.data)
    mixed = totals(model)
    spread = mixed[:, lacks & (kind == 0)].mean() / mixed[:, lacks & (kind == 1)].mean()
    assert spread == pytest.approx(1.0, abs=0.2)


def test_depth_of_one_assay_tells_that_of_another() -> None:
    rng = np.random.default_rng(1)
    deep = np.exp(rng.normal(0, 0.7, N_CELLS))[:, None]
    shape = np.stack([np.linspace(1, 5, N_FEATURES), np.linspace(5, 1, N_FEATURES)])
    shape = shape[np.arange(N_CELLS) % 2]
    lacks = np.arange(N_CELLS) % 4 == 0
    everywhere = np.ones(N_CELLS, dtype=bool)
    mdata = make_mudata(
        {
            "rna": table(shape * 20 * deep, ~lacks, "g"),
            "atac": table(shape * 10 * deep, everywhere, "a"),
        }
    )
    model = fit(mdata)
    assert model.library_pool["rna"].rule.depth["atac"] > 0.5
    asked = ~np.isin(mdata.obs_names, mdata["rna"].obs_names)
    drawn = np.log(totals(model, indices=np.flatnonzero(asked)))
    known = np.log(deep[[int(name[1:]) for name in mdata.obs_names[asked]], 0])
    assert np.corrcoef(drawn.mean(0), known)[0, 1] > 0.9
    # Intervals are those of sizes whose depth is known, not of all cells.
    assert drawn.std(0).mean() < 0.5 * np.log(deep).std()


def test_batches_keep_their_own_level() -> None:
    mdata = two_kinds()
    rna = mdata["rna"]
    batch = np.array(["ab"[int(name[1:]) % 4 // 2] for name in mdata.obs_names])
    own = np.array(["ab"[int(name[1:]) % 4 // 2] for name in rna.obs_names])
    rna.X = sp.csr_matrix(rna.X.multiply(np.where(own == "b", 4.0, 1.0)[:, None]), dtype=np.float32)
    mdata.obs["batch"] = batch
    MosaicVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"}, batch_key="batch")
    model = MosaicVI(mdata, n_latent=4, n_hidden=16)
    model.train(15, **QUIET)
    kind = kinds(mdata)
    for level, answered in ((1.0, "a"), (4.0, "b")):
        drawn = totals(model, transform_batch=answered)
        for each, mean in ((0, 25.0), (1, 5.0)):
            found = typical(drawn, kind == each)
            assert found == pytest.approx(level * mean * 3 * N_FEATURES, rel=0.25)


def test_an_assay_alone_has_its_own_spread_of_totals() -> None:
    """Sizes are told by posterior means, of which single draws are wider by far."""
    kind = np.arange(N_CELLS) % 2
    shape = np.stack([np.linspace(1, 5, N_FEATURES), np.linspace(5, 1, N_FEATURES)])[kind]
    level = np.where(kind == 0, 25.0, 5.0)[:, None]
    everywhere = np.ones(N_CELLS, dtype=bool)
    mdata = make_mudata({"rna": table(shape * level, everywhere, "g")})
    MosaicVI.setup_mudata(mdata, {"rna": "nb"})
    model = MosaicVI(mdata, n_latent=4, n_hidden=16)
    model.train(1, **QUIET)
    drawn = np.log(totals(model, from_modalities=["rna"]))
    measured = np.log(np.asarray(mdata["rna"].X.sum(1)).ravel())
    assert drawn.std() == pytest.approx(measured.std(), rel=0.25)
    kinds_apart = typical(drawn, kinds(mdata) == 0) - typical(drawn, kinds(mdata) == 1)
    assert kinds_apart == pytest.approx(np.log(5), rel=0.25)


def test_a_saved_model_gives_the_same_answers(tmp_path: Path) -> None:
    mdata = two_kinds()
    model = fit(mdata)
    before = totals(model)
    model.save(tmp_path / "model")
    loaded = MosaicVI.load(tmp_path / "model", mdata)
    np.testing.assert_array_equal(totals(loaded), before)
    assert loaded.library_pool["rna"].arrays().keys() == model.library_pool["rna"].arrays().keys()


def test_cells_alone_are_answered_as_among_others() -> None:
    mdata = two_kinds()
    model = fit(mdata)
    some = np.array([411, 3, 90])
    np.testing.assert_array_equal(totals(model, indices=some), totals(model)[:, some])


def test_few_cells_tell_nothing() -> None:
    mdata = two_kinds(n_cells=LEAST_CELLS)
    model = fit(mdata)
    pool = model.library_pool["rna"]
    assert pool.rule is None
    np.testing.assert_array_equal(pool.told, 0)


def test_a_pool_without_a_rule_draws_its_sizes() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 50, 40).astype(np.float32)
    pool = LibraryPool(sizes, np.arange(40) % 2, np.zeros(40, dtype=np.float32))
    uniform = (np.arange(20, dtype=np.float32)[:, None] + 0.5) / 20
    drawn, source = pool.draw(np.array([1]), uniform, 0.0)
    np.testing.assert_allclose(drawn[:, 0], np.sort(sizes[1::2]), rtol=1e-6)
    np.testing.assert_array_equal(source, 1)
    # A batch that never measured draws of all.
    everywhere, _ = pool.draw(np.array([7]), (np.arange(40)[:, None] + 0.5) / 40, 0.0)
    np.testing.assert_allclose(everywhere[:, 0], np.sort(sizes), rtol=1e-6)


def test_what_is_told_moves_sizes_no_farther_than_those_of_measured_cells() -> None:
    told = np.linspace(-1, 1, 40).astype(np.float32)
    sizes = np.exp(told).astype(np.float32)
    pool = LibraryPool(sizes, np.zeros(40, dtype=np.int64), told)
    uniform = np.full((3, 4), 0.5, dtype=np.float32)
    drawn, _ = pool.draw(np.zeros(4, dtype=np.int64), uniform, np.array([-9.0, -0.5, 0.5, 9.0]))
    np.testing.assert_allclose(drawn[0], np.exp([-1, -0.5, 0.5, 1]), rtol=1e-5)
    empty = replace(pool, sizes=np.zeros_like(sizes))
    assert (empty.draw(np.zeros(4, dtype=np.int64), uniform, told[:4])[0] == 0).all()


def half_paired(seed: int = 3) -> MuData:
    """Cells of one batch: a third with RNA and regions, a third with RNA alone, and the rest."""
    specs = {
        "rna": SimulatedModality.rna(200, likelihood="nb"),
        "atac": SimulatedModality.rna(300, likelihood="poisson"),
    }
    patterns = {"rna+atac": 0.34, "rna": 0.33, "atac": 0.33}
    return simulate(900, specs, patterns=patterns, batches=1, seed=seed)


def test_sizes_of_cells_that_other_modalities_tell_nothing_of() -> None:
    """The rule is of places that other modalities give: at RNA's own it says anything."""
    mdata = half_paired()
    MosaicVI.setup_mudata(mdata, {"rna": "nb", "atac": "poisson"})
    model = MosaicVI(mdata)
    model.train(15, **QUIET)
    both = np.isin(mdata["rna"].obs_names, mdata["atac"].obs_names)
    pool = model.library_pool["rna"]
    assert len(pool.sizes) == both.sum() >= LEAST_CELLS
    alone = np.flatnonzero(np.isin(mdata.obs_names, mdata["rna"].obs_names[~both]))
    observed = np.log(np.asarray(mdata["rna"].X.sum(1)).ravel()[both])
    for evidence in (None, ["rna"]):
        drawn = np.log(totals(model, from_modalities=evidence, indices=alone))
        assert drawn.std() == pytest.approx(observed.std(), rel=0.25)
        assert drawn.mean() == pytest.approx(observed.mean(), abs=0.1)


def test_own_counts_are_no_evidence_of_a_size() -> None:
    """Of a cell with both, what regions say of its depth is the same beside its own RNA."""
    mdata = half_paired()
    MosaicVI.setup_mudata(mdata, {"rna": "nb", "atac": "poisson"})
    model = MosaicVI(mdata, n_latent=4, n_hidden=16)
    model.train(3, **QUIET)
    assert model.library_pool["rna"].rule is not None
    has = (np.isin(mdata.obs_names, mdata[name].obs_names) for name in ("rna", "atac"))
    cells = np.flatnonzero(np.logical_and(*has))
    sizes = []
    sampler = model._sampler(None, None)
    for evidence in (("atac",), ("rna", "atac")):
        request = PredictiveRequest("rna", evidence, n_samples=20)
        (chunk,) = sampler.latent(cells, request.from_modalities, n_cells=len(cells))
        draws = (sampler.draw_latent(chunk, 20),) * 2
        answered = AnsweredBatches(sampler.module, sampler.data, request, sampler.seed)
        sizes.append(sampler._libraries(request, chunk, draws, answered)[0].numpy())
    np.testing.assert_array_equal(*sizes)


def test_batches_of_few_pairs_keep_all_their_sizes() -> None:
    sizes = np.exp(np.random.default_rng(0).normal(5, 1, 300)).astype(np.float32)
    batches = np.repeat([0, 1], [200, 100])
    placed = np.concatenate([np.arange(200) < 150, np.arange(100) < 20])
    pool = LibraryPool(sizes, batches, np.zeros_like(sizes))
    known = np.where(placed, np.linspace(-1, 1, 300), 50.0)[:, None]
    told = _told(pool, known, {}, placed, placed, at_draws=False)
    np.testing.assert_array_equal(told.sizes, np.concatenate([sizes[:150], sizes[200:]]))
    few = told.batches == 1
    mean = told.told[few][:20].mean()
    np.testing.assert_allclose(told.told[few][20:], mean, rtol=1e-5)
