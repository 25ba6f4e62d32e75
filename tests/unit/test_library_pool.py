"""Library sizes that answers draw: those of all cells that were measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tests.fits import QUIET, answer
from tests.helpers import cell_names, counts_modality, make_mudata

from mosaicvi import MosaicVI
from mosaicvi.model import _libraries
from mosaicvi.model._libraries import library_pools

N_CELLS = 90

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore:Trying to query inferred values"),
]


def sparse_model(likelihood: str, *, panel: bool = False) -> MosaicVI:
    """Cells of which a third holds no count of ``x``."""
    cells = cell_names(N_CELLS)
    batch = {cell: "ab"[number % 2] for number, cell in enumerate(cells)}
    of_x = counts_modality(cells, [f"x{i}" for i in range(10)], seed=4, mean=0.1, batch=batch)
    if likelihood == "bernoulli":
        of_x.X = (of_x.X > 0).astype(np.float32)
    if panel:
        table = pd.DataFrame(True, index=of_x.var_names, columns=["a", "b"])
        table.iloc[:3, 1] = False
        of_x.varm["panel"] = table
        dense = of_x.X.toarray()
        dense[1::2, :3] = 0
        of_x.X = type(of_x.X)(dense)
    mdata = make_mudata({"rna": counts_modality(cells, seed=1, batch=batch), "x": of_x})
    MosaicVI.setup_mudata(
        mdata,
        {"rna": "nb", "x": likelihood},
        batch_key={"x": "batch"},
        panel_key={"x": "panel"} if panel else None,
    )
    return MosaicVI(mdata, n_latent=3, n_hidden=8, n_layers=1)


def test_cells_without_a_count_are_measured_too() -> None:
    model = sparse_model("poisson")
    modality = model.adata_manager.data.modalities["x"]
    assert (modality.library_size == 0).mean() > 0.2
    pool = library_pools(model.adata_manager.data)["x"]
    sizes, batches = pool.sizes, pool.batches
    for code in (0, 1):
        expected = modality.library_size[modality.batch == code]
        np.testing.assert_array_equal(np.sort(sizes[batches == code]), np.sort(expected))


def test_totals_of_answers_are_those_of_the_cells() -> None:
    model = sparse_model("poisson")
    model.train(1, **QUIET)
    drawn = model.posterior_predictive_sample("x", from_modalities=["rna"], n_samples=50)
    true = np.asarray(model.adata["x"].X.sum(1)).mean()
    # Sizes of cells with counts alone would give half as much again.
    assert drawn.sum(2).mean() == pytest.approx(true, rel=0.15)


@pytest.mark.parametrize("panel", [False, True], ids=["all", "panel"])
@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson", "bernoulli"])
def test_answers_of_empty_cells_are_finite(likelihood: str, panel: bool) -> None:
    model = sparse_model(likelihood, panel=panel)
    pool = model.library_pool["x"]
    model.library_pool["x"] = replace(pool, sizes=np.zeros_like(pool.sizes))
    imputed = answer(model, "x", ["rna"])
    for values in (imputed.X, *(imputed.layers[name] for name in imputed.layers)):
        values = np.asarray(values)
        assert np.isfinite(values).all()
        assert np.abs(values).max() < 1e-4
    expected = model.get_normalized_expression("x", from_modalities=["rna"], n_samples=3)
    assert np.isfinite(np.asarray(expected)).all()


def test_of_many_batches_each_has_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sparse_model("poisson")
    monkeypatch.setattr(_libraries, "MOST_KEPT", 60)
    monkeypatch.setattr(_libraries, "LEAST_POOL", 10)
    pool = library_pools(model.adata_manager.data)["x"]
    np.testing.assert_array_equal(np.bincount(pool.batches), [30, 30])
    monkeypatch.setattr(_libraries, "LEAST_POOL", 40)
    assert len(library_pools(model.adata_manager.data)["x"].sizes) == 80
