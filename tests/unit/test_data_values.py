"""Where values are, and whether they are counts."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from tests.helpers import cell_names, counts_modality, make_mudata, mosaic

from mosaicvi._errors import DataError, MosaicviWarning
from mosaicvi.data import ModalitySpec, build_manager
from mosaicvi.data._logged import looks_logged
from mosaicvi.data._values import row_totals, scan

FORMATS = {
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "dense": np.asarray,
    "fortran": np.asfortranarray,
}


def draw(seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    depth = generator.lognormal(size=(150, 1))
    return generator.poisson(depth * generator.gamma(0.5, 2, size=(150, 40))).astype(np.float64)


@pytest.mark.parametrize("kind", FORMATS)
def test_scan_counts_each_kind_of_value(kind: str) -> None:
    values = np.array([[0, 1, -2, 0.5], [np.nan, np.inf, 3, -1], [0, 0, 0, 0]])
    found = scan(FORMATS[kind](values))
    assert (found.nan, found.infinite, found.negative, found.fractional) == (1, 1, 2, 1)
    assert not found.is_counts


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.uint16, bool])
def test_row_totals(kind: str, dtype: type) -> None:
    values = draw()
    values[[0, 7]] = 0
    values = values.astype(dtype)
    assert scan(FORMATS[kind](values)).is_counts
    np.testing.assert_allclose(row_totals(FORMATS[kind](values)), values.astype(float).sum(axis=1))


@pytest.mark.parametrize("at_a_time", [1, 7, 100])
def test_row_totals_of_pieces_are_those_of_the_whole(
    at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = sp.random(60, 30, 0.1, format="csr", dtype=np.float32, random_state=0)
    whole = row_totals(counts)
    monkeypatch.setattr("mosaicvi.data._rows.TOTAL_VALUES", at_a_time)
    np.testing.assert_array_equal(row_totals(counts), whole)
    assert row_totals(sp.csr_matrix((0, 30))).shape == (0,)


def test_logarithms_are_told_from_fractions() -> None:
    counts = draw()
    normalised = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e4
    for logged in (np.log1p(normalised), np.log1p(counts), np.log2(counts + 1)):
        assert looks_logged(logged)
        assert looks_logged(sp.csr_matrix(logged))
    corrected = counts - np.random.default_rng(1).uniform(0, 0.3, counts.shape) * (counts > 0)
    corrected[0, 0] = 40.3
    for fractional in (counts * 0.5, counts * 0.3, counts + 0.5, normalised, corrected):
        assert not looks_logged(fractional)


def test_a_subset_of_genes_still_looks_logged() -> None:
    counts = draw()
    logged = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e4)
    assert looks_logged(logged[:, :7].astype(np.float32))


def test_auto_takes_x_where_it_holds_counts() -> None:
    mdata = mosaic()
    mdata.mod["rna"].layers["counts"] = mdata.mod["rna"].X * 2
    data = build_manager(mdata, {"rna": "nb", "protein": "nb_mixture"}).data
    assert np.array_equal(data.modalities["rna"].values.toarray(), mdata.mod["rna"].X.toarray())


def test_auto_falls_back_on_the_counts_layer() -> None:
    mdata = mosaic()
    counts = mdata.mod["rna"].X.copy()
    mdata.mod["rna"].layers["counts"] = counts
    mdata.mod["rna"].X = counts.log1p()
    data = build_manager(mdata, {"rna": "nb", "protein": "nb_mixture"}).data
    assert np.array_equal(data.modalities["rna"].values.toarray(), counts.toarray())


def test_auto_reads_the_counts_layer_where_there_is_no_x() -> None:
    mdata = mosaic()
    counts = mdata.mod["rna"].X.copy()
    mdata.mod["rna"].layers["counts"] = counts
    mdata.mod["rna"].X = None
    data = build_manager(mdata, {"rna": "nb", "protein": "nb_mixture"}).data
    assert np.array_equal(data.modalities["rna"].values.toarray(), counts.toarray())


def test_a_layer_is_named_for_one_modality_or_for_all() -> None:
    mdata = mosaic()
    for adata in mdata.mod.values():
        adata.layers["umi"] = adata.X * 3
    one = build_manager(
        mdata, {"rna": ModalitySpec("nb", layer="umi"), "protein": "nb_mixture"}
    ).data
    every = build_manager(mdata, {"rna": "nb", "protein": "nb_mixture"}, layer="umi").data
    assert one.modalities["rna"].values.sum() == 3 * mdata.mod["rna"].X.sum()
    assert one.modalities["protein"].values.sum() == mdata.mod["protein"].X.sum()
    assert every.modalities["protein"].values.sum() == 3 * mdata.mod["protein"].X.sum()


def test_missing_layer_lists_the_known_ones() -> None:
    mdata = mosaic()
    mdata.mod["rna"].layers["umi"] = mdata.mod["rna"].X.copy()
    with pytest.raises(DataError, match="umi") as caught:
        build_manager(mdata, {"rna": ModalitySpec("nb", layer="umis")})
    assert "None" not in str(caught.value).split("None for X")[0]


@pytest.mark.parametrize("kind", ["csr", "csc", "csr_array", "dense"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.uint8])
def test_every_format_reads_the_same(kind: str, dtype: type) -> None:
    expected = build_manager(mosaic(), {"rna": "zinb", "protein": "nb_mixture"}).data
    mdata = mosaic(kind=kind, dtype=dtype)
    data = build_manager(mdata, {"rna": "zinb", "protein": "nb_mixture"}).data
    for name, part in data.modalities.items():
        assert isinstance(part.values, sp.csr_matrix)
        assert part.values.dtype.kind == "f"
        assert part.values.has_canonical_format
        assert np.array_equal(part.values.toarray(), expected.modalities[name].values.toarray())
        assert np.array_equal(part.library_size, expected.modalities[name].library_size)


@pytest.mark.parametrize("dtype", [">f4", "<f2"])
def test_odd_floats_of_dense_counts_are_read(dtype: str) -> None:
    mdata = mosaic(kind="dense", dtype=np.dtype(dtype))
    part = build_manager(mdata, {"rna": "nb"}).data.modalities["rna"]
    assert part.values.dtype == np.float32
    np.testing.assert_array_equal(part.values.toarray(), mdata.mod["rna"].X)


def test_unsorted_and_duplicated_entries_are_put_in_order_in_a_copy() -> None:
    matrix = sp.csr_matrix(
        (np.array([1.0, 2.0, 4.0], np.float32), np.array([2, 0, 0]), np.array([0, 3, 3])),
        shape=(2, 12),
    )
    adata = counts_modality(cell_names(2))
    adata.X = matrix
    kept = adata.X.indices.copy()
    with pytest.warns(MosaicviWarning, match="no counts"):
        data = build_manager(make_mudata({"rna": adata}), {"rna": "nb"}).data
    assert data.modalities["rna"].values[0, 0] == 6
    assert np.array_equal(adata.X.indices, kept)


def test_float_counts_are_shared_and_locked() -> None:
    mdata = mosaic()
    part = build_manager(mdata, {"rna": "zinb"}).data.modalities["rna"]
    assert np.shares_memory(part.values.data, mdata.mod["rna"].X.data)
    assert not part.values.data.flags.writeable
    assert mdata.mod["rna"].X.data.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        part.rows[0] = 3


def test_continuous_values_keep_missing_ones() -> None:
    adata = counts_modality(cell_names(6), kind="dense", dtype=np.float64)
    adata.X[1, 2] = np.nan
    adata.X[3] -= 7.5
    with warnings.catch_warnings():
        warnings.simplefilter("error", MosaicviWarning)
        part = build_manager(make_mudata({"score": adata}), {"score": "normal"}).data.modalities[
            "score"
        ]
    assert part.values.dtype == np.float32
    assert part.missing
    np.testing.assert_array_equal(part.values, adata.X.astype(np.float32))
    assert np.array_equal(part.library_size, np.ones(6))


@pytest.mark.parametrize("likelihood", ["normal", "lognormal"])
@pytest.mark.parametrize("kind", ["csr", "dense"])
def test_cells_whose_values_are_all_missing_are_told(likelihood: str, kind: str) -> None:
    values = np.random.default_rng(0).gamma(2.0, size=(30, 6)).astype(np.float32)
    values[3, 2] = np.nan
    mdata = make_mudata({"own": anndata.AnnData(FORMATS[kind](values))})
    with warnings.catch_warnings():
        warnings.simplefilter("error", MosaicviWarning)
        build_manager(mdata, {"own": likelihood})
    values[4:6] = np.nan
    mdata = make_mudata({"own": anndata.AnnData(FORMATS[kind](values))})
    with pytest.warns(MosaicviWarning, match="'own': all values of 2 cells are missing in X"):
        build_manager(mdata, {"own": likelihood})


@pytest.mark.parametrize("likelihood", ["normal", "beta_binomial"])
def test_features_without_a_value_are_told(likelihood: str) -> None:
    values = np.random.default_rng(0).poisson(4.0, size=(30, 6)).astype(np.float32)
    part = anndata.AnnData(values)
    part.var_names = [f"region{number}" for number in range(6)]
    part.layers["methylated"], part.layers["coverage"] = values.copy(), values + 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", MosaicviWarning)
        build_manager(make_mudata({"own": part}), {"own": likelihood})
    part.X[:, 2] = np.nan
    part.layers["methylated"][:, 2] = part.layers["coverage"][:, 2] = 0
    with pytest.warns(MosaicviWarning, match="'own': features .*region2.* no value in any cell"):
        build_manager(make_mudata({"own": part}), {"own": likelihood})
