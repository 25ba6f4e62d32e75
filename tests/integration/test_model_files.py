"""A saved model answers like the one that was saved."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import mudata
import numpy as np
import pytest
import safetensors.torch
import torch
from tests.fits import answer, assert_same_answer, build, fit, layers, small_mosaic
from tests.helpers import make_mudata

import mosaicvi
from mosaicvi import FactorVI, MosaicVI
from mosaicvi._errors import FileError, MosaicviError, RequestError
from mosaicvi.datasets import SimulatedModality

if TYPE_CHECKING:
    from mudata import MuData

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

N_CELLS = 300


@pytest.fixture(scope="module")
def model() -> MosaicVI:
    return fit(build(small_mosaic(N_CELLS)), 5, train_size=0.6)


@pytest.fixture(scope="module")
def saved(model: MosaicVI, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "m"
    model.save(folder)
    return folder


def load(folder: Path, data: object = None) -> MosaicVI:
    return MosaicVI.load(folder, data, accelerator="cpu")  # type: ignore[arg-type]


def shuffled(data: MuData) -> MuData:
    """Cells of the MuData and of each modality, and features, in other orders."""
    rng = np.random.default_rng(0)
    parts = {}
    for name in reversed(list(data.mod)):
        part = data[name]
        parts[name] = part[rng.permutation(part.n_obs), rng.permutation(part.n_vars)].copy()
    return make_mudata(parts)


def test_round_trip_is_bit_identical(model: MosaicVI, saved: Path) -> None:
    again = load(saved, small_mosaic(N_CELLS))
    assert_same_answer(answer(model, "protein", ["rna"]), answer(again, "protein", ["rna"]))
    assert_same_answer(answer(model, "rna", ["protein"]), answer(again, "rna", ["protein"]))
    np.testing.assert_array_equal(
        model.get_latent_representation(), again.get_latent_representation()
    )
    assert again.get_elbo() == model.get_elbo()
    for name, frame in model.history.items():
        np.testing.assert_array_equal(frame.to_numpy(), again.history[name].to_numpy())
    assert again.fit_result.n_epochs == model.fit_result.n_epochs
    assert again.fit_result.best_epoch == model.fit_result.best_epoch
    for name in ("train_indices", "validation_indices"):
        assert set(getattr(again, name)) == set(getattr(model, name))
    assert "Trained" in again.summary_string


def test_shuffled_cells_and_features(model: MosaicVI, saved: Path) -> None:
    again = load(saved, shuffled(small_mosaic(N_CELLS)))
    left, right = answer(model, "protein", ["rna"]), answer(again, "protein", ["rna"])
    assert not (left.obs_names == right.obs_names).all()
    assert_same_answer(left, right[left.obs_names])
    held_out = model.adata.obs_names[model.validation_indices]
    assert set(again.adata.obs_names[again.validation_indices]) == set(held_out)
    assert np.isfinite(right.var["imputability"]).any()


def test_imputability_is_never_measured_on_other_cells(saved: Path) -> None:
    """Rows of the saved split mean nothing in a MuData with other cells."""
    few = small_mosaic(40, seed=9)
    parts = {}
    for name, part in few.mod.items():
        parts[name] = part.copy()
        parts[name].obs_names = [f"other_{cell}" for cell in part.obs_names]
    few = make_mudata(parts)
    again = load(saved, few)
    assert len(again.validation_indices) == 0
    got = answer(again, "protein", ["rna"])
    assert np.isnan(got.var["imputability"]).all()


def test_load_without_data(model: MosaicVI, saved: Path, tmp_path: Path) -> None:
    bare = load(saved, False)
    with pytest.raises(RequestError, match="adata=mdata"):
        bare.get_latent_representation()
    with pytest.raises(RequestError, match="without data"):
        bare.save(tmp_path / "n", save_anndata=True)
    np.testing.assert_array_equal(
        bare.get_latent_representation(small_mosaic(N_CELLS)), model.get_latent_representation()
    )
    bare.save(tmp_path / "again")
    third = load(tmp_path / "again", small_mosaic(N_CELLS))
    assert_same_answer(answer(model, "protein", ["rna"]), answer(third, "protein", ["rna"]))


def test_cells_asked_about_do_not_become_the_models_own(model: MosaicVI, saved: Path) -> None:
    bare = load(saved, False)
    data = small_mosaic(N_CELLS)
    few = data[:40].copy()
    first, latent = bare.get_latent_representation(few), model.get_latent_representation()
    np.testing.assert_allclose(first, latent[:40], atol=1e-5)
    assert bare.adata is None
    for refused in (bare.get_latent_representation, bare.train):
        with pytest.raises(RequestError, match="loaded without data"):
            refused()
    # A copy bears the mark of the cells that it was made of, and is asked about as itself.
    copy = few[::-1].copy()
    np.testing.assert_allclose(bare.get_latent_representation(copy), first[::-1], atol=1e-5)
    np.testing.assert_array_equal(bare.get_latent_representation(few), first)
    np.testing.assert_array_equal(bare.get_latent_representation(data), latent)
    assert len(bare._prepared) == 3
    bare.attach(data)
    np.testing.assert_array_equal(bare.get_latent_representation(), latent)


@pytest.mark.parametrize("kind", [MosaicVI, FactorVI])
def test_arguments_that_nothing_takes_are_refused(
    kind: type[MosaicVI | FactorVI], tmp_path: Path
) -> None:
    """Two prefixes in one folder would be one model."""
    data = small_mosaic(60)
    kind.setup_mudata(data, {"rna": "nb", "protein": "nb_mixture"})
    model, place = kind(data, 3), tmp_path / "m"
    with pytest.raises(RequestError, match=r"'prefix'.*a folder for each"):
        model.save(place, prefix="first")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="no argument 'overwritten'"):
        model.save(place, overwritten=True)
    with pytest.raises(RequestError, match=r"'compression'.*save_anndata=True"):
        model.save(place, compression="gzip")
    with pytest.raises(RequestError, match="no argument 'compressed'"):
        model.save(place, save_anndata=True, compressed="gzip")
    assert not place.exists()
    model.save(place, save_anndata=True, compression="gzip")
    with pytest.raises(RequestError, match=r"'prefix'.*a folder for each"):
        kind.load(place, prefix="first")  # type: ignore[arg-type]
    assert kind.load(place, accelerator="cpu").adata.n_obs == 60


def test_data_saved_with_the_model(model: MosaicVI, saved: Path, tmp_path: Path) -> None:
    model.save(tmp_path / "m", save_anndata=True)
    again = load(tmp_path / "m")
    assert_same_answer(answer(model, "protein", ["rna"]), answer(again, "protein", ["rna"]))
    with pytest.raises(FileError, match="holds no data"):
        load(saved)
    model.save(tmp_path / "m", overwrite=True)
    with pytest.raises(FileError, match="holds no data"):  # that of the earlier model is left alone
        load(tmp_path / "m")
    with pytest.raises(FileError, match="overwrite"):
        model.save(tmp_path / "m")


def test_a_tilde_is_the_users_folder(
    model: MosaicVI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in ``settings.data_dir``; a folder of that name is easily removed together with home."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    model.save("~/m", save_anndata=True)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    MosaicVI.view_setup_args("~/m")
    assert MosaicVI.load_registry("~/m")["model_name"] == "MosaicVI"
    again = load(Path("~/m"), mosaicvi.read_lazy("~/m/mdata.h5mu"))
    np.testing.assert_array_equal(
        again.get_latent_representation(), model.get_latent_representation()
    )


def test_data_on_disk_stay_those_of_their_file(saved: Path, tmp_path: Path) -> None:
    """Saving a copy of them does not make the user's MuData that of the copy."""
    small_mosaic(N_CELLS).write(tmp_path / "mine.h5mu")
    data = mudata.read_h5mu(tmp_path / "mine.h5mu", backed="r")
    model = load(saved, data)
    model.save(tmp_path / "m", save_anndata=True)
    assert Path(data.filename) == tmp_path / "mine.h5mu"
    # Once more, from the very file that is written.
    again = load(tmp_path / "m", mosaicvi.read_lazy(tmp_path / "m" / "mdata.h5mu"))
    again.save(tmp_path / "m", save_anndata=True, overwrite=True)
    for each in (again, load(tmp_path / "m")):
        np.testing.assert_array_equal(
            each.get_latent_representation(), model.get_latent_representation()
        )


