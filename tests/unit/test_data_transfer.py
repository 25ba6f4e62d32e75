"""Reading another MuData as the first one was read."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.helpers import (
    GENES,
    PROTEINS,
    cell_names,
    counts_modality,
    fingerprint,
    make_mudata,
    mosaic,
)

from mosaicvi import _keys, _scvi
from mosaicvi._errors import DataError, FileError, MosaicviWarning
from mosaicvi.data import ModalitySpec, MosaicManager, build_manager

BOTH = {"rna": "zinb", "protein": "nb_mixture"}


def registered(**options: Any) -> MosaicManager:
    record = {
        _scvi.MODEL_NAME_KEY: "Model",
        _scvi.SETUP_METHOD_KEY: "setup_mudata",
        _scvi.SETUP_ARGS_KEY: {"modalities": {"rna": ModalitySpec("zinb"), **BOTH}, **options},
    }
    return build_manager(mosaic(), BOTH, setup_method_args=record, **options)


def replay(manager: MosaicManager, mdata: Any, **kwargs: Any) -> MosaicManager:
    """Follow a registration that went through a file, as loading a model does."""
    registry = json.loads(json.dumps(manager.registry, allow_nan=False))
    arguments = registry[_scvi.SETUP_ARGS_KEY]
    return build_manager(
        mdata,
        source_registry=registry,
        setup_method_args={_scvi.SETUP_ARGS_KEY: arguments},
        **arguments,
        **kwargs,
    )


def numbered(mdata: Any, first: float, second: float) -> Any:
    """Batches ``a`` and ``b`` as numbers."""
    for adata in mdata.mod.values():
        names = adata.obs["batch"].astype(str)
        adata.obs["batch"] = names.map({"a": first, "b": second})
    return mdata


def test_registry_is_plain_json_and_replays() -> None:
    manager = registered(batch_key="batch")
    again = replay(manager, mosaic())
    assert again.state == manager.state
    first, second = manager.data, again.data
    for name, part in first.modalities.items():
        other = second.modalities[name]
        assert np.array_equal(part.values.toarray(), other.values.toarray())
        assert np.array_equal(part.batch, other.batch)
    third = replay(again, mosaic())
    assert third.state == manager.state


def test_order_of_modalities_survives_sorted_keys() -> None:
    manager = build_manager(mosaic(), {"rna": "zinb", "protein": "nb_mixture"})
    registry = json.loads(json.dumps(manager.registry, sort_keys=True))
    again = build_manager(mosaic(), {}, source_registry=registry)
    assert list(again.data.modalities) == ["rna", "protein"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_state_with_every_option_replays() -> None:
    mdata = mosaic()
    mdata.obs["donor"], mdata.obs["age"] = ["x", "y"] * 15, np.arange(30.0)
    mdata.mod["rna"].obsm["pca"] = np.ones((20, 2))
    mdata.mod["protein"].varm["panel"] = np.ones((5, 2), dtype=bool)
    manager = build_manager(
        mdata,
        {"rna": ModalitySpec("nb", representation="pca"), "protein": "nb_mixture"},
        batch_key="batch",
        categorical_covariate_keys=["donor"],
        continuous_covariate_keys=["age"],
        panel_key="panel",
        empty_droplets={"protein": np.ones((3, 5))},
    )
    registry = json.loads(json.dumps(manager.registry, allow_nan=False))
    again = build_manager(mdata.copy(), {}, source_registry=registry)
    assert again.state == manager.state
    assert np.array_equal(again.data.continuous, manager.data.continuous)


def test_transfer_changes_nothing_but_the_registration_keys() -> None:
    manager, query = registered(), mosaic()
    before = fingerprint(query)
    manager.transfer_fields(query)
    assert fingerprint(query) == before


def test_shuffled_cells_and_reordered_features_are_mapped() -> None:
    manager = registered(batch_key="batch")
    order = np.random.default_rng(0).permutation(20)
    reference = mosaic()
    query = make_mudata(
        {
            "protein": reference.mod["protein"][order].copy()[:, list(PROTEINS[::-1])].copy(),
            "rna": reference.mod["rna"][order[::-1]].copy()[:, list(np.roll(GENES, 5))].copy(),
        }
    )
    first, second = manager.data, manager.transfer_fields(query).data
    assert list(second.modalities) == ["rna", "protein"]
    cells = [list(second.obs_names).index(name) for name in first.obs_names]
    assert np.array_equal(second.presence[cells], first.presence)
    for name, part in first.modalities.items():
        other = second.modalities[name]
        assert other.var_names == part.var_names
        assert other.values.has_canonical_format
        rows = other.rows[cells]
        assert np.array_equal(
            other.values[rows[rows >= 0]].toarray(),
            part.values[part.rows[part.rows >= 0]].toarray(),
        )
        assert np.array_equal(other.cell_batch[cells], part.cell_batch)


def test_missing_features_are_refused_by_name() -> None:
    query = mosaic()
    rna = query.mod["rna"][:, 2:].copy()
    query = make_mudata({"rna": rna, "protein": query.mod["protein"].copy()})
    before = fingerprint(query)
    with pytest.raises(DataError, match=r"2 of 12 registered features are missing: 'GENE0'"):
        registered().transfer_fields(query)
    assert fingerprint(query) == before
    assert not query.uns


def test_features_in_another_case_are_pointed_out() -> None:
    query = make_mudata({"rna": counts_modality(cell_names(4), [g.title() for g in GENES])})
    with pytest.raises(DataError, match="another case"):
        registered().transfer_fields(query)


def test_extra_features_are_ignored_with_a_warning() -> None:
    query = make_mudata({"rna": counts_modality(cell_names(4), ["NEW", *GENES])})
    with pytest.warns(MosaicviWarning, match="1 features are not among the registered ones"):
        data = registered().transfer_fields(query).data
    part = data.modalities["rna"]
    assert part.var_names == GENES
    kept = query.mod["rna"].X[:, 1:]
    np.testing.assert_array_equal(part.values.toarray(), kept.toarray())
    np.testing.assert_array_equal(part.library_size, np.asarray(kept.sum(axis=1)).ravel())


def test_a_query_may_lack_a_modality() -> None:
    query = make_mudata({"rna": mosaic().mod["rna"].copy()})
    data = registered(batch_key="batch").transfer_fields(query).data
    protein = data.modalities["protein"]
    assert list(data.modalities) == ["rna", "protein"]
    assert protein.values.shape == (0, len(PROTEINS))
    assert (protein.rows == -1).all()
    assert protein.cell_batch.tolist() == [0, 1] * 10
    assert not protein.present.any()


def test_a_query_of_other_modalities_is_refused() -> None:
    query = make_mudata({"gex": mosaic().mod["rna"].copy()})
    with pytest.raises(DataError, match="none of the registered modalities"):
        registered().transfer_fields(query)


def test_unseen_batches_warn_once_and_get_no_code() -> None:
    query = mosaic()
    for adata in query.mod.values():
        adata.obs["batch"] = adata.obs["batch"].map({"a": "new", "b": "b"})
    with pytest.warns(MosaicviWarning, match="batches 'new' were not there") as caught:
        data = registered(batch_key="batch").transfer_fields(query).data
    assert sum(issubclass(warning.category, MosaicviWarning) for warning in caught) == 1
    for part in data.modalities.values():
        assert set(part.cell_batch) == {-1, 1}
        assert np.array_equal(part.batch, part.cell_batch[part.cells])


def test_unseen_batches_can_be_registered() -> None:
    query = mosaic()
    for adata in query.mod.values():
        adata.obs["batch"] = adata.obs["batch"].map({"a": "A new one", "b": "b"})
    with warnings.catch_warnings():
        warnings.simplefilter("error", MosaicviWarning)
        data = replay(registered(batch_key="batch"), query, extend_batches=True).data
    for part in data.modalities.values():
        assert part.batch_categories == ("a", "b", "A new one")
        assert set(part.cell_batch) == {1, 2}


def test_unknown_category_of_a_covariate_is_refused() -> None:
    mdata, query = mosaic(), mosaic()
    mdata.obs["donor"], query.obs["donor"] = "x", ["x"] * 29 + ["y"]
    manager = build_manager(mdata, BOTH, categorical_covariate_keys=["donor"])
    with pytest.raises(DataError, match=r"categories 'y' were not there"):
        manager.transfer_fields(query)


def test_continuous_covariates_keep_their_scale() -> None:
    mdata, query = mosaic(), mosaic()
    mdata.obs["age"], query.obs["age"] = np.arange(30.0), np.arange(30.0) + 100
    manager = build_manager(mdata, BOTH, continuous_covariate_keys=["age"])
    shifted = manager.transfer_fields(query).data.continuous
    np.testing.assert_allclose(
        shifted, manager.data.continuous + 100 / np.arange(30.0).std(), rtol=1e-5
    )


def test_panel_of_the_query_counts_for_its_cells() -> None:
    mdata, query = mosaic(), mosaic()
    mdata.mod["protein"].varm["panel"] = np.ones((5, 2), dtype=bool)
    manager = build_manager(mdata, BOTH, batch_key="batch", panel_key="panel")
    assert manager.data.modalities["protein"].panel.all()
    protein = query.mod["protein"]
    dense = protein.X.toarray()
    dense[:, 1] = 0
    protein.X = dense
    protein.varm["panel"] = np.repeat(np.arange(5)[:, None] != 1, 2, axis=1)
    reordered = make_mudata({"protein": protein[:, ::-1].copy()})
    panel = manager.transfer_fields(reordered).data.modalities["protein"].panel
    assert panel.tolist() == [[True, False, True, True, True]] * 2


def test_stale_map_of_a_query_is_found() -> None:
    query = mosaic()
    query.mod["rna"] = query.mod["rna"][::-1].copy()
    with pytest.raises(DataError, match=r"stale.*mdata\.update\(\)"):
        registered().transfer_fields(query)


def test_another_representation_is_refused() -> None:
    mdata, query = mosaic(), mosaic()
    mdata.mod["rna"].obsm["pca"] = np.ones((20, 2))
    query.mod["rna"].obsm["pca"] = np.ones((20, 3))
    manager = build_manager(mdata, {**BOTH, "rna": ModalitySpec("nb", representation="pca")})
    with pytest.raises(DataError, match="3 dimensions"):
        manager.transfer_fields(query)
    absent = manager.transfer_fields(make_mudata({"protein": query.mod["protein"].copy()})).data
    assert absent.modalities["rna"].representation.shape == (0, 2)


def test_foreign_and_newer_registries_are_refused() -> None:
    registry = json.loads(json.dumps(registered().registry))
    state = registry[_scvi.FIELD_REGISTRIES_KEY][_keys.REGISTRY][_scvi.STATE_REGISTRY_KEY]
    state["format"] = 99
    with pytest.raises(FileError, match="format 99"):
        build_manager(mosaic(), {}, source_registry=registry)
    state["format"] = 1
    del state["modalities"]
    with pytest.raises(FileError, match="damaged"):
        build_manager(mosaic(), {}, source_registry=registry)
    registry[_scvi.FIELD_REGISTRIES_KEY] = {"X": {}}
    with pytest.raises(FileError, match="not written by mosaicvi"):
        build_manager(mosaic(), {}, source_registry=registry)


def test_scvi_tools_views_of_the_registry_work(capsys: pytest.CaptureFixture[str]) -> None:
    manager = registered(batch_key="batch")
    manager.view_registry()
    shown = capsys.readouterr().out
    assert "zinb" in shown
    assert manager.summary_stats.n_cells == 30
    assert manager.summary_stats.n_batch == 2
    assert manager.get_state_registry(_keys.REGISTRY)["n_cells"] == 30


def test_another_setup_of_the_same_object_is_registered_anew() -> None:
    mdata = mosaic()
    first = build_manager(mdata, BOTH)
    build_manager(mdata, {"rna": "nb", "protein": "nb_mixture"})
    first.validate()
    assert first.state.modalities["rna"].spec.likelihood == "zinb"


def test_a_registered_object_that_changed_is_noticed() -> None:
    mdata = mosaic()
    manager = build_manager(mdata, BOTH)
    manager.validate()
    mdata.mod["rna"].obs["new"] = 1
    manager.validate()
    mdata.mod["rna"] = mdata.mod["rna"][::-1].copy()
    with pytest.raises(DataError, match=r"obs_names of modality 'rna'.*mdata\.copy\(\)"):
        manager.validate()


@pytest.mark.parametrize("columns", [["1", "2"], [1, 2], [1.0, 2.0], pd.Index([1.0, 2.0])])
def test_panels_name_batches_as_columns_of_batches_do(columns: Any) -> None:
    """Integer batches are floats wherever one is missing, and so are a table's columns."""
    mdata = numbered(mosaic(), 1.0, 2.0)
    table = pd.DataFrame(np.ones((5, 2), dtype=bool), PROTEINS, columns)
    mdata.mod["protein"].varm["panel"] = table
    assert list(mdata.mod["protein"].varm["panel"].columns) == list(columns)
    manager = build_manager(mdata, BOTH, batch_key="batch", panel_key="panel")
    assert manager.data.modalities["protein"].panel.all()


