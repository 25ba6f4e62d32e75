"""A MuData as arrays: rows, batches, covariates, panels, backgrounds."""

from __future__ import annotations

import json
import warnings
from typing import Any

import mudata
import numpy as np
import pandas as pd
import pytest
from tests.helpers import (
    PROTEINS,
    cell_names,
    counts_modality,
    fingerprint,
    make_mudata,
    mosaic,
)

from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi.data import ModalitySpec, MosaicData, build_manager
from mosaicvi.data._names import find_isotypes, species_of

BOTH = {"rna": "zinb", "protein": "nb_mixture"}


def parity(data: MosaicData) -> list[int]:
    """Batch codes of :func:`mosaic`'s cells: even cells are in ``a``, odd ones in ``b``."""
    return [int(name[1:]) % 2 for name in data.obs_names]


def test_rows_follow_names_whatever_the_order() -> None:
    mdata = mosaic()
    data = build_manager(mdata, BOTH).data
    assert list(data.modalities) == ["rna", "protein"]
    for name, part in data.modalities.items():
        adata = mdata.mod[name]
        for cell, row in zip(data.obs_names, part.rows, strict=True):
            assert (row >= 0) == (cell in adata.obs_names)
            if row >= 0:
                assert adata.obs_names[row] == cell
        assert np.array_equal(data.obs_names[part.cells], adata.obs_names)
    protein = data.modalities["protein"]
    assert protein.rows[list(data.obs_names).index("c29")] == 0


def test_presence_and_patterns() -> None:
    data = build_manager(mosaic(), BOTH).data
    assert data.presence[:10].tolist() == [[True, False]] * 10
    assert data.presence[-1].tolist() == [False, True]
    assert data.patterns.tolist() == [1] * 10 + [3] * 10 + [2] * 10


def test_presence_never_comes_from_zeros() -> None:
    mdata = mosaic()
    mdata.mod["rna"].X = mdata.mod["rna"].X * 0
    with pytest.warns(MosaicviWarning, match="20 cells have no counts"):
        data = build_manager(mdata, BOTH).data
    assert data.modalities["rna"].present.sum() == 20


def test_order_of_modalities_is_that_of_the_request() -> None:
    data = build_manager(mosaic(), {"protein": "nb_mixture", "rna": "zinb"}).data
    assert list(data.modalities) == ["protein", "rna"]
    assert data.presence[0].tolist() == [False, True]


def test_nothing_but_the_registration_keys_is_written() -> None:
    mdata = mosaic()
    before = fingerprint(mdata)
    manager = build_manager(mdata, BOTH, batch_key="batch")
    assert manager.data.n_cells == 30
    assert fingerprint(mdata) == before
    assert set(mdata.uns) == {"_scvi_uuid", "_scvi_manager_uuid"}


def test_one_batch_key_is_coalesced_over_modalities() -> None:
    data = build_manager(mosaic(), BOTH, batch_key="batch").data
    for part in data.modalities.values():
        assert part.batch_categories == ("a", "b")
        assert part.cell_batch.tolist() == parity(data)
        assert np.array_equal(part.batch, part.cell_batch[part.cells])


def test_columns_that_mudata_pulled_are_the_same_column() -> None:
    mdata = mosaic()
    for name, adata in mdata.mod.items():
        pulled = adata.obs["batch"].astype(object).reindex(mdata.obs_names)
        mdata.obs[f"{name}:batch"] = pulled.to_numpy()
    data = build_manager(mdata, BOTH, batch_key="batch").data
    assert data.modalities["rna"].cell_batch.tolist() == parity(data)
    for adata in mdata.mod.values():
        del adata.obs["batch"]
    data = build_manager(mdata, BOTH, batch_key="batch").data
    assert data.modalities["rna"].cell_batch.tolist() == parity(data)


def test_a_prefixed_key_reads_one_modality_with_or_without_the_pulled_column() -> None:
    mdata = mosaic()
    data = build_manager(mdata, {"rna": "nb"}, batch_key="rna:batch").data
    assert data.modalities["rna"].cell_batch[:20].tolist() == [0, 1] * 10
    assert (data.modalities["rna"].cell_batch[20:] == -1).all()


