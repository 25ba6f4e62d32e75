"""Which cells lie where training cells held what is imputed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.fits import build, fit, small_mosaic
from tests.helpers import fingerprint, make_mudata

from mosaicvi import MosaicVI, tl
from mosaicvi._errors import RequestError
from mosaicvi.tl import _imputation_support

if TYPE_CHECKING:
    from mudata import MuData

KEY = "mosaicvi_support_protein"


@pytest.fixture(scope="module")
def model() -> MosaicVI:
    return fit(build(small_mosaic(300)), 3)


def test_it_is_the_naive_rank(model: MosaicVI) -> None:
    mdata = tl.imputation_support(model, "protein", copy=True)
    assert mdata is not None
    data = model._cells(None).data
    present = {name: part.present for name, part in data.modalities.items()}
    trained = np.zeros(data.n_cells, dtype=bool)
    trained[model.train_indices_] = True
    known = np.flatnonzero(present["rna"] & present["protein"] & trained)
    z = np.asarray(model.get_latent_representation(from_modalities=["rna"]), dtype=float)
    inputs = model._cells(None).dataset.encoder_inputs["rna"]
    read = np.full((data.n_cells, inputs.shape[1]), np.nan)
    read[present["rna"]] = inputs[data.modalities["rna"].rows[present["rna"]]]

    def distance(row: int, places: np.ndarray) -> float:
        others = [np.linalg.norm(places[row] - places[other]) for other in known if other != row]
        return float(np.log(np.mean(np.sort(others)[:5])))

    logs = {row: np.array([distance(row, z), distance(row, read)]) for row in known}
    table = np.array(list(logs.values()))

    def strangeness(row: int) -> float:
        log = np.array([distance(row, z), distance(row, read)])
        return float(((log - np.median(table, axis=0)) / table.std(axis=0)).max())

    usual = np.array([strangeness(row) for row in known])
    found = mdata.obs[KEY].to_numpy()
    assert np.isnan(found[~present["rna"]]).all()
    for row in np.flatnonzero(present["rna"])[::7]:
        far = (usual >= strangeness(row) - 1e-9).sum()
        assert found[row] == pytest.approx((far + 1) / (len(usual) + 1), abs=1.5 / len(usual))


def test_training_cells_are_evenly_spread(model: MosaicVI) -> None:
    mdata = tl.imputation_support(model, "protein", copy=True)
    assert mdata is not None
    data = model._cells(None).data
    both = data.modalities["rna"].present & data.modalities["protein"].present
    found = mdata.obs[KEY].to_numpy()[both]
    np.testing.assert_allclose(np.quantile(found, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.12)


def test_cells_like_none_have_none(model: MosaicVI, monkeypatch: pytest.MonkeyPatch) -> None:
    rna = small_mosaic(300)["rna"][:60].copy()
    rna.obs_names = [f"new{i}" for i in range(60)]
    query = make_mudata({"rna": rna})
    before = fingerprint(query)
    places = _imputation_support._places

    def elsewhere(of: MosaicVI, adata: MuData | None, *rest: Any) -> np.ndarray:
        found = places(of, adata, *rest)
        if adata is not None:
            found[:20] += 9.0
        return found

    monkeypatch.setattr(_imputation_support, "_places", elsewhere)
    found = tl.imputation_support(model, "protein", adata=query, copy=True)
    assert fingerprint(query) == before
    assert found is not None
    support = found.obs[KEY].to_numpy()
    assert (support[:20] < 0.02).all()
    assert np.median(support[20:]) > 0.2
    assert found.uns["mosaicvi"]["imputation_support"]["n_neighbours"] == 5


def test_what_a_network_hides_is_told(model: MosaicVI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that differ in what the encoder reads, and are placed among known ones."""
    rna = small_mosaic(300)["rna"][:60].copy()
    rna.obs_names = [f"new{i}" for i in range(60)]
    query = make_mudata({"rna": rna})
    scores = _imputation_support.own_scores

    def other(of: MosaicVI, adata: MuData | None, *rest: Any) -> np.ndarray:
        found = scores(of, adata, *rest)
        if adata is not None:
            found[:20, 0] += 20.0
        return found

    monkeypatch.setattr(_imputation_support, "own_scores", other)
    found = tl.imputation_support(model, "protein", adata=query, copy=True)
    assert found is not None
    support = found.obs[KEY].to_numpy()
    assert (support[:20] < 0.02).all()
    assert np.median(support[20:]) > 0.2


def test_cells_are_ranked_among_those_that_have_what_they_have() -> None:
    """A cell of one assay is not held against the larger of two distances."""
    rng = np.random.default_rng(0)
    usual = rng.normal(size=(4000, 3))
    usual[:2000, 2] = np.nan
    asked = rng.normal(size=(3000, 3))
    asked[:1500, 2] = np.nan
    support = _imputation_support._support(usual, asked)
    for part in (support[:1500], support[1500:]):
        np.testing.assert_allclose(np.quantile(part, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)


def test_a_cell_is_not_its_own_neighbour(model: MosaicVI) -> None:
    """Asked about in another MuData, a training cell gets what it gets in its own."""
    whole = tl.imputation_support(model, "protein", copy=True)
    assert whole is not None
    part = make_mudata({"rna": small_mosaic(300)["rna"].copy()})
    again = tl.imputation_support(model, "protein", adata=part, copy=True)
    assert again is not None
    np.testing.assert_allclose(again.obs[KEY], whole.obs[KEY].reindex(again.obs_names), atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"modality": "atac"}, "no modality 'atac'"),
        ({"modality": "protein", "from_modalities": ["atac"]}, "no modality 'atac'"),
        ({"modality": "protein", "from_modalities": ["protein"]}, "others than 'protein'"),
        ({"modality": "protein", "from_modalities": []}, "others than 'protein'"),
        ({"modality": "protein", "n_neighbours": 0}, "n_neighbours"),
        ({"modality": "protein", "n_neighbours": 400}, "alignment_confidence"),
    ],
)
def test_requests_are_refused_by_name(
    model: MosaicVI, words: dict[str, object], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        tl.imputation_support(model, **words)  # type: ignore[arg-type]


def test_cells_without_evidence_are_refused(model: MosaicVI) -> None:
    query = make_mudata({"protein": small_mosaic(300)["protein"].copy()})
    with pytest.raises(RequestError, match=r"no cell has any of \['rna'\]"):
        tl.imputation_support(model, "protein", adata=query)