@pytest.mark.parametrize("columns", [["3"], [3], [3.0]])
def test_panel_of_a_new_batch_is_heard(columns: Any) -> None:
    """A table that is not heard would have zeros read of what was never measured."""
    mdata = numbered(mosaic(), 1.0, 2.0)
    mdata.mod["protein"].varm["panel"] = np.ones((5, 2), dtype=bool)
    manager = build_manager(mdata, BOTH, batch_key="batch", panel_key="panel")
    query = numbered(mosaic(), 3.0, 3.0)
    protein = query.mod["protein"]
    dense = protein.X.toarray()
    dense[:, 1] = 0
    protein.X = dense
    protein.varm["panel"] = pd.DataFrame(np.arange(5)[:, None] != 1, protein.var_names, columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MosaicviWarning)
        found = [
            manager.transfer_fields(query.copy(), **how) for how in ({}, {"extend_batches": True})
        ]
    for each in found:
        panel = each.data.modalities["protein"].measured(np.arange(20))
        assert panel.tolist() == [[True, False, True, True, True]] * 20


def test_two_columns_for_one_batch_are_refused() -> None:
    mdata = numbered(mosaic(), 1, 2)
    table = pd.DataFrame(np.ones((5, 3), dtype=bool), PROTEINS, [1, 2, "1"])
    mdata.mod["protein"].varm["panel"] = table
    with pytest.raises(DataError, match=r"'protein'.*'panel'.*several columns for batches '1'"):
        build_manager(mdata, BOTH, batch_key="batch", panel_key="panel")


def test_covariates_in_another_unit_are_told_of() -> None:
    """Age in months for years: its effect, drawn out, had made means of 400,000 counts."""
    mdata, query = mosaic(), mosaic()
    mdata.obs["age"], query.obs["age"] = np.arange(30.0), 12 * np.arange(20.0, 50.0)
    manager = build_manager(mdata, BOTH, continuous_covariate_keys=["age"])
    with pytest.warns(MosaicviWarning, match=r"'age' of \d+ cells is up to 66 standard deviations"):
        manager.transfer_fields(query)
