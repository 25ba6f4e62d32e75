"""Posteriors that are refined at answer time."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import nbinom
from tests.fits import QUIET, small_mosaic

from mosaicvi import FactorVI
from mosaicvi._errors import RequestError
from mosaicvi.factor._refine import Refinement
from mosaicvi.factor._refinement_gain import refinement_gains

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def trained(likelihoods: dict[str, str], refine: int | None) -> FactorVI:
    mdata = small_mosaic(300)
    FactorVI.setup_mudata(mdata, likelihoods, batch_key="batch")
    model = FactorVI(mdata, n_factors=4, refine=refine)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        model.train(10, **QUIET)
    return model


@pytest.fixture(scope="module")
def model() -> FactorVI:
    return trained({"rna": "nb", "protein": "nb"}, 0)


def refined(model: FactorVI, steps: int | None) -> FactorVI:
    other = copy.copy(model)
    other.refine = steps
    return other


def test_the_mode_and_its_curvature_against_scipy(model: FactorVI) -> None:
    """Of one cell: negative binomial densities of a softmax, written out here."""
    module, dataset = model.module, model._cells(None).dataset
    cells = np.flatnonzero(dataset.data.presence.all(1))[:3]
    batch = dataset.fetch(cells)
    found = Refinement(module, batch, ["rna"]).run(module.posterior(module.experts(batch)).mean, 30)
    weights = module.weights["rna"].mean().detach().double().numpy()
    spread = module.weights["rna"].posterior().variance.detach().double().numpy()
    decoder, part = module.decoders["rna"], batch.modalities["rna"]
    offsets = decoder.batch_offsets(part.batch)
    nothing = torch.zeros(3, module.n_latent)
    base = decoder(nothing, offsets, None, torch.zeros_like(decoder.biases["mean"].unsqueeze(1)
                   .expand(-1, module.n_latent)))["mean"].detach().double().numpy()  # fmt: skip
    parameters = decoder.distribution(
        nothing, part.batch, part.library_size, linked=module.weights["rna"].mean()
    )
    theta = parameters["dispersion"].detach().double().expand(3, len(weights)).numpy()
    counts = part.values.to_dense().double().numpy()
    start = module.posterior(module.experts(batch)).mean.detach().double().numpy()

    def mean(row: int, z: np.ndarray) -> np.ndarray:
        head = base[row] + weights @ z
        share = np.exp(head - head.max())
        return float(part.library_size[row]) * share / share.sum()

    for row in range(3):
        at = mean(row, start[row])
        penalty = 1 + (at * theta[row] / (theta[row] + at)) @ spread

        def loss(z: np.ndarray, row: int = row, penalty: np.ndarray = penalty) -> float:
            success = theta[row] / (theta[row] + mean(row, z))
            nats = nbinom.logpmf(counts[row], theta[row], success).sum()
            return float(0.5 * (penalty * z**2).sum() - nats)

        best = minimize(loss, start[row], method="BFGS", options={"gtol": 1e-6})
        np.testing.assert_allclose(found.mean[row].detach(), best.x, atol=2e-3)
        mode = mean(row, best.x)
        entries = mode * theta[row] / (theta[row] + mode)
        share = mode / mode.sum()
        centred = weights - share @ weights
        expected = np.diag(penalty) + centred.T @ (entries[:, None] * centred)
        np.testing.assert_allclose(found.precision[row].detach(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("protein", ["nb", "nb_mixture"])
def test_the_bound_rises(model: FactorVI, protein: str) -> None:
    plain = model if protein == "nb" else trained({"rna": "nb", "protein": protein}, 0)
    assert refined(plain, 2).get_elbo(n_samples=20) > plain.get_elbo(n_samples=20) + 0.1


def test_hidden_values_change_no_bit(model: FactorVI) -> None:
    other = refined(model, 2)
    before = other.get_latent_representation(from_modalities=["rna"])
    mdata = small_mosaic(300)
    values = mdata.mod["protein"].X
    mdata.mod["protein"].X = values[np.random.default_rng(0).permutation(values.shape[0])]
    again = other.get_latent_representation(mdata, from_modalities=["rna"])
    np.testing.assert_array_equal(before, again)
    assert np.nanmax(np.abs(before - model.get_latent_representation(from_modalities=["rna"]))) > 0


def test_cells_do_not_depend_on_their_company(model: FactorVI) -> None:
    other = refined(model, 2)
    every = other.get_latent_representation()
    some = other.get_latent_representation(indices=[7, 3, 250])
    np.testing.assert_allclose(every[[7, 3, 250]], some, atol=1e-4)
    imputed = other.impute("protein", ["rna"], n_samples=5)
    assert np.isfinite(imputed.X[imputed.obs["evidence"].to_numpy()]).all()


def test_it_is_kept_with_the_model(model: FactorVI, tmp_path: Path) -> None:
    own = trained({"rna": "nb", "protein": "nb"}, 2)
    own.save(tmp_path / "model")
    again = FactorVI.load(tmp_path / "model", adata=small_mosaic(300))
    assert again.refine == 2
    np.testing.assert_allclose(
        own.get_latent_representation(), again.get_latent_representation(), atol=1e-5
    )


@pytest.mark.parametrize("steps", [-1, 1.5, "two", True])
def test_steps_are_not_negative(steps: object) -> None:
    mdata = small_mosaic(60)
    FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb"}, batch_key="batch")
    with pytest.raises(RequestError, match="refine"):
        FactorVI(mdata, n_factors=2, refine=steps)  # type: ignore[arg-type]


def with_gains(model: FactorVI, **gains: float) -> FactorVI:
    other = refined(model, None)
    other.module_spec = replace(model.module_spec, gains=gains)
    return other


def test_by_default_cells_are_refined_where_their_gains_add_up(model: FactorVI) -> None:
    """Of RNA it pays and of protein it does not: cells with both go by the sum."""
    plain, steps = model.get_latent_representation(), refined(model, 2).get_latent_representation()
    rna, protein = model._cells(None).dataset.data.presence.T
    for gains, pays in {
        (1.0, -0.4): rna,
        (0.4, -1.0): rna & ~protein,
        (-0.4, 1.0): protein,
        (-1.0, -1.0): rna & ~rna,
        (0.0, 0.0): rna & ~rna,
    }.items():
        own = with_gains(model, rna=gains[0], protein=gains[1])
        found = own.get_latent_representation()
        np.testing.assert_allclose(found, np.where(pays[:, None], steps, plain), atol=1e-5)
        alone = own.get_latent_representation(from_modalities=["rna"])
        expected = refined(model, 2 if gains[0] > 0 else 0)
        np.testing.assert_allclose(
            alone, expected.get_latent_representation(from_modalities=["rna"]), atol=1e-5
        )
    assert (rna & ~protein).any()
    assert (rna & protein).any()


def gains_of(model: FactorVI) -> dict[str, float]:
    own = refined(model, None)
    own.validation_indices_ = np.arange(300)
    return own._gains()


def test_gains_know_a_bad_encoder_and_bad_weights(model: FactorVI) -> None:
    """An encoder that says nothing is mended by the values; where the weights of the genes are
    mixed up it is the values that mislead."""
    deaf, wrong = copy.deepcopy(model.module), copy.deepcopy(model.module)
    with torch.no_grad():
        for parameter in deaf.recognition["rna"].parameters():
            parameter.zero_()
        n_genes = len(wrong.weights["rna"].mean())
        order = torch.randperm(n_genes, generator=torch.Generator().manual_seed(0))
        for parameter in wrong.weights["rna"].parameters():
            if len(parameter) == n_genes:
                parameter.copy_(parameter[order])
    for module, pays in ((deaf, True), (wrong, False)):
        other = copy.copy(model)
        other.module = module
        gain = gains_of(other)["rna"]
        assert abs(gain) > 0.2
        assert (gain > 0) == pays


def test_gains_are_log_probabilities_of_the_other_modality(model: FactorVI) -> None:
    """Cell by cell, by scipy's density of each draw."""
    plain, better = model._sampler(None, 0).with_steps(0), model._sampler(None, 0).with_steps(2)
    rows = np.flatnonzero(model._cells(None).dataset.data.presence.all(1))[:40]
    found = refinement_gains(plain, better, rows, ["rna"])["rna"]
    expected = []
    for row in rows:
        each = []
        for sampler in (plain, better):
            (chunk,) = sampler.latent(np.array([row]), ("rna",), with_values=True)
            z = sampler.draw_latent(chunk, 16)
            linked = model.module.draw_feature_embeddings(16, 0)["protein"]
            part, decoder = chunk.batch.modalities["protein"], model.module.decoders["protein"]
            library = part.library_size if decoder.likelihood.uses_library_size else None
            parameters = decoder.distribution(z, part.batch, library, linked=linked)
            mean, theta = (parameters[k].detach().double() for k in ("mean", "dispersion"))
            success = (theta / (theta + mean)).numpy()
            nats = nbinom.logpmf(part.values.to_dense().numpy(), theta.numpy(), success).sum(-1)
            each.append(logsumexp(nats[:, 0]) - np.log(16))
        expected.append(each[1] - each[0])
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-3, atol=1e-3)


