"""How far a modality is trusted as evidence, measured before training."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from tests.fits import build, small_mosaic
from tests.helpers import make_mudata

from mosaicvi._errors import MosaicviWarning
from mosaicvi.model._construct import modality_weights
from mosaicvi.model._trust import RELATION_RANGE
from mosaicvi.model._trust import modality_trust as trust_of
from mosaicvi.nn._cross_regression import CrossRegression, Pairing, fit_regression
from mosaicvi.nn._explained import CHANCE, explained_shares

NAN = math.nan
LOW, HIGH = RELATION_RANGE
MIDDLE = (LOW + HIGH) / 2


def modality_trust(explained: dict[str, tuple[float, ...]]) -> dict[str, float]:
    """Trust from what each modality explains of each other one, in their order."""

    def regression(share: float) -> CrossRegression | None:
        row = np.zeros(2, dtype=np.float32)
        keys, weights = np.zeros(0, dtype=np.int64), np.zeros((5, 2, 2), dtype=np.float32)
        return None if math.isnan(share) else CrossRegression(row, weights, row, keys, share)

    return trust_of(
        {
            name: {
                other: regression(share)
                for other, share in zip([o for o in explained if o != name], shares, strict=True)
            }
            for name, shares in explained.items()
        }
    )


def test_a_modality_that_explains_nothing_has_no_trust() -> None:
    with pytest.warns(MosaicviWarning, match="'noise'.*no evidence"):
        trust = modality_trust(
            {"rna": (0.7, 0.001), "protein": (0.8, -0.003), "noise": (0.004, -0.2)}
        )
    assert trust == {"rna": 1.0, "protein": 1.0, "noise": 0.0}


@pytest.mark.parametrize("direction", [0, 1])
def test_one_direction_is_enough(direction: int) -> None:
    """A modality of many features may be told by another and not tell of it, or the reverse."""
    there, back = [(0.5, 0.0), (0.0, 0.5)][direction]
    trust = modality_trust({"a": (0.9, there), "b": (0.9, 0.0), "c": (back, 0.0)})
    assert trust["c"] == 1.0


def test_trust_rises_in_between() -> None:
    trust = modality_trust({"a": (0.9, MIDDLE), "b": (0.9, 0.0), "c": (0.0, 0.0)})
    assert trust["c"] == pytest.approx(0.5)
    assert trust["a"] == trust["b"] == 1.0


@pytest.mark.parametrize(
    "explained",
    [
        {"a": ()},
        {"a": (0.0,), "b": (-0.1,)},
        {"a": (MIDDLE,), "b": (0.0,)},
        {"a": (NAN,), "b": (NAN,)},
        {"a": (0.9, NAN), "b": (0.9, NAN), "c": (NAN, NAN)},
        {"a": (0.0, 0.0), "b": (0.0, 0.0), "c": (0.0, 0.0)},
    ],
)
def test_what_cannot_be_told_is_trusted(explained: dict[str, tuple[float, ...]]) -> None:
    """One or two modalities, too few pairs, or nothing related: there is nothing to go by."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(modality_trust(explained).values()) == {1.0}


def test_explained_share_is_that_of_a_regression_on_groups() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 300)
    shift = np.array([0.0, 5.0, -4.0])[groups]
    signal = rng.normal(size=(300, 2))
    targets = signal + shift[:, None] + rng.normal(size=(300, 2))
    predicted = signal * [0.8, 0.1] + 0.5 * shift[:, None]
    one_hot = np.eye(3)[groups]

    def residual(values: np.ndarray) -> np.ndarray:
        return values - LinearRegression().fit(one_hot, values).predict(one_hot)

    left, total = residual(targets - predicted), residual(targets)
    expected = 1 - (left**2).sum(0) / (total**2).sum(0)
    assert explained_shares(targets, predicted, groups) == pytest.approx(expected - CHANCE / 300)
    # The groups' means alone look like a relation, and are none.
    assert explained_shares(targets, np.repeat(shift[:, None], 2, 1), None).max() > 0.8
    found = explained_shares(targets, np.repeat(shift[:, None], 2, 1), groups)
    assert found == pytest.approx(-CHANCE / 300)