def test_a_column_of_the_mudata_fills_what_modalities_lack() -> None:
    mdata = mosaic()
    del mdata.mod["protein"].obs["batch"]
    column = np.array([None] * 20 + ["b"] * 10, dtype=object)
    mdata.obs["batch"] = column
    data = build_manager(mdata, BOTH, batch_key="batch").data
    assert data.modalities["rna"].cell_batch.tolist() == [0, 1] * 10 + [1] * 10


def test_integer_batches_that_became_floats_keep_their_names() -> None:
    mdata = mosaic()
    mdata.mod["rna"].obs["lane"] = np.arange(20) % 2 + 1
    mdata.obs["lane"] = np.where(np.arange(30) < 20, np.nan, 2.0)
    data = build_manager(mdata, BOTH, batch_key="lane").data
    assert data.modalities["rna"].batch_categories == ("1", "2")


def test_one_batch_key_a_modality() -> None:
    mdata = mosaic()
    mdata.mod["protein"].obs["stain"] = "s1"
    keys = {"rna": "batch", "protein": "stain"}
    data = build_manager(mdata, BOTH, batch_key=keys).data
    assert data.modalities["rna"].batch_categories == ("a", "b")
    assert data.modalities["protein"].batch_categories == ("s1",)
    assert (data.modalities["rna"].cell_batch[20:] == -1).all()
    assert (data.modalities["protein"].cell_batch[:10] == -1).all()
    without = build_manager(mdata, BOTH, batch_key={"rna": "batch"}).data
    assert len(without.modalities["protein"].batch_categories) == 1
    assert (without.modalities["protein"].cell_batch == 0).all()


def test_library_sizes_and_size_factors() -> None:
    mdata = mosaic()
    data = build_manager(mdata, BOTH).data
    expected = np.asarray(mdata.mod["rna"].X.sum(axis=1)).ravel()
    np.testing.assert_array_equal(data.modalities["rna"].library_size, expected)
    assert (data.modalities["protein"].library_size == 1).all()
    factors = expected.mean() * np.linspace(0.5, 1.5, 20)
    mdata.mod["rna"].obs["depth"] = factors
    given = build_manager(mdata, BOTH, size_factor_key="depth").data
    np.testing.assert_allclose(given.modalities["rna"].library_size, factors, rtol=1e-6)
    del mdata.mod["rna"].obs["depth"]
    mdata.obs["depth"] = np.concatenate([factors, factors[:10]])
    given = build_manager(mdata, {"rna": ModalitySpec("nb", size_factor_key="depth")}).data
    np.testing.assert_allclose(given.modalities["rna"].library_size, factors, rtol=1e-6)


