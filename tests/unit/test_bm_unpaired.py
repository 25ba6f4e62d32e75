"""The imputation comparison with training cells that share no pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from mosaicvi._errors import RequestError
from mosaicvi.bm import Imputation
from mosaicvi.bm.__main__ import main
from mosaicvi.bm._input import BATCH, NO_TYPE, TYPE, ImputationInput
from mosaicvi.bm._load import quiet_mudata
from mosaicvi.bm._runner import read_records
from mosaicvi.bm.methods import TABLE, UNPAIRED, defaults, get

if TYPE_CHECKING:
    from pathlib import Path

LINKED = {"CD3": "CD3E", "CD4": "CD4", "CD19": "CD19", "CD56": "NCAM1", "PD-1": "PDCD1"}
N_CELLS = 400


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four types; a protein follows its gene."""
    rng = np.random.default_rng(0)
    types = rng.integers(4, size=N_CELLS)
    levels = rng.normal(size=(4, 40))
    rate = np.exp(levels[types] + 0.2 * rng.normal(size=(N_CELLS, 40)) + 1.0)
    names = [f"cell{i}" for i in range(N_CELLS)]
    genes = [*LINKED.values(), *(f"GENE{i}" for i in range(35))]
    obs = pd.DataFrame(index=names)
    with quiet_mudata():
        mdata = mudata.MuData(
            {
                "rna": AnnData(
                    sp.csr_matrix(rng.poisson(rate), dtype=np.float32),
                    obs,
                    pd.DataFrame(index=genes),
                ),
                "protein": AnnData(
                    sp.csr_matrix(rng.poisson(20 * rate[:, : len(LINKED)]), dtype=np.float32),
                    obs,
                    pd.DataFrame(index=list(LINKED)),
                ),
            }
        )
    mdata.obs["celltype"] = types.astype(str)
    path = tmp_path_factory.mktemp("bm") / "cells.h5mu"
    with quiet_mudata():
        mdata.write_h5mu(path)
    return str(path)


def test_training_cells_lose_their_pairing_and_nothing_else(file: str) -> None:
    plain = Imputation(data=file, hide=0.25).task(3)
    task = Imputation(data=file, hide=0.25, unpaired=True).task(3)
    seen, told = task.public, task.told
    assert told is not None
    assert seen.query == told.query == plain.public.query
    np.testing.assert_array_equal(task.truth.measured, plain.truth.measured)
    assert seen.paired == ()
    rna, protein = (set(seen.mdata[name].obs_names) for name in ("rna", "protein"))
    assert not rna & protein
    assert rna - set(seen.query) | protein == set(plain.public.paired)
    assert abs(len(rna) - len(seen.query) - len(protein)) <= 1
    # The ceiling has the same cells and the same proteins, with the RNA of their cells.
    assert set(told.mdata.obs_names) == set(seen.mdata.obs_names)
    assert set(told.paired) == protein
    assert seen.measured == told.measured
    assert told.graph is None
    assert seen.graph is not None
    assert seen.graph.n_edges == len(LINKED)
    assert set(seen.labels(TYPE, seen.measured)) == {NO_TYPE}
    assert set(seen.labels(BATCH, seen.measured)) == set(told.labels(BATCH, told.measured))
    again = Imputation(data=file, hide=0.25, unpaired=True).task(3)
    assert again.public.measured == seen.measured


def test_only_methods_that_need_pairs_are_told_them(file: str, tmp_path: Path) -> None:
    task = Imputation(data=file, hide=0.25, unpaired=True).task(0)
    for method in TABLE:
        folder = tmp_path / method
        folder.mkdir()
        task.write_input(folder, options={}, method=method)
        given = ImputationInput.read(folder)
        needs_pairs = method not in UNPAIRED
        assert (len(given.paired) > 0) == given.ceiling == needs_pairs
        assert (given.graph is None) == needs_pairs
    knn = get("knn")(ImputationInput.read(tmp_path / "knn"))
    assert knn.kind == "ceiling"


def test_neighbours_in_linked_features_impute_and_the_marginal_does_not(file: str) -> None:
    task = Imputation(data=file, hide=0.25, unpaired=True, n_draws=20).task(1)
    log1p = np.log1p(task.truth.measured)
    error = {}
    for name in ("marginal", "linked_neighbours"):
        runner = get(name)(task.public.with_options({"n_neighbours": 10}))
        runner.fit()
        answer = runner.predict()[""]
        assert answer.draws.shape == (20, *log1p.shape)
        error[name] = np.sqrt(np.mean((answer.mean - log1p) ** 2))
        # Draws are values of training cells, and all features of a draw come from one of them.
        known = {
            tuple(row) for row in task.public.counts("protein", task.public.measured).toarray()
        }
        assert {tuple(np.rint(row)) for row in answer.draws[:, 0]} <= known
    assert error["linked_neighbours"] < 0.85 * error["marginal"]
    plain = Imputation(data=file, hide=0.25).task(1)
    with pytest.raises(RequestError, match="graph"):
        get("linked_neighbours")(plain.public).fit()


def test_defaults_suit_the_comparison(file: str) -> None:
    assert set(defaults(unpaired=True)) == UNPAIRED | {"mosaicvi_paired"}
    assert "linked_neighbours" not in defaults(unpaired=False)
    with pytest.raises(RequestError, match="noise"):
        Imputation(data=file, hide=0.25, unpaired=True, noise=5)


def test_command_line(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["imputation", "--data", file, "--hide", "0.25", "--unpaired", "--seeds", "1"]
    words += ["--methods", "marginal,knn", "--draws", "20", "--out", str(tmp_path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"imputation, {file}, unpaired")
    assert "knn (ceiling)" in printed
    assert "marginal (trivial)" in printed
    (record,) = read_records(next(tmp_path.glob("knn-*unpaired-seed1.json")))
    assert record["settings"]["unpaired"] is True
    assert 0 < record["scores"]["pit_distance"]["mean"] < 1