@pytest.mark.parametrize("n_pairs", [100, 200, 600])
def test_chance_is_not_trusted(n_pairs: int) -> None:
    """Of twenty modalities of noise, one at most reaches where trust begins."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(20):
        noise = np.log1p(rng.poisson(1.0, (n_pairs, 60))).astype(np.float32)
        targets = rng.normal(size=(n_pairs, 8)) * np.linspace(3, 1, 8)
        keys, groups = rng.integers(0, 2**62, n_pairs), rng.integers(0, 2, n_pairs)
        pairing = Pairing(np.arange(n_pairs), targets.astype(np.float32), keys, groups)
        found.append(fit_regression(noise, pairing, seed=0).explained)
    assert np.isfinite(found).all()
    assert np.sum(np.array(found) > LOW) <= 1


def test_weights_of_what_has_no_trust() -> None:
    nats = {"rna": 800.0, "protein": 50.0, "noise": 3000.0}
    trust = {"rna": 1.0, "protein": 0.5, "noise": 0.0}
    weights = modality_weights(nats, 0.5, trust)
    assert weights["rna"] == 1.0  # noise is not what others are measured by, though the largest
    assert weights["protein"] == pytest.approx(0.5 * 4.0)
    # What it weighs concerns its own decoder alone.
    assert weights["noise"] == pytest.approx(math.sqrt(800 / 3000))
    assert modality_weights(nats, 0.5, dict.fromkeys(nats, 1.0)) == modality_weights(nats, 0.5)


def with_noise(n_cells: int = 360):
    """RNA and protein of simulated cells, and noise whose mean differs between batches."""
    data = small_mosaic(n_cells, patterns={"rna+protein": 0.9, "rna": 0.1}, n_types=3)
    noise = data["rna"][:, :20].copy()
    batch = np.unique(noise.obs["batch"], return_inverse=True)[1]
    rate = np.where(np.arange(20) % 2 == batch[:, None], 1.0, 4.0)
    noise.X = type(noise.X)(np.random.default_rng(5).poisson(rate).astype(np.float32))
    noise.var_names = [f"noise{number}" for number in range(20)]
    return make_mudata(
        {"rna": data["rna"].copy(), "protein": data["protein"].copy(), "noise": noise}
    )


@pytest.fixture(scope="module")
def model():
    kinds = {"rna": "nb", "protein": "nb_mixture", "noise": "nb"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MosaicviWarning)
        model = build(with_noise(), kinds)
    model.is_trained_ = True  # what is tested is known before training
    return model


def test_noise_that_differs_between_batches_has_no_trust(model) -> None:
    assert model.module.trust == {"rna": 1.0, "protein": 1.0, "noise": 0.0}


@pytest.mark.parametrize("split", ["rna", "protein"])
def test_a_part_of_an_assay_is_trusted(split: str) -> None:
    """Two halves of one modality tell of each other and of the third."""
    data = small_mosaic(360, patterns={"rna+protein": 0.9, "rna": 0.1}, n_types=3)
    parts = {name: data[name].copy() for name in data.mod}
    parts[split], parts["second"] = data[split][:, ::2].copy(), data[split][:, 1::2].copy()
    kinds = {"rna": "nb", "protein": "nb_mixture"}
    kinds["second"] = kinds[split]
    assert set(build(make_mudata(parts), kinds).module.trust.values()) == {1.0}


def test_noise_is_no_evidence_beside_another(model) -> None:
    module = model.module
    module.eval()
    batch = model._cells(None).dataset.fetch(np.arange(40))
    with torch.no_grad():
        experts = module.experts(batch)
        both = module.posterior(experts, module.subset_of(["rna", "noise"]))
        alone = module.posterior(experts, module.subset_of(["rna"]))
        noise = module.posterior(experts, module.subset_of(["noise"]))
    assert torch.equal(both.mean, alone.mean)
    assert torch.equal(both.variance, alone.variance)
    # On its own it says the same of every cell.
    assert torch.allclose(noise.mean, noise.mean[:1].expand_as(noise.mean), atol=1e-6)
    assert experts.present[2].all()
    assert not experts.heard[2].any()
    contribution = model.get_modality_contribution()
    assert (contribution["noise"] == 0).all()
    assert contribution.sum(1).to_numpy() == pytest.approx(1.0)


def test_trust_is_saved(model, tmp_path) -> None:
    from mosaicvi import MosaicVI

    model.save(tmp_path / "m")
    loaded = MosaicVI.load(tmp_path / "m", with_noise())
    assert loaded.module.trust == model.module.trust
