"""Figures: what is on the axes, not how pixels look."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from mudata import MuData
from tests.fits import build, fit, without_truth

from mosaicvi import pl
from mosaicvi._errors import MosaicviWarning, RequestError
from mosaicvi.datasets import SimulatedModality, simulate

if TYPE_CHECKING:
    from collections.abc import Iterator

N_CELLS, FEATURES = 80, [f"cd{number}" for number in range(1, 9)]


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def counts() -> pd.DataFrame:
    drawn = np.random.default_rng(0).negative_binomial(3, 0.1, (N_CELLS, len(FEATURES)))
    names = [f"cell{number}" for number in range(N_CELLS)]
    return pd.DataFrame(drawn.astype(float), index=names, columns=FEATURES)


@pytest.fixture
def imputed(counts: pd.DataFrame) -> ad.AnnData:
    noise = np.random.default_rng(1).normal(scale=0.2, size=counts.shape)
    answer = ad.AnnData(
        counts.to_numpy().astype(np.float32),
        obs=pd.DataFrame(index=counts.index),
        var=pd.DataFrame({"imputability": np.linspace(0.2, 0.9, 8)}, index=FEATURES),
    )
    answer.layers["log1p_mean"] = np.log1p(counts.to_numpy()) + noise
    answer.uns["mosaicvi"] = {"scale": "counts"}
    return answer


@pytest.fixture
def trained() -> SimpleNamespace:
    """What pl.history reads of a model."""
    falling = pd.DataFrame({"value": 10 + 100 * np.exp(-np.arange(30))})
    names = ("train_loss", "validation_loss", "kl_train", "kl_validation")
    result = SimpleNamespace(best_epoch=24)
    return SimpleNamespace(history=dict.fromkeys(names, falling), fit_result=result)


def test_history_shows_the_objective(trained: SimpleNamespace) -> None:
    ax = pl.history(trained)
    assert ax.get_xlabel() == "epoch"
    assert "nats per cell" in ax.get_ylabel()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["train", "validation", "kept: epoch 25"]
    assert ax.get_ylim()[1] < 100  # the first epoch does not set the range


def test_history_of_terms_on_given_axes(trained: SimpleNamespace) -> None:
    _, mine = plt.subplots()
    assert pl.history(trained, ax=mine, terms=["kl", "loss"]) is mine
    assert len([line for line in mine.lines if len(line.get_xdata()) == 30]) == 4
    with pytest.raises(RequestError, match="'kl'"):
        pl.history(trained, terms=["entropy"])
    with pytest.raises(RequestError, match="train"):
        pl.history(SimpleNamespace(history=None, fit_result=None))


def test_scatter_of_one_and_of_several(imputed: ad.AnnData, counts: pd.DataFrame) -> None:
    _, mine = plt.subplots()
    ax = pl.imputation(imputed, counts, "cd3", ax=mine)
    assert ax is mine
    assert ax.get_title() == "cd3"
    assert ax.get_xlabel() == "measured (log1p counts)"
    assert ax.get_ylabel() == "imputed (log1p counts)"
    dots = ax.collections[0].get_offsets()
    np.testing.assert_allclose(dots[:, 0], np.log1p(counts["cd3"]))
    panels = pl.imputation(imputed, counts)
    assert [panel.get_title() for panel in panels] == FEATURES[:1:-1]  # by imputability
    with pytest.raises(RequestError, match="2 axes"):
        pl.imputation(imputed, counts, ["cd1", "cd2", "cd3"], ax=plt.subplots(1, 2)[1])


def test_cells_and_features_are_matched_by_name(imputed: ad.AnnData, counts: pd.DataFrame) -> None:
    shuffled = counts.iloc[::-1, ::-1].iloc[:40]
    ax = pl.imputation(imputed, shuffled, "cd5")
    dots = ax.collections[0].get_offsets()
    np.testing.assert_allclose(dots[:, 0], np.log1p(counts["cd5"].iloc[40:]))
    as_adata = ad.AnnData(shuffled)
    again = pl.imputation(imputed, as_adata, "cd5").collections[0].get_offsets()
    np.testing.assert_allclose(again, dots)
    with pytest.raises(RequestError, match="no imputed cell"):
        pl.imputation(imputed, counts.set_axis([f"x{i}" for i in range(N_CELLS)]), "cd5")


def test_violins_with_background(imputed: ad.AnnData, counts: pd.DataFrame) -> None:
    ax = pl.imputation(
        imputed, counts, FEATURES[:3], kind="violin", background=counts.clip(upper=10)
    )
    assert [tick.get_text() for tick in ax.get_xticklabels()] == FEATURES[:3]
    assert ax.get_ylabel() == "log1p counts"
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["measured", "imputed", "background"]
    assert len(ax.collections) == 3 * (2 + 2)  # halves, band and line
    counts["cd1"] = 0.0
    pl.imputation(imputed, counts, "cd1", kind="violin")  # a constant has no density


def test_gate_counts_quadrants(imputed: ad.AnnData, counts: pd.DataFrame) -> None:
    panels = pl.imputation(imputed, counts, ["cd1", "cd2"], kind="gate")
    assert [panel.get_title() for panel in panels] == ["measured", "imputed (mean)"]
    assert panels[0].get_xlabel() == "cd1 (log1p counts)"
    assert panels[0].get_ylabel() == "cd2 (log1p counts)"
    assert panels[0].get_xlim() == panels[1].get_xlim()
    for panel in panels:
        shares = [float(text.get_text().rstrip("%")) for text in panel.texts]
        assert sum(shares) == pytest.approx(100, abs=2)
    imputed.layers["draw"] = counts.to_numpy()
    panels = pl.imputation(imputed, counts, ["cd1", "cd2"], kind="gate")
    assert panels[1].get_title() == "imputed (one draw a cell)"
    left, right = (panel.collections[0].get_offsets() for panel in panels)
    np.testing.assert_allclose(left, right)
    with pytest.raises(RequestError, match="two"):
        pl.imputation(imputed, counts, ["cd1"], kind="gate")


def test_measured_values_are_counts(imputed: ad.AnnData, counts: pd.DataFrame) -> None:
    def measured(values: pd.DataFrame) -> ad.AnnData:
        return ad.AnnData(values.astype(np.float32))

    logs = np.log1p(counts)
    with pytest.warns(MosaicviWarning, match=r'no whole numbers.*to_df\(layer="counts"\)'):
        pl.imputation(imputed, measured(logs), "cd3")
    with pytest.raises(RequestError, match=r"'measured'.*values are negative"):
        pl.imputation(imputed, measured(logs - logs.mean()), "cd3")
    pl.imputation(imputed, logs, "cd3")  # means of counts, such as the truth of simulated ones


def test_names_of_measured_values_are_matched_or_refused(
    imputed: ad.AnnData, counts: pd.DataFrame
) -> None:
    twice = ["cd1", *counts.columns[1:-1], "cd1"]
    with pytest.raises(RequestError, match="features of the same name: 'cd1'"):
        pl.imputation(imputed, counts.set_axis(twice, axis=1))
    with pytest.raises(RequestError, match="cells of the same name: 'cell0'"):
        pl.imputation(imputed, counts.iloc[[0, *range(N_CELLS - 1)]])
    with pytest.raises(RequestError, match=r"no imputed feature.*'adt_cd1'.*'cd1'"):
        pl.imputation(imputed, counts.add_prefix("adt_"))
    with pytest.raises(RequestError, match="MuData"):
        pl.imputation(imputed, MuData({"protein": imputed}))


def test_what_was_measured_is_seen_on_dark_axes(imputed: ad.AnnData, counts: pd.DataFrame) -> None:
    def colours() -> list[tuple[float, ...]]:
        panel = pl.imputation(imputed, counts, ["cd1", "cd2"], kind="gate")[0]
        violin = pl.imputation(imputed, counts, ["cd1", "cd2"], kind="violin")
        shown = [panel.collections[0], panel.texts[0], violin.collections[0]]
        found = [part.get_facecolor()[0] for part in (shown[0], shown[2])]
        return [tuple(colour[:3]) for colour in found] + [to_rgb(shown[1].get_color())]

    assert all(max(colour) < 0.3 for colour in colours())
    with plt.style.context("dark_background"):
        assert all(min(colour) > 0.7 for colour in colours())


def test_imputation_refuses_what_it_does_not_know(
    imputed: ad.AnnData, counts: pd.DataFrame
) -> None:
    with pytest.raises(RequestError, match="'violin'"):
        pl.imputation(imputed, counts, kind="bar")
    with pytest.raises(RequestError, match="cd99"):
        pl.imputation(imputed, counts, "cd99")
    with pytest.raises(RequestError, match="q50"):
        pl.imputation(imputed, counts, layer="q50")


def test_calibration_of_right_draws_lies_on_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    draws = rng.poisson(4.0, size=(60, 3000, 4))
    measured = pd.DataFrame(rng.poisson(4.0, size=(3000, 4)), columns=list("abcd"))
    ax = pl.calibration(draws, measured)
    bold = max(ax.lines, key=lambda line: line.get_linewidth())
    np.testing.assert_allclose(bold.get_ydata(), bold.get_xdata(), atol=0.03)
    assert len(ax.lines) == 1 + 4 + 1 + 1  # diagonal, features, worst, mean
    assert ax.get_xlabel() == "nominal coverage of the interval"
    assert ax.get_ylabel() == "measured values inside it"
    assert any("worst" in text.get_text() for text in ax.texts)


def test_calibration_leaves_out_entries_without_draws() -> None:
    rng = np.random.default_rng(0)
    draws = rng.poisson(4.0, size=(60, 3000, 2)).astype(float)
    draws[:, 1500:] = np.nan
    ax = pl.calibration(draws, rng.poisson(4.0, size=(3000, 2)))
    bold = max(ax.lines, key=lambda line: line.get_linewidth())
    np.testing.assert_allclose(bold.get_ydata(), bold.get_xdata(), atol=0.04)


def test_calibration_says_what_it_takes(trained: SimpleNamespace) -> None:
    with pytest.raises(RequestError, match=r"draws.*SimpleNamespace.*posterior_predictive_sample"):
        pl.calibration(trained, np.zeros((3, 1)))
    with pytest.raises(RequestError, match=r"measured.*found str.*AnnData"):
        pl.calibration(np.zeros((2, 3, 1)), "protein")
    with pytest.raises(RequestError, match=r"'features'.*1 names of 2 features"):
        pl.calibration(pit=np.full((9, 2), 0.5), features=["cd1"])
    whole = ad.AnnData(np.ones((60, 20), dtype=np.float32))  # of which numpy makes no array
    with pytest.raises(RequestError, match=r"draws.*AnnData"):
        pl.calibration(whole, np.zeros((60, 20)))
    with pytest.raises(RequestError, match=r"measured.*MuData.*name the modality"):
        pl.calibration(np.zeros((2, 60, 20)), MuData({"protein": whole}))


def test_factors_are_drawn_of_factor_models(trained: SimpleNamespace) -> None:
    for draw in (pl.variance_explained, lambda model: pl.weights(model, "rna"), pl.factors):
        with pytest.raises(RequestError, match=r"'model'.*SimpleNamespace.*FactorVI"):
            draw(trained)


def test_calibration_from_pit_on_given_axes() -> None:
    _, mine = plt.subplots()
    ax = pl.calibration(pit=np.random.default_rng(0).random((500, 1)), ax=mine)
    assert ax is mine
    with pytest.raises(RequestError, match="pit"):
        pl.calibration(np.zeros((2, 3, 1)))


def test_calibration_of_nothing_measured_is_refused() -> None:
    nothing = np.full((5, 2), np.nan)
    with pytest.raises(RequestError, match=r"'pit'.*all values are missing"):
        pl.calibration(pit=nothing)
    with pytest.raises(RequestError, match=r"'measured'.*all values are missing"):
        pl.calibration(np.zeros((3, 5, 2)), nothing)


@pytest.fixture
def continuous(counts: pd.DataFrame) -> tuple[ad.AnnData, pd.DataFrame]:
    """An answer of continuous values, half of them below zero, and what was measured."""
    rng = np.random.default_rng(2)
    measured = pd.DataFrame(rng.normal(scale=0.01, size=counts.shape), counts.index, FEATURES)
    answer = ad.AnnData(
        (measured + rng.normal(scale=0.01, size=counts.shape)).astype(np.float32),
        uns={"mosaicvi": {"scale": "counts"}},
    )
    answer.layers["sd"] = np.ones(counts.shape)
    return answer, measured


def test_continuous_values_are_drawn_as_they_are(
    continuous: tuple[ad.AnnData, pd.DataFrame],
) -> None:
    answer, measured = continuous
    ax = pl.imputation(answer, measured, "cd3")
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 0], measured["cd3"])
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 1], answer[:, "cd3"].X[:, 0])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("measured", "imputed")
    low, top = ax.get_xlim()
    assert max(-low, top) < 0.1  # the range is that of the values
    assert len(ax.get_xticks()) > 2
    r = np.corrcoef(measured["cd3"], answer[:, "cd3"].X[:, 0])[0, 1]
    assert [text.get_text() for text in ax.texts] == [f"r = {r:.2f}"]
    assert pl.imputation(answer, measured, FEATURES[:2], kind="violin").get_ylabel() == "value"
    panels = pl.imputation(answer, measured, ["cd1", "cd2"], kind="gate")
    np.testing.assert_allclose(panels[0].collections[0].get_offsets(), measured[["cd1", "cd2"]])
    assert (panels[0].get_xlabel(), panels[0].get_ylabel()) == ("cd1", "cd2")
    with pytest.raises(RequestError, match=r"'background'.*continuous"):
        pl.imputation(answer, measured, "cd1", kind="violin", background=measured)


def test_a_continuous_modality_of_a_model_is_drawn_as_it_is() -> None:
    specs = {
        "rna": SimulatedModality.rna(40, likelihood="nb"),
        "score": SimulatedModality.normal(6),
    }
    mdata = without_truth(simulate(80, specs, n_latent=3, seed=1, patterns={"rna+score": 1.0}))
    model = fit(build(mdata, {"rna": "nb", "score": "normal"}), max_epochs=1)
    answer = model.impute("score", ["rna"], n_samples=3)
    ax = pl.imputation(answer, mdata.mod["score"], "score0001")
    dots = pd.DataFrame(ax.collections[0].get_offsets())
    measured = mdata.mod["score"][:, "score0001"].X[:, 0]
    np.testing.assert_allclose(sorted(dots[0]), sorted(measured), rtol=1e-5)


@pytest.mark.parametrize("kind", ["scatter", "violin", "gate"])
def test_a_feature_named_twice_is_refused(
    imputed: ad.AnnData, counts: pd.DataFrame, kind: str
) -> None:
    with pytest.raises(RequestError, match=r"'features'.*'cd1' is named twice"):
        pl.imputation(imputed, counts, ["cd1", "cd1"], kind=kind)


def test_a_gate_without_measured_values_is_refused(
    imputed: ad.AnnData, counts: pd.DataFrame
) -> None:
    counts["cd1"] = np.nan
    with pytest.raises(RequestError, match=r"'measured'.*no cell has both 'cd1' and 'cd2'"):
        pl.imputation(imputed, counts, ["cd1", "cd2"], kind="gate")
    assert not plt.get_fignums()


@pytest.mark.parametrize("levels", [np.linspace(0.1, 0.9, 9), 0.5])
def test_calibration_at_levels_of_numpy(levels: np.ndarray | float) -> None:
    ax = pl.calibration(pit=np.random.default_rng(0).random((500, 2)), levels=levels)
    bold = max(ax.lines, key=lambda line: line.get_linewidth())
    np.testing.assert_array_equal(bold.get_xdata(), np.atleast_1d(levels))
    with pytest.raises(RequestError, match="'levels'"):
        pl.calibration(pit=np.zeros((5, 2)), levels=95)


def test_history_of_one_term_names_it_and_its_unit(trained: SimpleNamespace) -> None:
    assert pl.history(trained, terms="kl").get_ylabel() == "kl (nats per cell)"
    falling = trained.history["kl_train"]
    trained.history |= {"graph_train": falling, "graph_validation": falling}
    assert pl.history(trained, terms="graph").get_ylabel() == "graph (nats per edge)"
    assert (
        pl.history(trained, terms=["kl", "graph"]).get_ylabel() == "nats per cell (graph: per edge)"
    )


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
def test_the_answer_comes_first(imputed: ad.AnnData, counts: pd.DataFrame, kind: Any) -> None:
    """A sparse matrix was an error of numpy, a dense one was drawn."""
    measured = ad.AnnData(kind(counts), obs=counts[[]], var=counts.T[[]])
    answer = imputed.copy()
    answer.uns["mosaicvi"] = {"modality": "protein"}
    pl.imputation(answer, measured)
    with pytest.raises(RequestError, match=r"other way.*pl\.imputation\(imputed, measured\)"):
        pl.imputation(measured, answer)


def test_measured_values_in_layers_alone_are_told_of(
    imputed: ad.AnnData, counts: pd.DataFrame
) -> None:
    layers = {"counts": counts.to_numpy()}
    measured = ad.AnnData(obs=counts[[]], var=counts.T[[]], layers=layers)
    with pytest.raises(RequestError, match=r"'measured'.*without X.*to_df\(layer="):
        pl.imputation(imputed, measured)
    pl.imputation(imputed, measured.to_df(layer="counts"))


def test_long_names_of_groups_do_not_run_into_each_other() -> None:
    from tests.fits import small_mosaic

    from mosaicvi import FactorVI, pl

    mdata = small_mosaic(200)
    mdata.obs["donor"] = np.resize(["donor 1 before", "donor 1 three weeks after"], 200)
    FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    model = FactorVI(mdata, n_factors=2, groups="donor")
    model.is_trained_ = True
    ax = pl.variance_explained(model)
    ax.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert len(boxes) == 4
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
