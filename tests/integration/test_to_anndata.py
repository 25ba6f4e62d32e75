"""One AnnData of all cells: values, masks, names, scanpy, files."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from tests.helpers import make_mudata

import mosaicvi
from mosaicvi import MosaicVI, datasets, tl
from mosaicvi._errors import MosaicviWarning, RequestError
from mosaicvi.datasets import SimulatedModality

if TYPE_CHECKING:
    from pathlib import Path

    import mudata


@pytest.fixture(scope="module")
def mdata() -> mudata.MuData:
    """300 cells, a third each with RNA, protein and both."""
    return datasets.simulate(
        300,
        {"rna": SimulatedModality.rna(60), "protein": SimulatedModality.protein()},
        patterns={"rna+protein": 1 / 3, "rna": 1 / 3, "protein": 1 / 3},
        seed=1,
    )


@pytest.fixture(scope="module")
def model(mdata: mudata.MuData) -> MosaicVI:
    """Barely trained: what is tested here does not depend on how well."""
    MosaicVI.setup_mudata(mdata, {"rna": "zinb", "protein": "nb_mixture"}, batch_key="batch")
    fitted = MosaicVI(mdata, n_latent=5)
    fitted.train(max_epochs=3, enable_progress_bar=False)
    return fitted


@pytest.fixture(scope="module")
def adata(model: MosaicVI) -> ad.AnnData:
    return tl.to_anndata(model, n_samples=5)


def _columns(adata: ad.AnnData, modality: str) -> np.ndarray:
    return (adata.var["modality"] == modality).to_numpy()


def test_names_and_shapes(adata: ad.AnnData, mdata: mudata.MuData) -> None:
    assert adata.n_obs == mdata.n_obs
    assert adata.obs_names.equals(mdata.obs_names)
    assert adata.n_vars == sum(part.n_vars for part in mdata.mod.values())
    assert adata.var_names.is_unique
    assert "protein:CD3" in adata.var_names
    assert adata.var.loc["protein:CD3", "feature"] == "CD3"
    assert adata.X.dtype == np.float32
    assert adata.obsm["X_mosaicvi"].shape == (mdata.n_obs, 5)
    for name, part in mdata.mod.items():
        present = adata.obs_names.isin(part.obs_names)
        np.testing.assert_array_equal(adata.obs[f"measured:{name}"], present)


@pytest.mark.parametrize("name", ["rna", "protein"])
def test_measured_where_measured(adata: ad.AnnData, mdata: mudata.MuData, name: str) -> None:
    part = mdata.mod[name].copy()
    if name == "rna":
        sc.pp.normalize_total(part)  # to the median depth of the cells that have any counts
    expected = np.log1p(part.X.toarray())
    block = adata[part.obs_names, _columns(adata, name)]
    np.testing.assert_allclose(block.X, expected, rtol=1e-4, atol=1e-5)
    assert block.layers["measured"].all()
    counts = mdata.mod[name].X.toarray()
    np.testing.assert_array_equal(block.layers["counts"].toarray(), counts)


@pytest.mark.parametrize("name", ["rna", "protein"])
def test_imputed_elsewhere(
    adata: ad.AnnData, mdata: mudata.MuData, model: MosaicVI, name: str
) -> None:
    absent = ~adata.obs_names.isin(mdata.mod[name].obs_names)
    block = adata[absent, _columns(adata, name)]
    assert np.isfinite(block.X).all()
    assert (block.X >= 0).all()
    np.testing.assert_array_equal(block.X, block.layers["imputed"])
    assert not block.layers["measured"].any()
    assert block.layers["counts"].nnz == 0
    other = "protein" if name == "rna" else "rna"
    answer = model.impute(
        name,
        [other],
        indices=np.flatnonzero(absent),
        n_samples=5,
        scale="log1p",
        library_size=adata.uns["mosaicvi"]["target_sum"].get(name),
    )
    np.testing.assert_array_equal(block.X, answer.X)
    np.testing.assert_array_equal(block.var["imputability"], answer.var["imputability"])


def test_imputed_layer_covers_every_cell(adata: ad.AnnData, model: MosaicVI) -> None:
    assert np.isfinite(adata.layers["imputed"]).all()
    fast = tl.to_anndata(model, n_samples=5, denoise=False)
    np.testing.assert_array_equal(fast.X, adata.X)
    assert np.isnan(fast.layers["imputed"][fast.layers["measured"]]).all()


def test_one_modality_and_its_errors(model: MosaicVI, mdata: mudata.MuData) -> None:
    only = tl.to_anndata(model, modalities=["protein"], n_samples=2)
    assert set(only.var["modality"]) == {"protein"}
    assert only.n_obs == mdata.n_obs
    with pytest.raises(RequestError, match="'atac'"):
        tl.to_anndata(model, modalities=["atac"])


def test_cells_without_evidence_are_nan_and_told(model: MosaicVI, mdata: mudata.MuData) -> None:
    with pytest.warns(MosaicviWarning, match="none of the evidence"):
        adata = tl.to_anndata(model, from_modalities=["rna"], n_samples=2)
    without = ~adata.obs_names.isin(mdata.mod["rna"].obs_names)
    assert np.isnan(adata[without, _columns(adata, "rna")].X).all()
    assert np.isfinite(adata[:, _columns(adata, "protein")].X).all()


def test_scanpy_takes_it(adata: ad.AnnData) -> None:
    cells = adata.copy()
    sc.pp.neighbors(cells, use_rep="X_mosaicvi")
    sc.tl.umap(cells, maxiter=10)
    sc.tl.leiden(cells, flavor="igraph", n_iterations=2, directed=False)
    sc.tl.rank_genes_groups(cells, "cell_type")
    axes = sc.pl.umap(cells, color=["protein:CD3", "measured:protein"], show=False)
    assert len(axes) == 2
    assert axes[0].get_title() == "protein:CD3"


def test_it_survives_a_file(adata: ad.AnnData, tmp_path: Path) -> None:
    adata.write_h5ad(tmp_path / "cells.h5ad")
    read = ad.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(read.X, adata.X)
    np.testing.assert_array_equal(read.obsm["X_mosaicvi"], adata.obsm["X_mosaicvi"])
    for layer in ("imputed", "measured"):
        np.testing.assert_array_equal(read.layers[layer], adata.layers[layer])
    assert (read.layers["counts"] != adata.layers["counts"]).nnz == 0
    pd.testing.assert_frame_equal(read.obs, adata.obs)
    pd.testing.assert_frame_equal(read.var, adata.var)
    assert read.uns["mosaicvi"]["version"] == mosaicvi.__version__


def test_gaps_of_a_panel_and_of_continuous_values_are_imputed() -> None:
    names = SimulatedModality.protein().names
    mdata = datasets.simulate(
        240,
        {
            "rna": SimulatedModality.rna(40),
            "protein": SimulatedModality.protein(),
            "score": SimulatedModality.normal(6),
        },
        patterns={"rna+protein+score": 1.0},
        batches=("a", "b"),
        panels={"protein": {"b": names[:10]}},
        seed=2,
    )
    mdata.mod["score"].X[3, 2] = np.nan
    MosaicVI.setup_mudata(
        mdata,
        {"rna": "nb", "protein": "nb_mixture", "score": "normal"},
        batch_key="batch",
        panel_key={"protein": "panel"},
    )
    model = MosaicVI(mdata, n_latent=4)
    model.train(max_epochs=1, enable_progress_bar=False)
    adata = tl.to_anndata(model, n_samples=3, denoise=False)
    lost = [f"protein:{name}" for name in names[10:]]
    gap = adata[adata.obs["batch"] == "b", lost]
    assert not gap.layers["measured"].any()
    assert np.isfinite(gap.X).all()
    np.testing.assert_array_equal(gap.X, gap.layers["imputed"])
    assert adata[adata.obs["batch"] == "a", lost].layers["measured"].all()
    score = adata[:, _columns(adata, "score")]
    assert not score.layers["measured"][3, 2]
    assert score.layers["measured"].sum() == score.n_obs * 6 - 1
    assert np.isfinite(score.X).all()
    known = score.layers["measured"]
    np.testing.assert_array_equal(score.X[known], mdata.mod["score"].X[known])


def test_columns_of_cells_are_coalesced_and_storable(tmp_path: Path) -> None:
    from mosaicvi.tl._obs import storable

    mixed = pd.Series(["a", 1, None], dtype=object)
    assert storable(mixed).cat.categories.tolist() == ["1", "a"]
    assert storable(pd.Series([True, None], dtype=object)).dtype == "boolean"
    assert storable(pd.Series([True, False], dtype=object)).dtype == bool
    assert storable(pd.Series([1.5, None], dtype=object)).dtype == np.float64
    assert storable(pd.Series([1, 2], dtype=object)).dtype == np.int64


def test_categories_of_a_modality_keep_their_order() -> None:
    from mosaicvi.tl._obs import joined, storable

    cells = pd.Index(list("abcd"))
    stage = pd.CategoricalDtype(["late", "early", "never"], ordered=True)
    first = pd.Series(["early", "late"], index=["a", "b"], dtype=stage)
    second = pd.Series(["late"], index=["c"], dtype=stage)
    for columns in ([first], [first, second]):
        found = storable(joined(columns, cells))
        assert found.cat.categories.tolist() == ["late", "early"]
        assert found.cat.ordered
        assert found.isna().sum() == 4 - sum(map(len, columns))
    numbered = pd.Series([10, 9], index=["c", "d"], dtype="category")
    assert storable(joined([numbered], cells)).cat.categories.tolist() == ["9", "10"]
    both = joined([first, second.astype(str).astype("category")], cells)
    assert both.cat.categories.tolist() == ["late", "early", "never"]
    assert not both.cat.ordered
    # what is no category in one, or of several types, is left as values
    assert joined([first, second.astype(str)], cells).dtype == object
    assert joined([first, numbered], cells).dtype == object


def test_dates_are_storable(tmp_path: Path) -> None:
    from mosaicvi.tl._obs import storable

    days = pd.to_datetime(["2024-05-01 10:30", None, "2023-01-02 00:00"])
    spans = pd.to_timedelta([1.5, None, 36], unit="h")
    columns = {
        "day": pd.Series(days),
        "aware": pd.Series(days.tz_localize("UTC")),
        "category": pd.Series(days).astype("category"),
        "object": pd.Series(days).astype(object),
        "date": pd.Series([date(2024, 5, 1), None, date(2023, 1, 2)], dtype=object),
        "span": pd.Series(spans),
        "month": pd.Series(days.to_period("M")),
    }
    table = pd.DataFrame({key: storable(column) for key, column in columns.items()})
    adata = ad.AnnData(np.zeros((3, 1), dtype=np.float32), obs=table.set_axis(list("abc")))
    adata.write_h5ad(tmp_path / "dates.h5ad")
    read = ad.read_h5ad(tmp_path / "dates.h5ad").obs
    assert read.isna().sum().tolist() == [1] * len(columns)
    for key in ("day", "category", "object"):
        assert read[key].dropna().tolist() == ["2024-05-01T10:30:00", "2023-01-02T00:00:00"]
    assert read["aware"].iloc[0] == "2024-05-01T10:30:00+00:00"
    assert read["date"].dropna().tolist() == ["2024-05-01", "2023-01-02"]
    assert pd.to_timedelta(read["span"].dropna().astype(str)).tolist() == spans.dropna().tolist()
    assert read["month"].iloc[0] == "2024-05"


def test_a_query_without_rna_is_on_the_scale_of_the_model(
    model: MosaicVI, mdata: mudata.MuData, adata: ad.AnnData
) -> None:
    sizes = np.asarray(mdata.mod["rna"].X.sum(axis=1)).ravel()
    query = make_mudata({"protein": mdata.mod["protein"].copy()})
    query.obs["batch"] = mdata.obs.loc[query.obs_names, "batch"]
    found = tl.to_anndata(model, adata=query, n_samples=5)
    assert found.uns["mosaicvi"]["target_sum"] == {"rna": pytest.approx(np.median(sizes))}
    same = adata[adata.obs["measured:protein"] & ~adata.obs["measured:rna"]]
    # the same cells from the same evidence, but for draws
    values = found[same.obs_names].X[:, _columns(found, "rna")]
    np.testing.assert_allclose(values.mean(), same.X[:, _columns(adata, "rna")].mean(), rtol=0.05)


def test_genes_of_a_panel_are_on_the_scale_of_other_batches() -> None:
    """Counts of half of the genes, scaled to the sum of all, were nearly twice too high."""
    mdata = datasets.simulate(
        300,
        {"rna": SimulatedModality.rna(60, likelihood="nb"), "protein": SimulatedModality.protein()},
        patterns={"rna+protein": 1.0},
        batches=("a", "b"),
        seed=2,
    )
    rna, panel = mdata.mod["rna"], (mdata.obs["batch"] == "b").to_numpy()
    counts = rna.X.toarray()
    share = counts[:, :30].sum(axis=1) / counts.sum(axis=1)
    rna.varm["panel"] = pd.DataFrame({"a": True, "b": np.arange(60) < 30}, index=rna.var_names)
    counts[np.ix_(panel, np.arange(60) >= 30)] = 0
    rna.X = sp.csr_matrix(counts)
    MosaicVI.setup_mudata(
        mdata,
        {"rna": "nb", "protein": "nb_mixture"},
        batch_key="batch",
        panel_key={"rna": "panel"},
    )
    model = MosaicVI(mdata, n_latent=4)
    model.train(max_epochs=5, enable_progress_bar=False)
    adata = tl.to_anndata(model, n_samples=10)
    target = adata.uns["mosaicvi"]["target_sum"]["rna"]
    scaled = np.expm1(adata[:, _columns(adata, "rna")].X)[:, :30].sum(axis=1) / target
    np.testing.assert_allclose(scaled[~panel], share[~panel], rtol=1e-4)
    assert share[panel].mean() < 0.8
    assert scaled[panel].mean() == pytest.approx(share[panel].mean(), abs=0.1)
