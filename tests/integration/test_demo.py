"""The command line: the demo on simulated cells, and imputation from files."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import anndata as ad
import mudata
import numpy as np
import pytest

from mosaicvi import datasets, tl
from mosaicvi.__main__ import main
from mosaicvi._demo import _cells
from mosaicvi._errors import DownloadError
from mosaicvi.bm._load import LOADERS
from mosaicvi.datasets import SimulatedModality


def test_demo_writes_a_table_a_file_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["demo", "--data", "simulated", "--epochs", "2", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert code == 0
    assert "a simulated CITE-seq sample" in said
    assert "hidden cells" in said
    for method in ("MosaicVI", "k nearest neighbours", "cell-type means"):
        assert method in said
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    figures = ["calibration.png", "gate.png", "history.png", "scatter.png", "violins.png"]
    assert written == sorted([*figures, "mosaic.h5mu"])
    for name in written:
        assert str(tmp_path / "out" / name) in said
    mdata = mudata.read_h5mu(tmp_path / "out" / "mosaic.h5mu")
    assert np.isfinite(mdata.obsm["X_mosaicvi"]).all()
    hidden = mdata.obs_names[mdata.obs["held_out"]]
    assert len(hidden) == 200
    assert not hidden.isin(mdata.mod["protein"].obs_names).any()
    answer = mdata.mod["protein_imputed"]
    assert hidden.isin(answer.obs_names).all()
    assert np.isfinite(answer[hidden].layers["log1p_mean"]).all()


def test_demo_says_why_cells_are_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable() -> None:
        raise DownloadError("no network")

    monkeypatch.setattr(_cells.datasets, "pbmc_mosaic", unreachable)
    cells = _cells.choose("auto", seed=0)
    assert not cells.is_real
    assert "no network" in cells.source


def test_impute_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mdata = datasets.simulate(
        200,
        {"rna": SimulatedModality.rna(40), "protein": SimulatedModality.protein()},
        patterns={"rna+protein": 1.0},
        seed=5,
    )
    mdata.mod["rna"][:30].copy().write_h5ad(tmp_path / "rna.h5ad")
    mdata.write_h5mu(tmp_path / "reference.h5mu")
    words = ["impute", "--rna", "rna.h5ad", "--reference", "reference.h5mu", "--out", "out.h5ad"]
    words = [str(tmp_path / w) if w.endswith(("h5ad", "h5mu")) else w for w in words]
    assert main([*words, "--epochs", "2", "--samples", "5"]) == 0
    assert "30 cells imputed from 40 of 40 shared genes" in capsys.readouterr().out
    protein = ad.read_h5ad(tmp_path / "out.h5ad")
    assert protein.shape == (30, mdata.mod["protein"].n_vars)


def test_what_is_refused_is_told_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing.h5mu")
    assert main(["impute", "--rna", "missing.h5ad", "--reference", missing, "--out", "y"]) == 2
    assert "missing.h5ad" in capsys.readouterr().err
    (tmp_path / "rna.h5ad").touch()
    rna = str(tmp_path / "rna.h5ad")
    assert main(["impute", "--rna", rna, "--reference", missing, "--out", "y"]) == 2
    assert capsys.readouterr().err


def test_files_are_looked_at_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*_: object, **__: object) -> None:
        raise AssertionError("asked for an answer")

    monkeypatch.setattr(tl, "impute_protein", trained)
    mdata = datasets.simulate(20, {"rna": SimulatedModality.rna(8)}, seed=5)
    mdata.write_h5mu(tmp_path / "all.h5mu")
    mdata.write_h5mu(tmp_path / "renamed.h5ad")
    mdata["rna"].copy().write_h5ad(tmp_path / "rna.h5ad")
    mdata["rna"].copy().write_h5ad(tmp_path / "renamed.h5mu")
    (tmp_path / "text.h5mu").write_text("no HDF5")
    good = {"--rna": "rna.h5ad", "--reference": "all.h5mu", "--out": "out.h5ad"}
    for option, value, said in [
        ("--rna", "all.h5mu", "'rna'.*an .h5ad file"),
        ("--rna", "renamed.h5ad", "holds a MuData"),
        ("--reference", "true_mean", "neither a dataset"),
        ("--reference", "renamed.h5mu", "holds no MuData"),
        ("--reference", "text.h5mu", "no HDF5 file"),
        ("--out", "nowhere/x/out.h5ad", "'out': no folder"),
        ("--out", "out.csv", "'out'.*ends in .h5ad"),
    ]:
        words = ["impute"]
        for key, name in {**good, option: value}.items():
            words += [key, name if name == "true_mean" else str(tmp_path / name)]
        assert main(words) == 2
        assert re.search(said, capsys.readouterr().err)


def test_every_loader_gives_a_mudata_and_every_dataset_is_one() -> None:
    others = {"SimulatedModality", "true_mean"}
    assert set(LOADERS) == set(datasets.__all__) - others
    for name in LOADERS:
        parameters = inspect.signature(getattr(datasets, name)).parameters.values()
        assert all(each.default is not each.empty for each in parameters)


@pytest.mark.parametrize(
    ("lost", "link"),
    [
        ("rna", None),
        ("rna", "symlink"),
        ("rna", "hard link"),
        ("reference", "symlink"),
        ("reference", "hard link"),
    ],
)
def test_inputs_are_not_written_over(
    lost: str,
    link: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mdata = datasets.simulate(20, {"rna": SimulatedModality.rna(8)}, seed=5)
    files = {"rna": tmp_path / "rna.h5ad", "reference": tmp_path / "all.h5mu"}
    mdata["rna"].copy().write_h5ad(files["rna"])
    mdata.write_h5mu(files["reference"])
    before = files[lost].read_bytes()
    out = tmp_path / "out.h5ad"
    if link is None:
        monkeypatch.chdir(tmp_path)
        out = Path("rna.h5ad")  # another spelling of the path
    elif link == "symlink":
        out.symlink_to(files[lost])
    else:
        out.hardlink_to(files[lost])
    words = ["impute", "--rna", str(files["rna"]), "--reference", str(files["reference"])]
    assert main([*words, "--out", str(out), "--epochs", "1"]) == 2
    assert re.search(f"'out'.*the file of --{lost}, which would be lost", capsys.readouterr().err)
    assert files[lost].read_bytes() == before
