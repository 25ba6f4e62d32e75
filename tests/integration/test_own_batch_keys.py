"""Batch keys of one modality alone: what cells that lack it are answered for in."""

import numpy as np
import pytest
from mudata import MuData
from tests.fits import answer, assert_same_answer, build, fit, small_mosaic
from tests.helpers import make_mudata

from mosaicvi import MosaicVI

LIKELIHOODS = {"rna": "nb", "protein": "nb_mixture"}


def _stained(n_stains: int) -> MuData:
    mdata = small_mosaic(240)
    protein = mdata.mod["protein"]
    protein.obs["stain"] = [f"s{number % n_stains}" for number in range(protein.n_obs)]
    return mdata


def _model(n_stains: int) -> MosaicVI:
    keys = {"rna": "batch", "protein": "stain"}
    return fit(build(_stained(n_stains), LIKELIHOODS, batch_key=keys))


@pytest.mark.parametrize("n_stains", [1, 3])
def test_cells_without_a_batch_are_answered_for_in_those_that_measured(n_stains: int) -> None:
    """And not in a new one, of which nothing but the prior is known."""
    model = _model(n_stains)
    data = model._cells(None).data
    rna, protein = (data.modalities[name].present for name in ("rna", "protein"))
    cells, stains = np.flatnonzero(rna & ~protein), [f"s{number}" for number in range(n_stains)]
    assert len(cells) > 20
    own = answer(model, "protein", ["rna"], indices=cells)
    every = answer(model, "protein", ["rna"], indices=cells, transform_batch=stains)
    assert_same_answer(own, every)


def test_cells_with_a_batch_keep_it_beside_those_without() -> None:
    model = _model(2)
    data = model._cells(None).data
    stained = np.flatnonzero(data.modalities["protein"].present)[:30]
    lacking = np.flatnonzero(~data.modalities["protein"].present)[:30]
    alone = answer(model, "protein", ["rna"], indices=stained)
    together = answer(model, "protein", ["rna"], indices=np.concatenate([lacking, stained]))
    np.testing.assert_allclose(together.X[30:], alone.X, rtol=1e-4)


@pytest.mark.parametrize("stain", [None, "s1", "never seen"])
def test_a_query_states_the_batch_of_what_it_lacks(
    stain: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """In ``mdata.obs``: a known one, a new one, or none, which is announced."""
    model = _model(2)
    query = make_mudata({"rna": small_mosaic(240)["rna"][:40].copy()})
    query.obs_names = query.mod["rna"].obs_names
    if stain is not None:
        query.obs["stain"] = stain
    with caplog.at_level("INFO", logger="mosaicvi"):
        found = answer(model, "protein", ["rna"], adata=query)
    as_known = {
        names: answer(model, "protein", ["rna"], adata=query, transform_batch=list(names))
        for names in (("s0", "s1"), ("s1",))
    }
    same = {None: ("s0", "s1"), "s1": ("s1",)}
    told = [text for text in caplog.messages if "no batch is stated for 40 cells" in text]
    assert len(told) == (stain is None)
    if stain in same:
        np.testing.assert_allclose(found.X, as_known[same[stain]].X, rtol=1e-4)
    else:
        assert all(not np.allclose(found.X, each.X, rtol=0.02) for each in as_known.values())