def test_few_cells_with_several_modalities_say_nothing(model: FactorVI) -> None:
    own = refined(model, None)
    own.validation_indices_ = np.flatnonzero(model._cells(None).dataset.data.presence.all(1))[:29]
    assert own._gains() == {}
    own.validation_indices_ = None
    assert own._gains() == {}


def test_gains_are_found_by_training_and_kept_with_the_model(tmp_path: Path) -> None:
    mdata = small_mosaic(600)
    FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb"}, batch_key="batch")
    own = FactorVI(mdata, n_factors=4)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        own.train(10, train_size=0.7, **QUIET)
    assert set(own.module_spec.gains) == {"rna", "protein"}
    own.save(tmp_path / "model")
    again = FactorVI.load(tmp_path / "model", adata=mdata)
    assert again.refine is None
    assert again.module_spec.gains == own.module_spec.gains
    np.testing.assert_allclose(
        own.get_latent_representation(), again.get_latent_representation(), atol=1e-5
    )


def test_normal_values_need_no_steps() -> None:
    """The closed form is the optimum: alone it stays to the bit, beside counts it is used."""
    mdata = small_mosaic(300)
    protein = mdata.mod["protein"]
    values = protein.X.toarray() if hasattr(protein.X, "toarray") else np.asarray(protein.X)
    protein.X = np.log1p(values).astype(np.float32)
    FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "normal"}, batch_key="batch")
    plain = FactorVI(mdata, n_factors=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        plain.train(10, **QUIET)
    other = refined(plain, 2)
    alone = [each.get_latent_representation(from_modalities=["protein"]) for each in (plain, other)]
    np.testing.assert_array_equal(*alone)
    module = plain.module
    batch = plain._cells(None).dataset.fetch(np.arange(20))
    start = module.posterior(module.experts(batch), module.subset_of(["protein"]))
    found = Refinement(module, batch, ["protein"]).run(start.mean, 2)
    torch.testing.assert_close(found.mean, start.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.precision, start.precision, atol=1e-3, rtol=1e-4)
    assert other.get_elbo(n_samples=20) > plain.get_elbo(n_samples=20)
