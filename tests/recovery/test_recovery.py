"""Draw cells from the model's own story, fit, and find again what was put in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression
from tests.fits import QUIET, without_truth

from mosaicvi import MosaicVI
from mosaicvi.datasets import SimulatedModality, simulate, true_mean

if TYPE_CHECKING:
    from mudata import MuData

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")

N_CELLS, N_LATENT, N_DRAWS = 1050, 4, 200
BATCHES = ("one", "two", "new")
UNRELATED = 5
"""This protein is shuffled over cells: nothing of it is in the RNA."""


@dataclass(frozen=True)
class Fitted:
    """A fit and the truth it did not see."""

    model: MosaicVI
    data: MuData
    z: np.ndarray
    protein: np.ndarray
    protein_mean: np.ndarray
    batch: np.ndarray
    hidden: np.ndarray


def _data() -> tuple[MuData, dict[str, np.ndarray]]:
    seen = {"rna+protein": 0.75, "rna": 0.25}
    data = simulate(
        N_CELLS,
        {
            "rna": SimulatedModality.rna(150, likelihood="nb"),
            "protein": SimulatedModality.protein(12, n_isotypes=1),
        },
        patterns={"one": seen, "two": seen, "new": {"rna": 1.0}},
        batches=BATCHES,
        n_latent=N_LATENT,
        n_types=0,
        seed=21,
    )
    truth = {
        "z": np.asarray(data.obsm["truth_z"]),
        "protein": data.obsm["truth_protein"].toarray(),
        "mean": true_mean(data, "protein"),
    }
    order = np.random.default_rng(0).permutation(N_CELLS)
    truth["protein"][:, UNRELATED] = truth["protein"][order, UNRELATED]
    truth["mean"][:, UNRELATED] = np.nan
    places = np.asarray(data.obsmap["protein"]).ravel().astype(int) - 1
    values = data["protein"].X.toarray()
    values[places[places >= 0]] = truth["protein"][places >= 0]
    data["protein"].X = type(data["protein"].X)(values)
    return without_truth(data), truth


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    data, truth = _data()
    MosaicVI.setup_mudata(data, {"rna": "nb", "protein": "nb_mixture"}, batch_key="batch")
    model = MosaicVI(data, n_latent=8, n_hidden=64)
    model.train(100, batch_size=128, train_size=0.85, **QUIET)
    return Fitted(
        model,
        data,
        truth["z"],
        truth["protein"],
        truth["mean"],
        data.obs["batch"].to_numpy(),
        np.asarray(data.obsmap["protein"]).ravel() == 0,
    )


def draws(fitted: Fitted, rows: np.ndarray) -> np.ndarray:
    return fitted.model.posterior_predictive_sample(
        "protein", ["rna"], indices=rows, n_samples=N_DRAWS
    )


def crps(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of each entry, from sorted draws."""
    ordered = np.sort(samples, axis=0)
    count = len(ordered)
    weights = (2 * np.arange(1, count + 1) - count - 1).reshape(-1, 1, 1)
    spread = (weights * ordered).sum(0) / count**2
    return np.abs(samples - truth).mean(0) - spread