def test_a_save_that_fails_does_not_give_the_model_other_cells(
    model: MosaicVI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = fit(build(small_mosaic(60, seed=5)), 1)
    earlier.save(tmp_path / "m", save_anndata=True)

    def disk_full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mudata, "write_h5mu", disk_full)
        with pytest.raises(OSError, match="No space"):
            model.save(tmp_path / "m", save_anndata=True, overwrite=True)
    np.testing.assert_array_equal(
        load(tmp_path / "m").get_latent_representation(), earlier.get_latent_representation()
    )


def test_loaded_model_trains_on(saved: Path) -> None:
    again = load(saved, small_mosaic(N_CELLS))
    fit(again, 2)
    assert again.fit_result.n_epochs == 2
    assert np.isfinite(again.get_latent_representation()).all()


def test_untrained_model(tmp_path: Path) -> None:
    build(small_mosaic(60)).save(tmp_path / "m")
    again = load(tmp_path / "m", small_mosaic(60))
    assert not again.is_trained
    fit(again, 1)


@pytest.mark.parametrize("fusion", ["mixture_of_experts", "product_of_experts"])
def test_every_kind_of_model_survives(tmp_path: Path, fusion: str) -> None:
    def data() -> MuData:
        genes = SimulatedModality.rna(70).names
        drawn = small_mosaic(120, panels={"rna": {"batch2": genes[:50]}})
        drawn.obs["site"] = np.where(np.arange(120) % 2 == 0, "x", "y")
        drawn.obs["age"] = np.linspace(20, 60, 120)
        drawn["rna"].obsm["E"] = np.random.default_rng(0).normal(size=(drawn["rna"].n_obs, 4))
        return drawn

    setup = {
        "categorical_covariate_keys": ["site"],
        "continuous_covariate_keys": ["age"],
        "panel_key": {"rna": "panel"},
    }
    modalities = {"rna": {"likelihood": "zinb", "representation": "E"}, "protein": "nb_mixture"}
    model = fit(build(data(), modalities, setup=setup, fusion=fusion), 2)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m", data())
    assert_same_answer(answer(model, "protein", ["rna"]), answer(again, "protein", ["rna"]))


