"""A step that decodes some of the features estimates what all of them would give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.stats import nbinom, norm
from tests.fits import QUIET, build, small_mosaic

from mosaicvi import RequestError, likelihoods
from mosaicvi._types import SparseCounts
from mosaicvi.model import _training
from mosaicvi.module._step_features import INCLUSION_STEPS, StepFeatures
from mosaicvi.nn import Decoder
from mosaicvi.nn._feature_sample import FeatureSample, draw_features, inclusion

if TYPE_CHECKING:
    from mosaicvi.module import ObjectiveSpec

N_CELLS, N_FEATURES, N_SAMPLED = 6, 300, 100
LIBRARY = torch.full((N_CELLS,), 2000.0, dtype=torch.float64)
PARAMETER = {
    "nb": "log_dispersion",
    "zinb": "log_dispersion",
    "poisson": "log_dispersion",
    "bernoulli": "log_factor",
}
COUNTS = list(PARAMETER)


@pytest.fixture(scope="module")
def bias() -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(0).normal(-6, 2, N_FEATURES))


@pytest.fixture(scope="module")
def heads(bias: torch.Tensor) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(1)
    noise = torch.as_tensor(rng.normal(0, 0.3, (N_CELLS, N_FEATURES)))
    return {"mean": bias + noise, "dropout": torch.as_tensor(rng.normal(-3, 1, noise.shape))}


@pytest.fixture(scope="module")
def counts(heads: dict[str, torch.Tensor]) -> SparseCounts:
    rate = LIBRARY[:, None] * torch.softmax(heads["mean"], -1)
    drawn = np.random.default_rng(2).poisson(rate.numpy()).astype(float)
    return SparseCounts.from_dense(torch.as_tensor(drawn))


@pytest.fixture(scope="module")
def dispersion() -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(3).normal(size=N_FEATURES))


def observed_as(name: str, counts: SparseCounts) -> tuple[SparseCounts, torch.Tensor]:
    """Counts, or which of them are not zero, and what the likelihood takes as a cell's size."""
    if name != "bernoulli":
        return counts, LIBRARY
    is_open = counts.with_values(torch.ones_like(counts.values))
    return is_open, is_open.row_sums()


def estimate(
    name: str,
    counts: SparseCounts,
    heads: dict[str, torch.Tensor],
    dispersion: torch.Tensor,
    sample: FeatureSample | None,
) -> torch.Tensor:
    features = torch.arange(N_FEATURES) if sample is None else sample.features
    values, library = observed_as(name, counts)
    return likelihoods.get(name).log_prob_of_heads(
        values.select(features),
        {head: value[:, features] for head, value in heads.items()},
        {PARAMETER[name]: dispersion[features]},
        library_size=library,
        panel=None,
        weights=None if sample is None else sample.weights.double(),
    )


def test_inclusion_has_the_least_variance_for_its_cost(bias: torch.Tensor) -> None:
    probability = inclusion(bias, N_SAMPLED)
    assert float(probability.sum()) == pytest.approx(N_SAMPLED)
    assert float(probability.max()) <= 1.0
    free = probability < 1
    ratio = (probability / (0.5 * bias).exp())[free]
    assert free.any()
    assert ratio.numpy() == pytest.approx(float(ratio[0]))
    assert (~free).any()
    assert torch.equal(free, bias < bias[~free].min())


@pytest.mark.parametrize("n_sampled", [1, 17, 299])
def test_a_sample_has_the_number_that_was_asked_for(bias: torch.Tensor, n_sampled: int) -> None:
    probability = inclusion(bias, n_sampled)
    for uniform in np.linspace(0, 0.999, 7):
        sample = draw_features(probability, torch.tensor(uniform))
        assert abs(len(sample.features) - n_sampled) <= 1
        assert (sample.features.diff() > 0).all()


def test_every_feature_is_drawn_as_often_as_it_should(bias: torch.Tensor) -> None:
    probability = inclusion(bias, N_SAMPLED).numpy()
    n_draws = 4000
    seen = np.zeros(N_FEATURES)
    for uniform in np.random.default_rng(4).random(n_draws):
        seen[draw_features(torch.as_tensor(probability), torch.tensor(uniform)).features] += 1
    spread = np.sqrt(probability * (1 - probability) / n_draws) + 1e-12
    z = (seen / n_draws - probability) / spread
    assert np.abs(z).max() < norm.isf(1e-3 / N_FEATURES)


@pytest.mark.parametrize("name", COUNTS)
def test_a_sample_of_all_is_exact(name, counts, heads, dispersion) -> None:
    whole = FeatureSample(torch.arange(N_FEATURES), torch.ones(N_FEATURES))
    torch.testing.assert_close(
        estimate(name, counts, heads, dispersion, whole),
        estimate(name, counts, heads, dispersion, None),
        rtol=1e-10,
        atol=1e-8,
    )


@pytest.mark.parametrize("name", COUNTS)
def test_the_estimate_is_right_on_average(name, counts, heads, dispersion, bias) -> None:
    """Over draws: the density, to within its standard error and the normaliser's small bias."""
    exact = estimate(name, counts, heads, dispersion, None)
    probability, rng = inclusion(bias, N_SAMPLED), np.random.default_rng(5)
    drawn = torch.stack(
        [
            estimate(
                name, counts, heads, dispersion, draw_features(probability, torch.tensor(uniform))
            )
            for uniform in rng.random(300)
        ]
    )
    error = drawn.std(0) / len(drawn) ** 0.5
    assert ((drawn.mean(0) - exact).abs() < 4.5 * error + 1e-3 * exact.abs()).all()


