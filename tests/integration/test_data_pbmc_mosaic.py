"""The data layer on real cells."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import mudata
import numpy as np
import pytest
from tests.helpers import fingerprint, make_mudata

from mosaicvi.data import MosaicDataModule, build_manager

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def path(request: pytest.FixtureRequest) -> Path:
    require: Callable[[str], Path] = request.getfixturevalue("require_file")
    return require("quickstart_pbmc_mosaic.h5mu")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_real_mosaic(path: Path) -> None:
    mdata = mudata.read_h5mu(path)
    before = fingerprint(mdata)
    manager = build_manager(mdata, {"rna": "zinb", "adt": "nb_mixture"}, batch_key="batch")
    data = manager.data
    json.dumps(manager.registry, allow_nan=False)
    assert np.unique(data.patterns, return_counts=True)[1].tolist() == [400, 400, 800]
    assert data.modalities["rna"].batch_categories == ("p1_0", "p2_0", "p3_0", "p4_0")
    assert np.shares_memory(data.modalities["rna"].values.data, mdata.mod["rna"].X.data)
    module = MosaicDataModule(data, batch_size=128, seed=0)
    for batch in module.train_dataloader():
        assert 0.6 < len(batch.modalities["rna"].positions) / batch.n_cells < 0.9
    assert fingerprint(mdata) == before


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_real_query_without_protein(path: Path) -> None:
    mdata = mudata.read_h5mu(path)
    manager = build_manager(mdata, {"rna": "zinb", "adt": "nb_mixture"}, batch_key="batch")
    rna = mdata.mod["rna"]
    order = np.random.default_rng(0).permutation(rna.n_obs)
    query = make_mudata({"rna": rna[order].copy()})
    data = manager.transfer_fields(query).data
    assert data.presence.sum(axis=0).tolist() == [1200, 0]
    assert np.array_equal(data.modalities["rna"].values.toarray(), rna.X.toarray()[order])
