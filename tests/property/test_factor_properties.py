"""FactorVI: answers belong to cells and features, not to their order, company or place on disk."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fits import QUIET, answer, assert_same_answer, small_mosaic
from tests.helpers import make_mudata
from tests.property.test_model_properties import FEW, reordered

from mosaicvi import FactorVI
from mosaicvi.factor._objective import FactorObjective

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mudata import MuData

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

N_CELLS = 120
SETS = {"markers": ["CD3E", "CD8A", "MS4A1", "ITGAM"], "others": ["GENE0001", "GENE0002", "CD4"]}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "groups": {"groups": "batch"},
    "sets": {"gene_sets": SETS},
    "nonnegative": {"nonnegative": ["protein"]},
}


def fitted(mdata: MuData, **options: Any) -> FactorVI:
    FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"}, batch_key="batch")
    model = FactorVI(mdata, n_factors=4, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        # No factor is removed: properties are those of the network, trained or not.
        model.train(3, least_r2=-10.0, **QUIET)
    return model


@pytest.fixture(scope="module", params=OPTIONS)
def model(request: pytest.FixtureRequest) -> FactorVI:
    return fitted(small_mosaic(N_CELLS), **OPTIONS[request.param])


GETTERS: dict[str, Callable[[FactorVI, Any], np.ndarray]] = {
    "factors": lambda m, d: m.get_latent_representation(d),
    "variance": lambda m, d: m.get_latent_representation(d, return_dist=True)[1],
    "from rna": lambda m, d: m.get_latent_representation(d, from_modalities=["rna"]),
    "imputed": lambda m, d: answer(m, "protein", ["rna"], adata=d).X,
    "sample": lambda m, d: m.posterior_predictive_sample("protein", adata=d, n_samples=2)[1],
}


@FEW
@given(seed=st.integers(0, 1000), reverse=st.booleans())
def test_equivariant_to_order_of_cells_and_modalities(
    model: FactorVI, seed: int, reverse: bool
) -> None:
    other = reordered(small_mosaic(N_CELLS), seed, reverse=reverse)
    places = other.obs_names.get_indexer(model.adata.obs_names)
    for name, getter in GETTERS.items():
        np.testing.assert_allclose(
            getter(model, other)[places], getter(model, None), rtol=1e-5, atol=1e-5, err_msg=name
        )


@FEW
@given(seed=st.integers(0, 1000))
def test_features_are_found_by_name(model: FactorVI, seed: int) -> None:
    rng, data = np.random.default_rng(seed), small_mosaic(N_CELLS)
    shuffled = {n: part[:, rng.permutation(part.n_vars)].copy() for n, part in data.mod.items()}
    other = make_mudata(shuffled)
    places = other.obs_names.get_indexer(model.adata.obs_names)
    for name, getter in GETTERS.items():
        np.testing.assert_array_equal(
            getter(model, other)[places], getter(model, None), err_msg=name
        )


def test_an_absent_modality_costs_nothing(model: FactorVI) -> None:
    """No term, no gradient, no entry of a minibatch, and the posterior of the other alone."""
    sampler = model._sampler(None, None)
    data = sampler.data
    alone = np.flatnonzero((data.modalities["protein"].rows < 0) & data.modalities["rna"].present)
    assert len(alone) > 5
    batch = sampler.dataset.fetch(alone)
    assert set(batch.modalities) == {"rna"}
    module = model.module
    experts = module.experts(batch)
    number = module.modalities.index("protein")
    assert not experts.present[number].any()
    assert (experts.precisions[number] == 0).all()
    assert (experts.pulls[number] == 0).all()
    module.zero_grad(set_to_none=True)
    # The state that a step moves in closed form is put back: others use the model.
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    losses = FactorObjective(data.n_cells)(module, batch)
    losses.total.backward()
    assert set(losses.terms) == {"reconstruction/rna"}
    for parameter in (*module.recognition["protein"].parameters(),):
        assert parameter.grad is None or not parameter.grad.any()
    for name, parameter in module.decoders["protein"].named_parameters():
        # Priors of offsets and loadings are those of the modality, however few its cells.
        assert name.startswith(("offsets", "loadings")) or parameter.grad is None
    module.load_state_dict(kept)
    module.zero_grad(set_to_none=True)
    rna = make_mudata({"rna": small_mosaic(N_CELLS).mod["rna"].copy()})
    names = data.obs_names[alone].astype(str)
    np.testing.assert_allclose(
        model.get_latent_representation()[alone],
        model.get_latent_representation(rna)[rna.obs_names.get_indexer(names)],
        rtol=1e-5,
        atol=1e-5,
    )


def test_written_and_read_it_is_the_same(model: FactorVI, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    again = FactorVI.load(tmp_path / "m", small_mosaic(N_CELLS), accelerator="cpu")
    assert again.factors == model.factors
    assert again.module_spec == model.module_spec
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name]), name
    for getter in GETTERS.values():
        np.testing.assert_array_equal(getter(model, None), getter(again, None))
    assert model.get_variance_explained().equals(again.get_variance_explained())
    assert model.get_weights("rna", tidy=True).equals(again.get_weights("rna", tidy=True))
    assert model.get_gene_sets().equals(again.get_gene_sets())
    assert_same_answer(answer(model, "protein", ["rna"]), answer(again, "protein", ["rna"]))


def test_same_seed_same_model() -> None:
    first, second = (fitted(small_mosaic(N_CELLS), gene_sets=SETS, seed=3) for _ in range(2))
    for name, value in first.module.state_dict().items():
        assert torch.equal(value, second.module.state_dict()[name]), name