def test_covariates() -> None:
    mdata = mosaic()
    mdata.obs["donor"] = pd.Categorical(["x", "y", "z"] * 10)
    mdata.obs["age"] = np.arange(30)
    data = build_manager(
        mdata, BOTH, categorical_covariate_keys="donor", continuous_covariate_keys=["age"]
    ).data
    assert data.categorical is not None
    assert data.continuous is not None
    assert data.categorical[:, 0].tolist() == [0, 1, 2] * 10
    assert data.categorical_categories == (("x", "y", "z"),)
    np.testing.assert_allclose(data.continuous.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(data.continuous.std(), 1, rtol=1e-6)
    assert data.continuous.dtype == np.float32


@pytest.mark.parametrize("kind", [list, pd.Index, np.array, tuple])
def test_keys_of_covariates_come_in_any_sequence(kind: Any) -> None:
    mdata = mosaic()
    mdata.obs["donor"], mdata.obs["site"] = "a", "b"
    manager = build_manager(mdata, BOTH, categorical_covariate_keys=kind(["donor", "site"]))
    assert {type(key) for key in manager.state.categorical} == {str}
    assert list(manager.state.categorical) == ["donor", "site"]


def test_cells_without_a_registered_modality_are_told_and_need_no_covariate() -> None:
    mdata = mosaic()
    mdata.mod["rna"].obs["donor"] = "x"
    with pytest.warns(MosaicviWarning, match="10 cells have none of the modalities"):
        data = build_manager(mdata, {"rna": "nb"}, categorical_covariate_keys=["donor"]).data
    assert data.categorical is not None
    assert data.categorical[:, 0].tolist() == [0] * 20 + [-1] * 10
    assert (data.patterns[20:] == 0).all()


def test_panels() -> None:
    mdata = mosaic()
    dense = mdata.mod["protein"].X.toarray()
    is_b = (mdata.mod["protein"].obs["batch"] == "b").to_numpy()
    dense[np.ix_(is_b, [0, 3])] = 0
    mdata.mod["protein"].X = dense
    table = pd.DataFrame(
        {"b": [False, True, True, False, True], "a": True, "unused": False}, index=list(PROTEINS)
    )
    mdata.mod["protein"].varm["panel"] = table
    data = build_manager(mdata, BOTH, batch_key="batch", panel_key="panel").data
    assert data.modalities["rna"].panel is None
    panel = data.modalities["protein"].panel
    assert panel is not None
    assert panel.tolist() == [[True] * 5, [False, True, True, False, True]]
    mdata.mod["protein"].varm["array"] = table[["a", "b"]].to_numpy()
    spec = ModalitySpec("nb_mixture", panel_key="array")
    again = build_manager(mdata, {"protein": spec}, batch_key={"protein": "batch"}).data
    assert np.array_equal(again.modalities["protein"].panel, panel)


def test_isotypes_are_found_by_name() -> None:
    names = ["CD3", "IgG1_control_TotalSeqB", "IgM", "IgG.Fc", "isotype_RTK", "rat-IgG2b", "CD16"]
    assert find_isotypes(names) == ("IgG1_control_TotalSeqB", "isotype_RTK", "rat-IgG2b")


def test_isotypes_set_their_own_background() -> None:
    cells = cell_names(8)
    adata = counts_modality(cells, ["cd3", "igg1", "igg2a"])
    mdata = make_mudata({"protein": adata})
    expected = np.log((np.asarray(adata.X.sum(axis=0)).ravel() + 0.5) / 8)
    found = build_manager(mdata, {"protein": "nb_mixture"}).data.modalities["protein"]
    assert found.log_background is not None
    assert np.isnan(found.log_background[0])
    np.testing.assert_allclose(found.log_background[1:], expected[1:])
    named = ModalitySpec("nb_mixture", isotypes=("igg1",))
    part = build_manager(mdata, {"protein": named}).data.modalities["protein"]
    assert np.isnan(part.log_background).tolist() == [True, False, True]
    none = ModalitySpec("nb_mixture", isotypes=None)
    part = build_manager(mdata, {"protein": none}).data.modalities["protein"]
    assert part.log_background is None


@pytest.mark.parametrize("as_anndata", [True, False])
def test_empty_droplets_set_the_background(as_anndata: bool) -> None:
    mdata = mosaic()
    droplets = counts_modality(cell_names(20), PROTEINS[::-1], seed=5)
    counts = droplets.X.toarray()[:, ::-1]
    given = droplets if as_anndata else counts
    arguments = {"setup_args": {"modalities": BOTH, "empty_droplets": {"protein": given}}}
    manager = build_manager(
        mdata, BOTH, empty_droplets={"protein": given}, setup_method_args=arguments
    )
    np.testing.assert_allclose(
        manager.data.modalities["protein"].log_background,
        np.log((counts.sum(axis=0) + 0.5) / 20),
    )
    json.dumps(manager.registry, allow_nan=False)


def test_droplets_of_a_dataframe_are_matched_by_name() -> None:
    mdata = mosaic()
    counts = counts_modality(cell_names(20), PROTEINS, seed=5).X.toarray()
    turned = pd.DataFrame(counts, columns=list(PROTEINS)).assign(other=7.0)[
        [*PROTEINS[::-1], "other"]
    ]
    found = build_manager(mdata, BOTH, empty_droplets={"protein": turned}).data
    np.testing.assert_allclose(
        found.modalities["protein"].log_background, np.log((counts.sum(axis=0) + 0.5) / 20)
    )
    lacking = turned.drop(columns=PROTEINS[1])
    with pytest.raises(DataError, match=f"lack 1 features: '{PROTEINS[1]}'"):
        build_manager(mdata, BOTH, empty_droplets={"protein": lacking})
    with pytest.raises(DataError, match=r"lack .*var_names; a matrix without names"):
        build_manager(mdata, BOTH, empty_droplets={"protein": pd.DataFrame(counts)})
    twice = turned.rename(columns={"other": PROTEINS[0]})
    with pytest.raises(DataError, match=f"same name: '{PROTEINS[0]}'"):
        build_manager(mdata, BOTH, empty_droplets={"protein": twice})


def test_droplets_without_a_count_are_refused() -> None:
    with pytest.raises(DataError, match=r"'protein'.*hold no count"):
        build_manager(mosaic(), BOTH, empty_droplets={"protein": np.zeros((3, len(PROTEINS)))})


def test_representation() -> None:
    mdata = mosaic()
    mdata.mod["rna"].obsm["pca"] = np.arange(40, dtype=np.float64).reshape(20, 2)
    spec = ModalitySpec("nb", representation="pca")
    part = build_manager(mdata, {"rna": spec}).data.modalities["rna"]
    assert part.representation is not None
    assert part.representation.dtype == np.float32
    np.testing.assert_array_equal(part.representation, mdata.mod["rna"].obsm["pca"])


@pytest.mark.parametrize(
    ("names", "species"),
    [
        ([f"ACTB{i}" for i in range(50)] + ["C1orf112", "HLA-DRA", "Metazoa_SRP"], "human"),
        (
            [f"Actb{i}" for i in range(50)] + ["BC005537", "H2-Ab1", "mt-Nd1", "1700012B09Rik"],
            "mouse",
        ),
        ([f"ENSMUSG000000{i:05d}" for i in range(50)], "mouse"),
        ([f"chr1:{i}-{i + 5}" for i in range(50)], None),
        (["CD3", "Cd4"], None),
    ],
)
def test_species(names: list[str], species: str | None) -> None:
    assert species_of(names, "rna") == species


def test_human_protein_names_do_not_contradict_mouse_genes() -> None:
    cells = cell_names(4)
    mdata = make_mudata(
        {
            "rna": counts_modality(cells, [f"Actb{i}" for i in range(30)]),
            "protein": counts_modality(cells, [f"ADT_CD{i}_A0{i}" for i in range(30)]),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", MosaicviWarning)
        build_manager(mdata, BOTH)


def test_three_modalities_without_a_common_cell() -> None:
    cells = cell_names(9)
    mdata = make_mudata(
        {
            "rna": counts_modality(cells[:3]),
            "protein": counts_modality(cells[3:6], PROTEINS),
            "atac": counts_modality(cells[6:], [f"chr1:{i}-{i + 5}" for i in range(4)]),
        }
    )
    data = build_manager(mdata, {**BOTH, "atac": "poisson"}).data
    assert data.patterns.tolist() == [1] * 3 + [2] * 3 + [4] * 3


def test_spec_as_dict_and_back() -> None:
    spec = ModalitySpec("nb_mixture", isotypes=("a", "b"), background=(1.0, float("nan")))
    values = json.loads(json.dumps(spec.to_dict(), allow_nan=False))
    again = ModalitySpec.from_dict(values)
    assert again.isotypes == ("a", "b")
    assert again.background is not None
    assert again.background[0] == 1.0
    assert np.isnan(again.background[1])
    with pytest.raises(RequestError, match="likelihod"):
        ModalitySpec.from_dict({"likelihod": "nb"})
    assert ModalitySpec.from_dict({"likelihood": "nb"}) == ModalitySpec("nb")


def test_spec_takes_one_name_and_any_sequence() -> None:
    spec = ModalitySpec("nb_mixture", isotypes="igg1")
    assert spec.isotypes == ("igg1",)
    assert spec == ModalitySpec.from_dict({"likelihood": "nb_mixture", "isotypes": "igg1"})
    assert ModalitySpec("nb_mixture").isotypes == "auto"
    given = ModalitySpec("nb_mixture", isotypes=["a"], background=np.array([1, 2]))
    assert given == ModalitySpec("nb_mixture", isotypes=("a",), background=(1.0, 2.0))
    json.dumps(given.to_dict())
    part = build_manager(
        make_mudata({"protein": counts_modality(cell_names(8), ["cd3", "igg1", "igg2a"])}),
        {"protein": spec},
    ).data.modalities["protein"]
    assert np.isnan(part.log_background).tolist() == [True, False, True]
    for wrong in ("12", 1.0, ["a"]):
        with pytest.raises(RequestError, match="background"):
            ModalitySpec("nb_mixture", background=wrong)
    with pytest.raises(RequestError, match="isotypes"):
        ModalitySpec("nb_mixture", isotypes=3)


def test_mudata_along_features_is_refused() -> None:
    left, right = counts_modality(["a", "b"]), counts_modality(["c"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        mdata = mudata.MuData({"one": left, "two": right}, axis=1)
    with pytest.raises(DataError, match="axis"):
        build_manager(mdata, {"one": "nb"})