def pit(samples: np.ndarray, truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """Randomised probability integral transform of counts."""
    below, equal = (samples < truth).mean(0), (samples == truth).mean(0)
    return below + np.random.default_rng(seed).random(truth.shape) * equal


def in_rows(fitted: Fitted, *batches: str) -> np.ndarray:
    return np.flatnonzero(fitted.hidden & np.isin(fitted.batch, batches))


@pytest.mark.parametrize("evidence", [["rna"], None])
def test_latent_space(fitted: Fitted, evidence: list[str] | None) -> None:
    rows = np.flatnonzero(fitted.batch != "new")
    latent = fitted.model.get_latent_representation(indices=rows, from_modalities=evidence)
    train, test = rows[::2], rows[1::2]
    regression = LinearRegression().fit(latent[::2], fitted.z[train])
    residual = fitted.z[test] - regression.predict(latent[1::2])
    r_squared = 1 - residual.var(0) / fitted.z[test].var(0)
    assert r_squared.min() > 0.6
    assert r_squared.mean() > 0.7


def test_batch_is_not_in_the_latent_space(fitted: Fitted) -> None:
    latent = fitted.model.get_latent_representation()
    means = [latent[fitted.batch == name].mean(0) for name in BATCHES]
    assert np.abs(np.stack(means) / latent.std(0)).max() < 0.5


def test_imputed_means_are_the_true_ones(fitted: Fitted) -> None:
    rows = in_rows(fitted, "one", "two")
    got = fitted.model.impute("protein", ["rna"], indices=rows, n_samples=50)
    predicted = np.log1p(np.asarray(got.layers["denoised"]))
    truth = np.log1p(fitted.protein_mean[rows])
    related = [f for f in range(12) if f != UNRELATED]
    each = [np.corrcoef(predicted[:, f], truth[:, f])[0, 1] for f in related]
    assert np.median(each) > 0.75
    assert min(each) > 0.4


def test_predictions_beat_the_marginal(fitted: Fitted) -> None:
    rows = in_rows(fitted, "one", "two")
    truth = np.log1p(fitted.protein[rows])
    ours = crps(np.log1p(draws(fitted, rows)), truth).mean(0)
    measured = fitted.protein[~fitted.hidden]
    chosen = np.random.default_rng(0).choice(len(measured), N_DRAWS, replace=False)
    marginal = np.log1p(measured[chosen])[:, None, :].repeat(len(rows), 1)
    others = crps(marginal, truth).mean(0)
    assert ours.mean() < 0.93 * others.mean()
    assert (ours < 1.12 * others).all()  # no protein, not even the unrelated one, is much worse


def test_intervals_cover(fitted: Fitted) -> None:
    rows = in_rows(fitted, "one", "two")
    ranks = pit(draws(fitted, rows), fitted.protein[rows])
    for level in (0.5, 0.8, 0.95):
        covered = np.abs(ranks - 0.5) < level / 2
        # Binomial bounds on cells, each of which counts once; and what a fit on few cells may err.
        allowed = stats.norm.ppf(0.9995) * np.sqrt(level * (1 - level) / len(rows))
        assert abs(covered.mean() - level) < allowed
        assert np.abs(covered.mean(0) - level).max() < allowed + 0.05


def test_a_batch_never_measured_is_less_certain(fitted: Fitted) -> None:
    """The same cells, answered for as of a measured batch, get narrower intervals."""
    rows = in_rows(fitted, "new")

    def width(**options: Any) -> np.ndarray:
        got = fitted.model.impute(
            "protein", ["rna"], indices=rows, n_samples=N_DRAWS, scale="log1p", **options
        )
        return np.asarray(got.layers["q95"] - got.layers["q05"]).mean(0)

    assert (width() > width(transform_batch="one")).mean() > 0.9
    ranks = pit(draws(fitted, rows), fitted.protein[rows])
    covered = np.abs(ranks - 0.5) < 0.45
    assert covered.mean() > 0.84


def test_imputability_tells_what_rna_holds(fitted: Fitted) -> None:
    got = fitted.model.impute("protein", ["rna"], n_samples=2)
    scores = got.var["imputability"].to_numpy()
    isotype = 12
    assert np.isfinite(scores).all()
    n_cells = got.uns["mosaicvi"]["imputability_cells"]
    chance = 3.5 / np.sqrt(n_cells)
    assert abs(scores[UNRELATED]) < chance
    assert abs(scores[isotype]) < chance
    related = np.delete(scores, [UNRELATED, isotype])
    assert np.median(related) > 0.4
    assert not got.var["imputable"].iloc[[UNRELATED, isotype]].any()
    # measured on cells that the fit did not see, it foretells what hidden cells get
    rows = in_rows(fitted, "one", "two")
    hidden = fitted.model.impute("protein", ["rna"], indices=rows, n_samples=50)
    predicted, truth = np.asarray(hidden.layers["log1p_mean"]), np.log1p(fitted.protein[rows])
    reached = [np.corrcoef(predicted[:, f], truth[:, f])[0, 1] for f in range(13)]
    assert np.abs(scores - reached).mean() < 0.15
