"""Protein imputed in one call, and the background of proteins."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anndata
import lightning.pytorch as pl
import numpy as np
import pytest
import scipy.sparse as sp
from tests.disk import KINDS, on_disk
from tests.helpers import make_mudata

from mosaicvi import MosaicVI, datasets, tl
from mosaicvi._errors import DataError, RequestError
from mosaicvi.datasets import SimulatedModality
from mosaicvi.tl._impute_protein import _batches
from mosaicvi.tl._reference import residual_variance

if TYPE_CHECKING:
    from pathlib import Path

    import anndata as ad
    import mudata

TRAINING = {"max_epochs": 3, "enable_progress_bar": False}


@pytest.fixture(scope="module")
def reference() -> mudata.MuData:
    return datasets.simulate(
        240,
        {"rna": SimulatedModality.rna(50), "protein": SimulatedModality.protein()},
        patterns={"rna+protein": 0.8, "rna": 0.1, "protein": 0.1},
        batches=("one", "two"),
        seed=3,
    )


@pytest.fixture(scope="module")
def rna() -> ad.AnnData:
    """Cells of another sample: two genes more, in another order, some names as in the reference."""
    query = datasets.simulate(
        60, {"rna": SimulatedModality.rna(52)}, patterns={"rna": 1.0}, batches=1, seed=4
    ).mod["rna"]
    query = query[::-1, ::-1].copy()
    query.obs["note"] = "mine"
    return query


@pytest.fixture(params=[False, True], ids=["reference only", "with query"])
def train_on_query(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_protein_in_one_call(
    rna: ad.AnnData,
    reference: mudata.MuData,
    train_on_query: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    query, known = rna.copy(), reference.copy()
    with caplog.at_level(logging.INFO, logger="mosaicvi"):
        protein, model = tl.impute_protein(
            query,
            known,
            batch_key="batch",
            train_on_query=train_on_query,
            n_samples=10,
            train_kwargs=TRAINING,
            return_model=True,
        )
    assert protein.obs_names.equals(rna.obs_names)
    assert protein.var_names.equals(reference.mod["protein"].var_names)
    assert np.isfinite(protein.X).all()
    assert {"log1p_mean", "sd", "q05", "q95", "denoised"} <= set(protein.layers)
    assert set(protein.obs["note"]) == {"mine"}
    assert protein.obs["evidence"].all()
    assert not protein.obs["measured"].any()
    assert np.isfinite(protein.obsm["X_mosaicvi"]).all()
    assert protein.uns["mosaicvi"]["n_shared_genes"] == 50
    assert "50 genes are shared" in caplog.text
    expected = reference.n_obs + (rna.n_obs if train_on_query else 0)
    assert model.adata.n_obs == expected
    # the user's objects are as they were
    assert (query.X != rna.X).nnz == 0
    assert query.obs.equals(rna.obs)
    assert set(query.uns) == set(rna.uns)
    assert set(known.uns) == set(reference.uns)


def test_order_of_cells_and_genes_changes_nothing(
    rna: ad.AnnData, reference: mudata.MuData
) -> None:
    options = {"n_samples": 5, "train_kwargs": TRAINING}
    there = tl.impute_protein(rna, reference, **options)
    back = tl.impute_protein(rna[::-1, ::-1], reference, **options)
    np.testing.assert_allclose(back[there.obs_names].X, there.X, rtol=1e-4, atol=1e-4)


def test_variable_genes_are_chosen_from_many(rna: ad.AnnData, reference: mudata.MuData) -> None:
    protein = tl.impute_protein(rna, reference, n_top_genes=20, n_samples=2, train_kwargs=TRAINING)
    assert protein.uns["mosaicvi"]["n_genes"] == 20
    assert protein.uns["mosaicvi"]["n_shared_genes"] == 50


@pytest.mark.parametrize("of_query", [None, "a"])
def test_the_query_is_a_batch_of_its_own_whatever_others_are_called(
    rna: ad.AnnData, reference: mudata.MuData, of_query: str | None
) -> None:
    query, known = rna.copy(), reference.copy()
    own = "query" if of_query is None else f"query:{of_query}"
    names = known.obs["batch"].astype(str).replace({"one": own}).to_numpy()
    known.obs["sample"] = names
    if of_query is not None:
        query.obs["sample"] = of_query
    asked, of_reference = _batches(query, known, {"rna": "rna", "protein": "protein"}, "sample")
    assert set(of_reference) == {own, "two"}
    assert asked.unique().tolist() == [f"new {own}"]
    known.obs["sample"] = "two"
    asked, _ = _batches(query, known, {"rna": "rna", "protein": "protein"}, "sample")
    assert asked.unique().tolist() == [own]


def test_what_cannot_be_joined_is_refused(rna: ad.AnnData, reference: mudata.MuData) -> None:
    other = rna.copy()
    other.var_names = [f"ENSG{number}" for number in range(other.n_vars)]
    with pytest.raises(DataError, match="no gene is shared"):
        tl.impute_protein(other, reference)
    with pytest.raises(RequestError, match="adt"):
        tl.impute_protein(rna, reference, protein_modality="adt")
    with pytest.raises(DataError, match="MuData"):
        tl.impute_protein(reference, reference)
    logged = rna.copy()
    logged.X = logged.X.log1p()
    with pytest.raises(DataError, match="log"):
        tl.impute_protein(logged, reference)


def test_background_is_counts_and_only_of_mixtures(reference: mudata.MuData) -> None:
    mdata = reference.copy()
    MosaicVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    model = MosaicVI(mdata, n_latent=4)
    model.train(**TRAINING)
    background = tl.protein_background(model, indices=[0, 5, 7], n_samples=3)
    assert background.index.tolist() == mdata.obs_names[[0, 5, 7]].tolist()
    assert (background.to_numpy() > 0).all()
    with pytest.raises(RequestError, match="no background"):
        tl.protein_background(model, "rna")


def test_variance_of_residuals_is_that_of_its_formula() -> None:
    counts = np.random.default_rng(0).poisson([[0.2, 3.0, 10.0, 0.0]], size=(50, 4)).astype(float)
    mean = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
    with np.errstate(invalid="ignore"):
        residual = (counts - mean) / np.sqrt(mean + mean**2 / 100)
    expected = np.nan_to_num(residual).clip(-np.sqrt(50), np.sqrt(50)).var(0)
    np.testing.assert_allclose(residual_variance(sp.csc_matrix(counts)), expected, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_values_on_disk_are_read(
    kind: str, rna: ad.AnnData, reference: mudata.MuData, tmp_path: Path
) -> None:
    if kind == "dask":
        pytest.importorskip("dask")
    (tmp_path / "query").mkdir()
    query = on_disk(make_mudata({"rna": rna.copy()}), tmp_path / "query", kind).mod["rna"]
    known = on_disk(reference.copy(), tmp_path, kind)
    options = {"batch_key": "batch", "n_samples": 3, "train_kwargs": TRAINING}
    expected = tl.impute_protein(rna, reference, **options)
    for train_on_query in (False, True):
        found = tl.impute_protein(query, known, train_on_query=train_on_query, **options)
        assert found.obs_names.equals(expected.obs_names)
        assert set(found.obs["note"]) == {"mine"}
        if not train_on_query:
            np.testing.assert_array_equal(found.X, expected.X)


def test_a_view_of_a_file_is_read(
    rna: ad.AnnData, reference: mudata.MuData, tmp_path: Path
) -> None:
    rna.write_h5ad(tmp_path / "rna.h5ad")
    backed = anndata.read_h5ad(tmp_path / "rna.h5ad", backed="r")
    options = {"n_samples": 3, "train_kwargs": TRAINING}
    expected = tl.impute_protein(rna[:20], reference, **options)
    np.testing.assert_array_equal(
        tl.impute_protein(backed[:20], reference, **options).X, expected.X
    )
    backed.file.close()


def test_quantiles_are_looked_at_before_anything_is_trained(
    rna: ad.AnnData, reference: mudata.MuData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MosaicVI, "train", None)
    with pytest.raises(RequestError, match="'quantiles'"):
        tl.impute_protein(rna, reference, quantiles=None)


@pytest.mark.parametrize(
    ("key", "value"),
    [("scale", "log"), ("n_samples", 0), ("transform_batch", "three"), ("n_top_genes", 0)],
)
def test_what_is_asked_for_is_looked_at_before_anything_is_trained(
    rna: ad.AnnData,
    reference: mudata.MuData,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    value: object,
) -> None:
    monkeypatch.setattr(MosaicVI, "train", None)
    with pytest.raises(RequestError, match=f"'{key}'"):
        tl.impute_protein(rna, reference, batch_key="batch", **{key: value})


class InterruptStep(pl.Callback):
    """Ctrl-C in a step of an epoch, from 0."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:training was interrupted before its first epoch")
@pytest.mark.parametrize("epoch", [0, 1])
def test_an_interrupted_fit_gives_no_answer(
    epoch: int, rna: ad.AnnData, reference: mudata.MuData
) -> None:
    """It would not say that half a fit, or none, is behind it."""
    with pytest.raises(KeyboardInterrupt):
        tl.impute_protein(
            rna,
            reference,
            n_samples=5,
            train_kwargs={**TRAINING, "callbacks": InterruptStep(epoch)},
        )


def test_nothing_is_kept_of_a_model_that_is_not_returned(
    rna: ad.AnnData, reference: mudata.MuData
) -> None:
    """scvi-tools keeps all data that are set up, which nobody could ask it to forget."""
    before = set(MosaicVI._setup_adata_manager_store)
    tl.impute_protein(rna, reference, n_samples=5, train_kwargs=TRAINING)
    assert set(MosaicVI._setup_adata_manager_store) == before
