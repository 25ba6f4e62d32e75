"""Summaries of draws against numpy, on every scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mosaicvi import likelihoods
from mosaicvi._errors import RequestError
from mosaicvi._noise import CellNoise
from mosaicvi.model import _summaries
from mosaicvi.model._chunks import PredictiveChunk
from mosaicvi.model._summaries import (
    Summaries,
    check_quantiles,
    check_scale,
    mean_of,
    on_scale,
    quantile_name,
)

N_SAMPLES, N_CELLS, N_FEATURES = 41, 5, 6
NAMES = [f"c{i}" for i in range(N_CELLS)]


def chunk(likelihood: str = "nb_mixture", *, evidence: np.ndarray | None = None) -> PredictiveChunk:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    shape = (N_SAMPLES, N_CELLS, N_FEATURES)
    parameters = {
        "nb_mixture": {
            "background_mean": 2 + draw(*shape),
            "foreground_mean": 10 + 5 * draw(*shape),
            "mixing_logit": 4 * draw(*shape) - 2,
            "dispersion_background": 5 + draw(N_FEATURES),
            "dispersion_foreground": 5 + draw(N_FEATURES),
        },
        "nb": {"mean": 3 * draw(*shape), "dispersion": 2 + draw(N_FEATURES)},
        "normal": {"mean": draw(*shape), "sd": 0.5 + draw(N_FEATURES)},
    }
    return PredictiveChunk(
        places=np.array([3, 0, 4, 1, 2]),
        evidence=np.ones(N_CELLS, dtype=bool) if evidence is None else evidence,
        likelihood=likelihoods.get(likelihood),
        parameters=parameters[likelihood],
        noise=CellNoise(0, NAMES, purpose="test"),
    )


def expected(values: np.ndarray, scale: str) -> np.ndarray:
    logs = np.log1p(values)
    if scale == "counts":
        return values
    return logs if scale == "log1p" else logs - logs.mean(-1, keepdims=True)


def freed(values: np.ndarray, counts: np.ndarray, means: np.ndarray, scale: str) -> np.ndarray:
    """Mean of draws, by least squares at each entry: what it is where the noise is zero."""
    if scale == "counts":
        return means.mean(0)
    if scale == "clr":
        logs = freed(np.log1p(counts), counts, means, "log1p")
        return logs - logs.mean(-1, keepdims=True)
    found = values.mean(0)
    for cell, feature in np.ndindex(found.shape):
        noise = (counts - means)[:, cell, feature]
        slope = np.log(2)
        if (counts[:, cell, feature] > 1).any():
            slope = np.clip(np.polyfit(noise, values[:, cell, feature], 1)[0], 0, 1)
        found[cell, feature] -= slope * noise.mean()
    return np.maximum(found, 0)


@pytest.mark.parametrize("scale", ["log1p", "clr"])
@pytest.mark.parametrize("mean", [0.02, 0.5, 8.0])
def test_means_are_free_of_most_chance(scale: str, mean: float) -> None:
    """Errors of means of 50 draws, against means of very many."""
    rng = np.random.default_rng(0)
    rate = mean * rng.gamma(4, 0.25, (50, 400, 3))
    counts = torch.tensor(rng.poisson(rate), dtype=torch.float32)
    many = expected(rng.poisson(mean * rng.gamma(4, 0.25, (200_000, 1, 3))).astype(float), scale)
    made = chunk("nb")
    values = on_scale(made, counts, scale)
    calm = mean_of(values, counts, torch.tensor(rate, dtype=torch.float32), scale).numpy()
    wanted = many.mean((0, 1))
    plain = np.sqrt(np.square(values.numpy().mean(0) - wanted).mean())
    # What is left is that rates themselves are drawn.
    assert np.sqrt(np.square(calm - wanted).mean()) < (0.5 if mean < 1 else 0.95) * plain
    assert np.abs(calm.mean(0) - wanted).max() < 0.1 * plain


@pytest.mark.parametrize("probability", [0.02, 0.5, 0.98])
def test_log1p_of_zeros_and_ones_is_as_sure_as_their_mean(probability: float) -> None:
    """Also where all of a few draws are ones, which say nothing of what zeros would do."""
    rng = np.random.default_rng(0)
    means = np.clip(probability + rng.normal(0, 0.01, (20, 50, 4)), 0, 1)
    counts = torch.tensor(rng.random(means.shape) < means, dtype=torch.float32)
    expectations = torch.tensor(means, dtype=torch.float32)
    found = mean_of(torch.log1p(counts), counts, expectations, "log1p")
    torch.testing.assert_close(found, expectations.mean(0) * np.log(2), atol=1e-5, rtol=1e-5)


def test_few_draws_are_averaged_as_they_are() -> None:
    counts = torch.arange(12.0).view(3, 2, 2)
    means = torch.ones_like(counts)
    for scale in ("counts", "log1p"):
        values = on_scale(chunk("nb"), counts, scale)
        torch.testing.assert_close(mean_of(values, counts, means, scale), values.mean(0))


@pytest.mark.parametrize("scale", ["counts", "log1p", "clr"])
@pytest.mark.parametrize("likelihood", ["nb", "nb_mixture"])
def test_summaries_equal_numpy(scale: str, likelihood: str) -> None:
    levels = (0.05, 0.5, 0.975)
    made = chunk(likelihood)
    counts = chunk(likelihood).counts().numpy()  # the same noise again
    summaries = Summaries(N_CELLS, N_FEATURES, levels, scale, is_count=True)
    summaries.add(made)
    values = expected(counts, scale)
    means = made.likelihood.mean(made.parameters).numpy()
    got = {"mean": summaries.mean, **summaries.layers}
    wanted = {
        "mean": freed(values, counts, means, scale),
        "sd": values.std(0, ddof=1),
        "log1p_mean": freed(np.log1p(counts), counts, means, "log1p"),
        "denoised": means.mean(0),
        "q05": np.quantile(values, 0.05, axis=0, method="weibull"),
        "q50": np.quantile(values, 0.5, axis=0, method="weibull"),
        "q97.5": np.quantile(values, 0.975, axis=0, method="weibull"),
    }
    assert set(got) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name][made.places], value, rtol=1e-4, atol=1e-4,
                                   err_msg=name)  # fmt: skip
        assert got[name].dtype == np.float32


def test_foreground_scale() -> None:
    made = chunk()
    parameters = made.parameters
    value = on_scale(made, made.counts(), "foreground").numpy()
    keep = 1 / (1 + np.exp(parameters["mixing_logit"].numpy()))  # the logit is of background
    np.testing.assert_allclose(value, parameters["foreground_mean"].numpy() * keep, rtol=1e-5)


def test_clr_is_free_of_a_factor_for_large_counts() -> None:
    counts = torch.randint(10**5, 10**6, (3, 4, 8)).float()
    made = chunk()
    torch.testing.assert_close(
        on_scale(made, counts, "clr"), on_scale(made, 7 * counts, "clr"), atol=1e-3, rtol=1e-3
    )
    assert on_scale(made, counts, "clr").sum(-1).abs().max() < 1e-3


def test_continuous_values_have_no_log() -> None:
    summaries = Summaries(N_CELLS, N_FEATURES, (0.5,), "counts", is_count=False)
    summaries.add(chunk("normal"))
    assert set(summaries.layers) == {"sd", "denoised", "q50"}
    assert np.isfinite(summaries.mean).all()


def test_cells_without_evidence_stay_nan() -> None:
    evidence = np.array([True, False, True, True, False])
    summaries = Summaries(N_CELLS + 1, N_FEATURES, (0.5,), "counts", is_count=True)
    made = chunk(evidence=evidence)
    summaries.add(made)
    lacking = {*made.places[~evidence].tolist(), N_CELLS}  # and one cell that never came
    for values in (summaries.mean, *summaries.layers.values()):
        assert set(np.flatnonzero(np.isnan(values).all(1))) == lacking
        assert set(np.flatnonzero(np.isnan(values).any(1))) == lacking
    assert set(np.flatnonzero(~summaries.evidence)) == lacking


def test_one_draw_has_no_spread() -> None:
    made = chunk("nb")
    single = PredictiveChunk(
        made.places,
        made.evidence,
        made.likelihood,
        {"mean": made.parameters["mean"][:1], "dispersion": made.parameters["dispersion"]},
        made.noise,
    )
    summaries = Summaries(N_CELLS, N_FEATURES, (0.1,), "counts", is_count=True)
    summaries.add(single)
    assert (summaries.layers["sd"] == 0).all()
    np.testing.assert_array_equal(summaries.layers["q10"], summaries.mean)


def test_quantiles_of_more_draws_than_torch_takes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values, levels = torch.rand(9, 3, 10), torch.tensor([0.2, 0.7])
    whole = torch.quantile(values, levels, dim=0)
    for entries in (1, 60, 10**6):
        monkeypatch.setattr(_summaries, "MAX_QUANTILE_ENTRIES", entries)
        assert torch.equal(_summaries._quantiles(values, levels), whole)
    monkeypatch.undo()
    wide = torch.rand(3, 1, 6_000_000)  # torch.quantile alone refuses this
    assert _summaries._quantiles(wide, levels).shape == (2, 1, 6_000_000)


@pytest.mark.parametrize(
    ("level", "name"),
    [(0.05, "q05"), (0.5, "q50"), (0.95, "q95"), (0.975, "q97.5"), (0.0, "q00"), (1.0, "q100"),
     (0.001, "q0.1"), (0.1 + 0.2, "q30")],
)  # fmt: skip
def test_quantile_names(level: float, name: str) -> None:
    assert quantile_name(level) == name


def test_bad_requests_are_refused() -> None:
    assert check_quantiles([0, 0.5, 1]) == (0.0, 0.5, 1.0)
    for bad in ([-0.1], [1.01], [0.5, float("nan")]):
        with pytest.raises(RequestError, match="quantiles"):
            check_quantiles(bad)
    mixture, composition, normal = map(likelihoods.get, ("nb_mixture", "nb", "normal"))
    for scale in _summaries.SCALES:
        check_scale(scale, mixture, "protein")
    with pytest.raises(RequestError, match="'counts', 'log1p', 'clr', 'foreground'"):
        check_scale("sqrt", mixture, "protein")
    with pytest.raises(RequestError, match="nb_mixture"):
        check_scale("foreground", composition, "rna")
    for scale in ("log1p", "clr"):
        with pytest.raises(RequestError, match="continuous"):
            check_scale(scale, normal, "score")
    check_scale("counts", normal, "score")


@pytest.mark.parametrize("level", [0.5, np.float32(0.5), np.float64(0.5), np.array(0.5)])
def test_a_single_quantile_is_one(level: Any) -> None:
    assert check_quantiles(level) == (0.5,)
    assert check_quantiles(np.array([0.25, 0.5])) == (0.25, 0.5)
    assert check_quantiles(()) == ()


@pytest.mark.parametrize("bad", [None, "median", [[0.5, 0.6]], {"q": 0.5}])
def test_what_is_no_quantile_is_refused(bad: Any) -> None:
    with pytest.raises(RequestError, match=r"'quantiles'.*levels from 0 to 1.*quantiles=\(\)"):
        check_quantiles(bad)


@pytest.mark.parametrize("n_samples", [19, 25, 100])
def test_intervals_hold_as_often_as_they_say(n_samples: int) -> None:
    """Values that are one draw more, of 40,000 cells and features."""
    rng = np.random.default_rng(0)
    summaries = Summaries(20_000, 2, (0.05, 0.95), "counts", is_count=False)
    parameters = {"mean": torch.zeros(n_samples, 20_000, 2), "sd": torch.ones(2)}
    names = [f"c{i}" for i in range(20_000)]
    summaries.add(
        PredictiveChunk(
            places=np.arange(20_000),
            evidence=np.ones(20_000, dtype=bool),
            likelihood=likelihoods.get("normal"),
            parameters=parameters,
            noise=CellNoise(0, names, purpose="test"),
        )
    )
    measured = rng.normal(size=(20_000, 2))
    held = (measured > summaries.layers["q05"]) & (measured < summaries.layers["q95"])
    assert held.mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("n_samples", [1, 2, 5])
def test_quantiles_beyond_the_draws_are_the_outermost(n_samples: int) -> None:
    values = torch.rand(n_samples, 3, 2)
    levels = torch.tensor(_summaries.places_of((0.0, 0.01, 0.5, 0.99, 1.0), n_samples))
    found = _summaries._quantiles(values, levels)
    for level, wanted in ((0, values.amin(0)), (1, wanted_median(values)), (2, values.amax(0))):
        torch.testing.assert_close(found[2 * level], wanted)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[3], found[4])


def wanted_median(values: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(np.median(values.numpy(), axis=0))
