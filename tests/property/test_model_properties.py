"""Answers belong to cells: not to their order, their company or the size of a chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fits import answer, assert_same_answer, build, fit, layers, small_mosaic
from tests.helpers import make_mudata

from mosaicvi.model import _posterior

if TYPE_CHECKING:
    from collections.abc import Callable

    from mudata import MuData

    from mosaicvi import MosaicVI

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")

N_CELLS = 90
FEW = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module", params=["product_of_experts", "mixture_of_experts"])
def model(request: pytest.FixtureRequest) -> MosaicVI:
    return fit(build(small_mosaic(N_CELLS), fusion=request.param), 3)


GETTERS: dict[str, Callable[[MosaicVI, Any], np.ndarray]] = {
    "latent": lambda m, d: m.get_latent_representation(d),
    "draw": lambda m, d: m.get_latent_representation(d, give_mean=False),
    "variance": lambda m, d: m.get_latent_representation(d, return_dist=True)[1],
    "from rna": lambda m, d: m.get_latent_representation(d, from_modalities=["rna"]),
    "normalized": lambda m, d: m.get_normalized_expression("rna", adata=d).to_numpy(),
    "foreground": lambda m, d: m.get_protein_foreground_probability(adata=d).to_numpy(),
    "sample": lambda m, d: m.posterior_predictive_sample("protein", adata=d, n_samples=2)[1],
    "imputed": lambda m, d: answer(m, "protein", ["rna"], adata=d).X,
    "q95": lambda m, d: answer(m, "rna", ["protein"], adata=d).layers["q95"],
    "contribution": lambda m, d: m.get_modality_contribution(d).to_numpy(),
}


def reordered(data: MuData, seed: int, *, reverse: bool) -> MuData:
    """Modalities, and the cells of each, in another order."""
    rng = np.random.default_rng(seed)
    names = list(data.mod)[::-1] if reverse else list(data.mod)
    return make_mudata({n: data[n][rng.permutation(data[n].n_obs)].copy() for n in names})


@pytest.mark.parametrize("name", GETTERS)
@pytest.mark.parametrize("reverse", [False, True])
def test_exactly_equivariant_to_order(model: MosaicVI, name: str, reverse: bool) -> None:
    other = reordered(small_mosaic(N_CELLS), 5, reverse=reverse)
    places = other.obs_names.get_indexer(model.adata.obs_names)
    assert not (places == np.arange(N_CELLS)).all()
    getter = GETTERS[name]
    np.testing.assert_array_equal(getter(model, other)[places], getter(model, None))


@FEW
@given(seed=st.integers(0, 1000))
def test_order_of_indices(model: MosaicVI, seed: int) -> None:
    rows = np.random.default_rng(seed).permutation(N_CELLS)
    whole = answer(model, "protein", ["rna"])
    assert_same_answer(answer(model, "protein", ["rna"], indices=rows), whole[rows])
    assert model.get_elbo(indices=rows) == pytest.approx(model.get_elbo(), rel=1e-6)


@FEW
@given(rows=st.lists(st.integers(0, N_CELLS - 1), min_size=1, max_size=12, unique=True))
def test_which_other_cells_are_asked_for_changes_nothing(model: MosaicVI, rows: list[int]) -> None:
    whole = layers(answer(model, "protein", ["rna"]))
    evidence = answer(model, "protein", ["rna"]).obs["evidence"].to_numpy()
    rows = [row for row in rows if evidence[row]] or [int(np.flatnonzero(evidence)[0])]
    part = layers(answer(model, "protein", ["rna"], indices=rows))
    for name, values in part.items():
        # counts are drawn: one may move where its rate differs in the last bit
        close = np.isclose(values, whole[name][rows], rtol=1e-3, atol=1e-3)
        assert close.mean() > 0.97, name
    np.testing.assert_allclose(part["denoised"], whole["denoised"][rows], rtol=1e-3)


@pytest.mark.parametrize("n_cells", [1, 7, 64])
def test_chunks_change_nothing(
    model: MosaicVI, monkeypatch: pytest.MonkeyPatch, n_cells: int
) -> None:
    whole = layers(answer(model, "rna", ["protein"]))
    latent = model.get_latent_representation()
    monkeypatch.setattr(_posterior, "MAX_CHUNK_CELLS", n_cells)
    monkeypatch.setattr(
        _posterior.PosteriorSampler, "chunk_size", lambda self, n_samples, n_features: n_cells
    )
    part = layers(answer(model, "rna", ["protein"]))
    for name, values in part.items():
        close = np.isclose(values, whole[name], rtol=1e-3, atol=1e-3, equal_nan=True)
        assert close.mean() > 0.97, name
    np.testing.assert_allclose(part["denoised"], whole["denoised"], rtol=1e-3)
    np.testing.assert_allclose(model.get_latent_representation(), latent, atol=1e-5)


@pytest.mark.parametrize("lacking", ["rna", "protein"])
def test_masking_a_modality_equals_not_having_it(model: MosaicVI, lacking: str) -> None:
    data = small_mosaic(N_CELLS)
    kept = next(name for name in data.mod if name != lacking)
    query = make_mudata({kept: data[kept].copy()})
    rows = model.adata.obs_names.get_indexer(query.obs_names)
    masked, variance = model.get_latent_representation(
        indices=rows, from_modalities=[kept], return_dist=True
    )
    alone, alone_variance = model.get_latent_representation(query, return_dist=True)
    np.testing.assert_allclose(masked, alone, atol=1e-5)
    np.testing.assert_allclose(variance, alone_variance, atol=1e-5)
    masked_draw = model.get_latent_representation(
        indices=rows, from_modalities=[kept], give_mean=False
    )
    np.testing.assert_allclose(
        masked_draw, model.get_latent_representation(query, give_mean=False), atol=1e-5
    )


@FEW
@given(seed=st.integers(0, 10_000))
def test_scale_of_hidden_modalities_does_not_leak(model: MosaicVI, seed: int) -> None:
    """Evidence not named in from_modalities has no say, whatever its values."""
    data = small_mosaic(N_CELLS)
    rng = np.random.default_rng(seed)
    data["protein"].X = type(data["protein"].X)(
        rng.poisson(rng.integers(1, 300), data["protein"].shape).astype(np.float32)
    )
    np.testing.assert_array_equal(
        model.get_latent_representation(data, from_modalities=["rna"]),
        model.get_latent_representation(from_modalities=["rna"]),
    )


@FEW
@given(seed=st.integers(0, 10_000), other=st.integers(0, 10_000))
def test_seeds(model: MosaicVI, seed: int, other: int) -> None:
    def draw(number: int) -> np.ndarray:
        return model.posterior_predictive_sample("protein", n_samples=2, seed=number)

    np.testing.assert_array_equal(draw(seed), draw(seed))
    if seed != other:
        assert (draw(seed) != draw(other)).any()
