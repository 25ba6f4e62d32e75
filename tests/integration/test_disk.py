"""Setup, training and answers of values on disk: the same as in memory, a few rows at a time."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import mudata
import numpy as np
import pytest
import scvi
import torch
from tests.disk import KINDS, on_disk, watched
from tests.helpers import PROTEINS, fingerprint, mosaic

import mosaicvi
from mosaicvi import BlockShuffle, MosaicVI, tl
from mosaicvi._errors import DataError
from mosaicvi.model._posterior import LONG_ANSWER, MAX_CHUNK_CELLS

if TYPE_CHECKING:
    from pathlib import Path

BOTH = {"rna": "nb", "protein": "nb_mixture"}
BLOCKS = BlockShuffle(block_cells=8, window_cells=64)

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def pbmc() -> mudata.MuData:
    return mosaicvi.datasets.pbmc_mosaic()


def fitted(
    mdata: mudata.MuData, *, epochs: int = 2, blocks: BlockShuffle | None = BLOCKS
) -> MosaicVI:
    MosaicVI.setup_mudata(mdata, BOTH, batch_key="batch")
    model = MosaicVI(mdata, n_latent=8, n_hidden=32)
    model.train(
        epochs,
        accelerator="cpu",
        enable_progress_bar=False,
        datasplitter_kwargs={"blocks": blocks},
    )
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_from_disk_is_that_in_memory(kind: str, tmp_path: Path) -> None:
    if kind in {"zarr", "dask"}:
        pytest.importorskip("zarr")
    if kind == "dask":
        pytest.importorskip("dask")
    memory = fitted(mosaic(300))
    disk = fitted(on_disk(mosaic(300), tmp_path, kind))
    for name, tensor in memory.module.state_dict().items():
        assert torch.equal(tensor, disk.module.state_dict()[name]), name
    for key, frame in memory.history.items():
        np.testing.assert_array_equal(frame.to_numpy(), disk.history[key].to_numpy())
    np.testing.assert_array_equal(
        memory.get_latent_representation(), disk.get_latent_representation()
    )
    ours, theirs = (
        model.impute("protein", from_modalities=["rna"], n_samples=5) for model in (memory, disk)
    )
    np.testing.assert_array_equal(ours.X, theirs.X)
    np.testing.assert_array_equal(ours.var["imputability"], theirs.var["imputability"])
    assert memory.get_elbo() == disk.get_elbo()


def test_real_cells_from_disk(pbmc: mudata.MuData, tmp_path: Path) -> None:
    disk = fitted(on_disk(pbmc, tmp_path, "lazy"), blocks=None)
    assert disk.adata_manager.data.on_disk
    latent = disk.get_latent_representation()
    assert np.isfinite(latent).all()
    again = fitted(on_disk(pbmc, tmp_path, "lazy"), blocks=None)
    np.testing.assert_array_equal(latent, again.get_latent_representation())


def test_nothing_reads_more_than_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mdata = on_disk(mosaic(9000), tmp_path, "lazy")
    monkeypatch.setattr("mosaicvi.data._rows.BLOCK_BYTES", 20_000)
    monkeypatch.setattr("mosaicvi.data._rows.GAP_BYTES", 1_000)
    monkeypatch.setattr("mosaicvi.model._inputs.MAX_FIT_VALUES", 6_000)
    monkeypatch.setattr("mosaicvi.model._inputs.MIN_FIT_CELLS", 200)
    monkeypatch.setattr("mosaicvi.model._inputs.MAX_FIT_CELLS", 500)
    monkeypatch.setattr("mosaicvi.nn._cross_regression.MAX_PAIRED_CELLS", 500)
    monkeypatch.setattr("mosaicvi.nn._projection.PROJECTED_CELLS", 256)
    with watched(monkeypatch) as reads:
        model = fitted(mdata, blocks=BlockShuffle(16, 256))
        model.get_latent_representation()
        model.impute("protein", from_modalities=["rna"], n_samples=5)
        model.get_elbo()
    assert reads
    assert max(reads) <= MAX_CHUNK_CELLS


def test_latent_space_reads_no_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(on_disk(mosaic(300), tmp_path, "lazy"))
    model.get_latent_representation()
    with watched(monkeypatch) as reads:
        model.get_latent_representation()
        model.get_normalized_expression("rna")
    assert reads == []


def test_a_saved_model_answers_from_disk(tmp_path: Path) -> None:
    model = fitted(mosaic(300))
    model.save(tmp_path / "model")
    disk = on_disk(mosaic(300), tmp_path, "lazy")
    loaded = MosaicVI.load(tmp_path / "model", disk, accelerator="cpu")
    np.testing.assert_array_equal(
        model.get_latent_representation(), loaded.get_latent_representation()
    )


def test_features_in_another_order_on_disk(tmp_path: Path) -> None:
    model = fitted(mosaic(300))
    other = mosaic(300)
    other.mod["rna"] = other.mod["rna"][:, ::-1].copy()
    other.mod["rna"].X = other.mod["rna"].X.tocsr()
    other.update()
    expected = model.get_latent_representation(other)
    disk = on_disk(other, tmp_path, "lazy")
    np.testing.assert_array_equal(model.get_latent_representation(disk), expected)


def test_setup_changes_nothing_of_a_file(tmp_path: Path) -> None:
    mdata = on_disk(mosaic(60), tmp_path, "lazy")
    content = (tmp_path / "mosaic.h5mu").read_bytes()
    MosaicVI.setup_mudata(mdata, BOTH, batch_key="batch")
    assert (tmp_path / "mosaic.h5mu").read_bytes() == content
    # What is read lazily is what was written.
    assert fingerprint(mudata.read_h5mu(tmp_path / "mosaic.h5mu"))["mod/rna/X"]
    assert list(mdata.mod["protein"].var_names) == list(PROTEINS)


def test_reading_lazily_keeps_cells_and_tables(tmp_path: Path) -> None:
    mdata = mosaic(60)
    mdata.obs["donor"] = [f"d{i % 3}" for i in range(mdata.n_obs)]
    mdata.mod["rna"].layers["counts"] = mdata.mod["rna"].X.copy()
    mdata.mod["rna"].obsm["X_pca"] = np.ones((mdata.mod["rna"].n_obs, 2))
    opened = on_disk(mdata, tmp_path, "lazy")
    assert list(opened.obs_names) == list(mdata.obs_names)
    assert list(opened.obs["donor"]) == list(mdata.obs["donor"])
    assert list(opened.mod) == list(mdata.mod)
    for name in mdata.mod:
        np.testing.assert_array_equal(opened.obsmap[name], mdata.obsmap[name])
    assert opened.mod["rna"].obsm["X_pca"].shape == (40, 2)
    layer = opened.mod["rna"].layers["counts"]
    assert not hasattr(layer, "toarray")
    np.testing.assert_array_equal(layer[:5].toarray(), mdata.mod["rna"].X[:5].toarray())


@pytest.mark.parametrize(("verbosity", "shown"), [(logging.INFO, True), (logging.WARNING, False)])
def test_long_answers_show_scvi_tools_bars(
    verbosity: int,
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = fitted(mosaic(300))
    monkeypatch.setattr("mosaicvi.model._posterior.LONG_ANSWER", 1)
    before = scvi.settings.verbosity, scvi.settings.progress_bar_style
    try:
        scvi.settings.verbosity, scvi.settings.progress_bar_style = verbosity, "tqdm"
        model.get_latent_representation()
    finally:
        scvi.settings.verbosity, scvi.settings.progress_bar_style = before
    assert ("chunks of cells" in capsys.readouterr().out) == shown


def test_places_of_many_cells_are_a_long_answer() -> None:
    # 100,000 cells are no quick answer where values have to be read for it.
    assert 100_000 / MAX_CHUNK_CELLS >= LONG_ANSWER


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_with_answers_shares_the_values_on_disk(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind in {"zarr", "dask"}:
        pytest.importorskip("zarr")
    if kind == "dask":
        pytest.importorskip("dask")
    data = mosaic(90)
    data.mod["protein"].X = data.mod["protein"].X.toarray()  # dense arrays have no copy there
    data.mod["rna"].obs["mine"] = np.resize(["x", "y"], data.mod["rna"].n_obs)
    mdata = on_disk(data, tmp_path, kind)
    model = fitted(mdata)
    with watched(monkeypatch) as reads:
        copied = tl.alignment_confidence(model, copy=True)
        labelled = tl.transfer_labels(model, "mine", source="rna", target="protein", copy=True)
    assert reads == []
    assert "mosaicvi_alignment_confidence" in copied.obs
    assert "mosaicvi_mine" in labelled.obs
    assert not {"mosaicvi_alignment_confidence", "mosaicvi_mine"} & set(mdata.obs)
    assert list(copied.obs_names) == list(mdata.obs_names)
    assert type(copied.mod["rna"].X) is type(mdata.mod["rna"].X)
    copied.mod["rna"].obs["theirs"] = 1
    assert "theirs" not in mdata.mod["rna"].obs
    np.testing.assert_array_equal(
        model.get_latent_representation(copied), model.get_latent_representation()
    )


@pytest.mark.parametrize("kind", ["memory", "backed", "lazy"])
def test_changed_cells_are_asked_about_as_the_message_says(kind: str, tmp_path: Path) -> None:
    mdata = mosaic(90) if kind == "memory" else on_disk(mosaic(90), tmp_path, kind)
    model = fitted(mdata)
    for part in mdata.mod.values():
        part.obs_names = "new:" + part.obs_names
    mdata.update()
    with pytest.raises(DataError, match="changed after") as caught:
        model.get_latent_representation()
    remedies = re.findall(r"adata=([\w.]+\([^,]*?(?:\), obs=mdata.obs)?\))", str(caught.value))
    assert remedies == ["mdata.copy()", "mudata.MuData(dict(mdata.mod), obs=mdata.obs)"]
    for remedy in remedies if kind == "memory" else remedies[1:]:
        other = eval(remedy, {"mudata": mudata, "mdata": mdata})
        assert np.isfinite(model.get_latent_representation(other)).all()


@pytest.mark.parametrize("kind", ["backed", "lazy", "zarr"])
def test_counts_in_layers_alone_are_read_from_disk(kind: str, tmp_path: Path) -> None:
    """An AnnData may have no X; what is written of it is no matrix."""
    if kind == "zarr":
        pytest.importorskip("zarr")
    mdata = mosaic(80)
    memory = fitted(mdata, epochs=1).get_latent_representation()
    for adata in mdata.mod.values():
        adata.layers["counts"], adata.X = adata.X, None
    opened = on_disk(mdata, tmp_path, kind)
    np.testing.assert_array_equal(fitted(opened, epochs=1).get_latent_representation(), memory)
