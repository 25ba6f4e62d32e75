"""What ``build_atlas`` keeps of the assays, and that a file can hold it."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.disk import on_disk
from tests.fits import QUIET
from tests.helpers import PROTEINS, cell_names, counts_modality, fingerprint, make_mudata

from mosaicvi import MosaicviWarning, tl

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

SMALL = {
    "likelihoods": {"rna": "nb"},
    "model_kwargs": {"n_latent": 3, "n_hidden": 8},
    "train_kwargs": {"max_epochs": 1, **QUIET},
}


@pytest.fixture
def assays() -> dict[str, AnnData]:
    """RNA of the first 60 of 80 cells, protein of the last 60, with tables of every kind."""
    cells = cell_names(80)
    found = {
        "rna": counts_modality(cells[:60], [f"GENE{i}" for i in range(12)]),
        "protein": counts_modality(cells[20:], PROTEINS, seed=1),
    }
    for name, part in found.items():
        rng = np.random.default_rng(0)
        part.obs["batch"] = ["one", "two"] * 30
        part.obsm["X_pca"] = rng.normal(size=(60, 2))
        part.obsm["table"] = pd.DataFrame({"a": rng.normal(size=60)}, index=part.obs_names)
        part.varm["PCs"] = rng.normal(size=(part.n_vars, 2))
        part.obsp["distances"] = sp.random(60, 60, 0.1, format="csr", random_state=0)
        part.varp["correlation"] = np.eye(part.n_vars)
        part.uns["hvg"] = {"flavor": name, "nested": {"n": 3}}
        part.layers["logged"] = part.X.log1p()
    return found


def test_tables_of_the_assays_are_kept(assays: dict[str, AnnData], tmp_path: Path) -> None:
    before = fingerprint(make_mudata({name: part.copy() for name, part in assays.items()}))
    mdata, model = tl.build_atlas(assays, batch_key="batch", **SMALL)
    after = fingerprint(mdata)
    kept = [slot for slot in before if slot.startswith("mod/") and not slot.endswith("/uns")]
    assert len(kept) > 20
    assert {slot: after[slot] for slot in kept} == {slot: before[slot] for slot in kept}
    for name in assays:
        assert mdata.mod[name].uns["hvg"] == {"flavor": name, "nested": {"n": 3}}
        mdata.mod[name].uns["hvg"]["nested"]["n"] = 4
        del mdata.mod[name].obsm["X_pca"]
        assert assays[name].uns["hvg"]["nested"]["n"] == 3
        assert "X_pca" in assays[name].obsm
    mdata.write(tmp_path / "atlas.h5mu")
    read = mudata.read_h5mu(tmp_path / "atlas.h5mu")
    np.testing.assert_array_equal(read.mod["rna"].varm["PCs"], assays["rna"].varm["PCs"])
    assert model.is_trained


@pytest.mark.parametrize("kind", ["backed", "lazy"])
def test_tables_of_assays_on_disk_are_kept(
    kind: str, assays: dict[str, AnnData], tmp_path: Path
) -> None:
    opened = on_disk(make_mudata(assays), tmp_path, kind)
    mdata, _ = tl.build_atlas(dict(opened.mod), batch_key="batch", **SMALL)
    for name, part in assays.items():
        np.testing.assert_array_equal(mdata.mod[name].obsm["X_pca"], part.obsm["X_pca"])
        assert set(mdata.mod[name].obsp) == {"distances"}


def test_columns_of_one_assay_or_of_mixed_types_can_be_stored(
    assays: dict[str, AnnData], tmp_path: Path
) -> None:
    rna, protein = assays["rna"].obs, assays["protein"].obs
    rna["doublet"] = [True, False] * 30
    rna["n"], protein["n"] = 1, 2
    rna["lane"], protein["lane"] = [1.0, 2.0] * 30, [f"L{i % 3}" for i in range(60)]
    rna["score"] = 0.5
    rna["day"] = datetime.date(2026, 1, 2)
    for key in ("lane", "day"):  # of cells that both have, one says it
        protein.loc[protein.index.isin(rna.index), key] = None
    mdata, _ = tl.build_atlas(assays, batch_key="lane", **SMALL)
    for part in mdata.mod.values():
        part.obs = part.obs.drop(columns=["day"], errors="ignore")
    mdata.write(tmp_path / "atlas.h5mu")
    obs = mudata.read_h5mu(tmp_path / "atlas.h5mu").obs
    only_protein = ~obs.index.isin(rna.index)
    assert obs["doublet"].isna().tolist() == only_protein.tolist()
    assert obs.loc[rna.index, "doublet"].astype(bool).tolist() == rna["doublet"].tolist()
    assert set(obs["n"]) == {1, 2}
    assert obs["n"].dtype.kind == "i"
    assert set(obs["lane"]) == {"1", "2", "L0", "L1", "L2"}
    assert obs["lane"].astype(str).tolist() == obs["atlas_batch"].astype(str).tolist()
    assert obs.loc[rna.index, "score"].eq(0.5).all()
    assert set(obs["day"].dropna()) == {"2026-01-02"}


def test_cells_that_are_only_numbered_are_told_of(assays: dict[str, AnnData]) -> None:
    """AnnData without names numbers its cells, and other cells had been pairs without a word."""
    for part in assays.values():
        part.obs_names = [str(number) for number in range(part.n_obs)]
    with pytest.warns(MosaicviWarning, match="named 0, 1, ....*protein.obs_names = 'protein-'"):
        tl.build_atlas(assays, **SMALL)