@pytest.mark.parametrize("name", COUNTS)
def test_gradients_of_an_estimate(name, counts, heads, dispersion, bias) -> None:
    sample = draw_features(inclusion(bias, 40), torch.tensor(0.3))
    features = sample.features
    values, library = observed_as(name, counts)

    def by(mean: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        return likelihoods.get(name).log_prob_of_heads(
            values.select(features),
            {"mean": mean, "dropout": heads["dropout"][:, features]},
            {PARAMETER[name]: parameter},
            library_size=library,
            panel=None,
            weights=sample.weights.double(),
        )

    inputs = (
        heads["mean"][:, features].clone().requires_grad_(),
        dispersion[features].clone().requires_grad_(),
    )
    assert torch.autograd.gradcheck(by, inputs, atol=1e-5, rtol=1e-4)


def test_weights_multiply_the_densities_of_scipy(counts, heads, dispersion, bias) -> None:
    sample = draw_features(inclusion(bias, 40), torch.tensor(0.6))
    features, weights = sample.features.numpy(), sample.weights.double().numpy()
    raw = np.exp(heads["mean"].numpy()[:, features])
    mean = LIBRARY.numpy()[:, None] * raw / (raw @ weights)[:, None]
    theta = np.exp(dispersion.numpy()[features])
    x = counts.to_dense().numpy()[:, features]
    expected = nbinom.logpmf(x, theta, theta / (theta + mean)) @ weights
    found = estimate("nb", counts, heads, dispersion, sample)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_a_fit_on_samples_is_judged_on_all_features() -> None:
    """Validation decodes all; the fit learns, and is the same with the same seed."""
    data = small_mosaic(300, n_types=3)
    histories = []
    for _ in range(2):
        model = build(data, {"rna": "zinb", "protein": "nb_mixture"}, seed=3)
        model.train(6, plan_kwargs={"decoded_features": 20}, **QUIET)
        histories.append(model.history["reconstruction/rna_validation"].to_numpy().ravel())
    assert histories[0][-1] < histories[0][0]
    np.testing.assert_array_equal(*histories)


def test_many_cells_have_steps_decode_a_sample_unless_told_otherwise(monkeypatch) -> None:
    data = small_mosaic(120, n_types=3)
    model = build(data, {"rna": "zinb", "protein": "nb_mixture"}, seed=3)
    dataset = model._cells(None).dataset
    indices = np.arange(100)

    def spec(*, anchored: bool = False, **given: object) -> ObjectiveSpec:
        return _training.objective_spec(model.module, dataset, indices, given, anchored=anchored)

    few = spec()
    assert few.decoded_features is None
    monkeypatch.setattr(_training, "MANY_CELLS", 100)
    many = spec()
    n_genes = int(model.module.decoders["rna"].measured.shape[1])
    assert many.decoded_features == {"rna": 1000}
    monkeypatch.setattr(_training, "SAMPLED_FEATURES", 1)
    assert spec().decoded_features == {"rna": -(-n_genes // 4)}
    assert spec(anchored=True) == few
    assert spec(decoded_features=None) == few
    assert spec(cross_features=7).decoded_features is None


def test_each_modality_can_have_its_number_of_decoded_features() -> None:
    data = small_mosaic(60, n_types=3)
    model = build(data, {"rna": "zinb", "protein": "nb_mixture"}, seed=3)
    batch = model._cells(None).dataset.fetch(np.arange(60))
    model.module.train()
    for given in (5, {"rna": 5}):
        drawn = StepFeatures(given).draw(model.module, batch)
        assert abs(len(drawn["rna"].features) - 5) <= 1
        assert drawn["protein"] is None
    none = StepFeatures({"protein": 5})
    assert none.draw(model.module, batch) == {"rna": None, "protein": None}


def test_probabilities_are_found_anew_every_25_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """And features are drawn with them in every step."""
    model = build(small_mosaic(60, n_types=3), {"rna": "zinb", "protein": "nb_mixture"}, seed=3)
    batch = model._cells(None).dataset.fetch(np.arange(60))
    model.module.train()
    asked: list[int] = []
    inclusion_of = Decoder.inclusion

    def counted(self: Decoder, n_sampled: int) -> torch.Tensor | None:
        asked.append(n_sampled)
        return inclusion_of(self, n_sampled)

    monkeypatch.setattr(Decoder, "inclusion", counted)
    features = StepFeatures({"rna": 10})
    drawn = [features.draw(model.module, batch)["rna"] for _ in range(INCLUSION_STEPS + 1)]
    assert asked == [10, 10]
    assert all(each is not None for each in drawn)
    assert len({tuple(each.features.tolist()) for each in drawn if each is not None}) > 10


def test_a_modality_without_trust_takes_no_random_number_from_the_others() -> None:
    model = build(small_mosaic(60, n_types=3), {"rna": "zinb", "protein": "nb_mixture"}, seed=3)
    batch = model._cells(None).dataset.fetch(np.arange(60))
    model.module.train()
    features = StepFeatures({"rna": 10})
    for muted in ((), ("rna",)):
        model.module.muted = muted
        before = torch.get_rng_state()
        assert features.draw(model.module, batch)["rna"] is not None
        assert torch.equal(before, torch.get_rng_state()) == bool(muted)


def test_decoded_features_of_an_unknown_modality_are_refused() -> None:
    model = build(small_mosaic(60, n_types=3), {"rna": "zinb", "protein": "nb_mixture"}, seed=3)
    with pytest.raises(RequestError, match=r"decoded_features.*\['atac'\].*'rna', 'protein'"):
        model.train(1, plan_kwargs={"decoded_features": {"atac": 5}}, **QUIET)