def test_other_features_are_refused(saved: Path) -> None:
    data = small_mosaic(N_CELLS)
    lacking = make_mudata({"rna": data["rna"][:, 3:].copy(), "protein": data["protein"].copy()})
    with pytest.raises(MosaicviError, match=data["rna"].var_names[0]):
        load(saved, lacking)


def test_other_class_and_mixed_up_weights(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "m")
    meta = json.loads((tmp_path / "m/model.json").read_text())
    (tmp_path / "m/model.json").write_text(json.dumps({**meta, "class": "FactorVI"}))
    with pytest.raises(FileError, match="FactorVI"):
        load(tmp_path / "m", False)
    meta["module"]["n_latent"] = 7
    (tmp_path / "m/model.json").write_text(json.dumps(meta))
    with pytest.raises(FileError, match="do not fit"):
        load(tmp_path / "m", False)


def test_nothing_is_unpickled(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    load(saved, small_mosaic(N_CELLS))
    assert MosaicVI.load_registry(saved)["model_name"] == "MosaicVI"
    MosaicVI.view_setup_args(saved)
    with pytest.raises(RequestError, match="pickled"):
        MosaicVI.convert_legacy_save(saved, saved)
    (saved.parent / "foreign").mkdir(exist_ok=True)
    (saved.parent / "foreign/model.pt").write_bytes(b"x")
    for read in (MosaicVI.load_registry, MosaicVI.view_setup_args):
        with pytest.raises(FileError, match="pickle"):
            read(saved.parent / "foreign")


# --- models saved under another version of Python ----------------------------------------------

FIXTURE = Path(__file__).parents[1] / "data" / "saved_model"
OTHER = "MOSAICVI_SAVED_MODEL"
"""Folder of a model that :func:`write_fixture` wrote under another Python."""


def write_fixture(folder: Path) -> None:
    """Write the small model and the answers that it gave.

    From the repository's root: ``python -c "from pathlib import Path; from
    tests.integration.test_model_files import write_fixture; write_fixture(Path('folder'))"``.
    """
    model = fit(build(small_mosaic(80, n_genes=24, n_proteins=4), n_latent=3, n_hidden=8), 3)
    got = answer(model, "protein", ["rna"], indices=np.arange(12))
    model.save(folder, overwrite=True)
    expected = {name: torch.as_tensor(values) for name, values in layers(got).items()}
    expected["latent"] = torch.as_tensor(model.get_latent_representation())
    safetensors.torch.save_file(expected, folder / "expected.safetensors")


@pytest.mark.parametrize("place", ["committed", "environment"])
def test_model_saved_by_another_version(place: str) -> None:
    if place == "environment" and not os.environ.get(OTHER):
        pytest.skip(f"{OTHER} names no folder")
    folder = FIXTURE if place == "committed" else Path(os.environ[OTHER])
    model = load(folder, small_mosaic(80, n_genes=24, n_proteins=4))
    expected = safetensors.torch.load_file(folder / "expected.safetensors")
    np.testing.assert_allclose(model.get_latent_representation(), expected.pop("latent"), atol=1e-5)
    got = layers(answer(model, "protein", ["rna"], indices=np.arange(12)))
    # The answers are those of the present rules for that file, given by the other Python.
    for name in ("denoised",):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
    assert set(got) == set(expected)
    for name, values in got.items():
        # Counts are drawn: an entry may move where a rate differs in its last bit.
        close = np.isclose(values, expected[name], rtol=1e-4, atol=1e-4, equal_nan=True)
        assert close.mean() > 0.98, name


def test_data_that_a_file_cannot_hold_or_that_are_cut_off(model: MosaicVI, tmp_path: Path) -> None:
    parts = small_mosaic(40).mod
    slash = build(mudata.MuData({"a/b": parts["rna"], "c": parts["protein"]}), {"a/b": "nb"})
    with pytest.raises(RequestError, match=r"'save_anndata'.*'a/b'.*slash"):
        slash.save(tmp_path / "slash", save_anndata=True)
    slash.save(tmp_path / "slash")
    assert MosaicVI.load(tmp_path / "slash", slash.adata).module_spec.modalities.keys() == {"a/b"}
    model.save(tmp_path / "cut", save_anndata=True)
    file = tmp_path / "cut" / "mdata.h5mu"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(FileError, match=r"mdata\.h5mu is truncated or damaged"):
        load(tmp_path / "cut")


def test_asking_for_fields_of_scvi_tools_spoils_no_file(tmp_path: Path) -> None:
    """scvi-tools kept an empty field of any name asked for, with which no file could be loaded."""
    mdata = small_mosaic(80)
    model = fit(build(mdata), 1)
    for asked in (model, model.adata_manager, copy.deepcopy(model)):
        with pytest.raises(RequestError, match=r"no field 'batch'.*model\.batch_categories"):
            asked.get_state_registry("batch")
    assert model.adata_manager.summary_stats.n_batch == 2
    model.save(tmp_path / "m")
    again = MosaicVI.load(tmp_path / "m", mdata)
    np.testing.assert_array_equal(
        again.get_latent_representation(), model.get_latent_representation()
    )
