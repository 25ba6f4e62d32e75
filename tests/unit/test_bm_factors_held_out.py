"""Held-out deviance and stability of the factor comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from mosaicvi._errors import FileError, RequestError
from mosaicvi.bm.__main__ import main
from mosaicvi.bm._factor_held_out import HeldOutFactors, HeldOutTask
from mosaicvi.bm._factor_input import FactorAnswer, FactorInput
from mosaicvi.bm._factor_score import HeldOut, dispersion, negative_binomial_deviance
from mosaicvi.bm._factor_stability import agreement, found_again, stabilities, stability_table
from mosaicvi.bm._load import combine
from mosaicvi.bm._runner import read_records
from mosaicvi.bm._table import comparison_table
from mosaicvi.bm.factors._marginal import Marginal
from mosaicvi.bm.factors._pca import PrincipalComponents

if TYPE_CHECKING:
    from pathlib import Path


def test_deviance_is_twice_the_gap_to_the_saturated_likelihood() -> None:
    counts = np.array([[0.0, 1.0, 7.0]])
    means, spread = np.array([[0.5, 2.0, 3.0]]), np.array([0.3, 1.0, 2.0])

    def log_likelihood(mean: np.ndarray) -> np.ndarray:
        size = 1 / spread
        return np.asarray(stats.nbinom.logpmf(counts, size, size / (size + mean)))

    saturated = log_likelihood(np.maximum(counts, 1e-12))
    expected = 2 * (saturated - log_likelihood(means))
    np.testing.assert_allclose(negative_binomial_deviance(counts, means, spread), expected)


def test_dispersion_is_that_of_the_draws() -> None:
    rng = np.random.default_rng(0)
    means = np.full((20000, 1), 5.0)
    counts = rng.poisson(rng.gamma(2.0, 2.5, size=means.shape)).astype(float)
    assert dispersion(counts, means)[0] == pytest.approx(0.5, abs=0.05)


def counted(seed: int = 0) -> tuple[HeldOut, np.ndarray]:
    """Counts of two groups of cells, and the true shares of known and hidden cells."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(20), size=2)
    group = rng.integers(2, size=300)
    depth = rng.integers(50, 500, size=300)
    counts = np.stack([rng.multinomial(n, shares[g]) for n, g in zip(depth, group, strict=True)])
    counts = counts.astype(float)
    held = HeldOut(counts[:200], counts[:100], counts[200:], is_count=True)
    return held, shares[np.r_[group[:100], group[200:]]]


def test_truth_beats_feature_means_and_depth_is_given() -> None:
    held, truth = counted()
    best = held.score(truth)
    assert best["r2"] > 0.3
    assert best["low"] < best["r2"] < best["high"]
    scaled = held.score(truth * np.linspace(0.1, 10, len(truth))[:, None])
    assert scaled["r2"] == pytest.approx(best["r2"])


def test_feature_means_explain_nothing() -> None:
    held, truth = counted()
    means = np.tile(held.training.sum(0), (len(truth), 1))
    assert held.score(means)["r2"] == pytest.approx(0.0, abs=0.01)


def test_a_constant_factor_a_feature_is_made_right() -> None:
    held, truth = counted()
    bias = np.exp(np.random.default_rng(1).normal(size=truth.shape[1]))
    assert held.score(truth * bias)["r2"] == pytest.approx(held.score(truth)["r2"], abs=0.02)


def test_impossible_rates_have_a_finite_deviance() -> None:
    held, truth = counted()
    assert np.isfinite(held.score(np.full_like(truth, -1.0))["r2"])


def test_real_numbers_are_scored_by_squared_error() -> None:
    rng = np.random.default_rng(0)
    training, hidden = rng.normal(3, 2, size=(500, 4)), rng.normal(3, 2, size=(100, 4))
    held = HeldOut(training, training[:10], hidden, is_count=False)
    assert held.score(np.r_[training[:10], hidden])["r2"] == pytest.approx(1.0)
    means = np.tile(training.mean(0), (110, 1))
    assert held.score(means)["r2"] == pytest.approx(0.0)


def test_no_cell_loses_two_modalities_and_methods_see_no_hidden_value() -> None:
    comparison = HeldOutFactors("pbmc_mosaic", n_cells=400, features={"rna": 50}, split=3)
    task = comparison.task(0)
    shown, wanted = task.public.mdata, task.public.wanted
    hidden = {n: set(wanted[n]) - set(shown.mod[n].obs_names) for n in wanted}
    assert all(hidden.values())
    assert not hidden["rna"] & hidden["protein"]
    assert hidden["rna"] <= set(shown.mod["protein"].obs_names)
    assert shown.mod["rna"].n_vars == 50
    for name, truth in task.truth.items():
        assert len(truth.hidden) == len(hidden[name])
        assert truth.training.shape[0] == shown.mod[name].n_obs
    other = comparison.task(1)
    assert other.public.wanted == wanted
    assert other.public.seed == 1


def test_features_are_those_of_the_data_whichever_cells_are_drawn() -> None:
    comparison = HeldOutFactors("pbmc_mosaic", n_cells=150, features={"rna": 50})
    first, second = (comparison.task(seed).public.mdata for seed in (0, 1))
    assert set(first.obs_names) != set(second.obs_names)
    for name, part in first.mod.items():
        assert list(part.var_names) == list(second.mod[name].var_names)
    part = comparison._loaded.mod["rna"]
    present = np.asarray((part.X > 0).sum(0)).ravel()
    assert present[part.var_names.isin(first.mod["rna"].var_names)].min() >= np.sort(present)[-50]


def test_cohort_lacks_one_modality_for_a_third() -> None:
    task = HeldOutFactors("cohort").task(0)
    described = task.describe()
    assert described["n_cells"] == 200
    assert described["n_hidden"] == {"expression": 67}
    assert described["n_shown"] == {"expression": 133, "methylation": 200, "drug": 200}


def test_shares_that_hide_everything_are_refused() -> None:
    with pytest.raises(RequestError, match="hide"):
        HeldOutFactors("pbmc_mosaic", hide=0.5)


def test_principal_components_predict_an_absent_modality() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 2))
    tables = {}
    for name, n_features in (("a", 30), ("b", 40)):
        values = z @ rng.normal(size=(2, n_features)) + 0.3 * rng.normal(size=(300, n_features))
        obs = pd.DataFrame(index=[f"c{i:03d}" for i in range(300)])
        var = pd.DataFrame(index=[f"{name}{i}" for i in range(n_features)])
        tables[name] = AnnData(values.astype(np.float32), obs, var)
    truth = tables["b"].X[200:].copy()
    shown = {"a": tables["a"], "b": tables["b"][:200].copy()}
    mdata = combine(shown, pd.DataFrame(index=tables["a"].obs_names))
    wanted = {"b": list(tables["a"].obs_names[200:])}
    task = FactorInput(mdata, {"a": "normal", "b": "normal"}, 2, 0, wanted=wanted)
    method = PrincipalComponents(task)
    method.fit()
    answer = method.predict()[""]
    error = ((answer.predictions["b"] - truth) ** 2).sum()
    assert 1 - error / ((truth - shown["b"].X.mean(0)) ** 2).sum() > 0.85
    plain = Marginal(task)
    plain.fit()
    assert np.allclose(plain.predict()[""].predictions["b"], shown["b"].X.mean(0))


def fitted(z: np.ndarray, w: np.ndarray) -> FactorAnswer:
    activity = np.ones((z.shape[1], 1), dtype=bool)
    return FactorAnswer(z, activity, {"rna": w})


def test_depth_in_a_factor_is_stated_a_modality() -> None:
    """Over the cells that show a modality, whatever the others' rows say; none for real numbers."""
    rng = np.random.default_rng(0)
    names = np.array([f"cell{number:03d}" for number in range(120)])
    parts, depths = {}, {}
    for name, rows in (("a", slice(0, 100)), ("b", slice(20, 120))):
        depths[name] = rng.integers(20, 400, 100)
        values = rng.multinomial(depths[name], np.full(10, 0.1)).astype(np.float32)
        parts[name] = AnnData(values, obs=pd.DataFrame(index=names[rows]))
    mdata = combine(parts, pd.DataFrame(index=names))
    place = mdata.obs_names.get_indexer(names)
    z = np.zeros((120, 3))
    z[place[:100], 0] = -np.log1p(depths["a"])
    z[place[20:], 1] = np.log1p(depths["b"]) + rng.normal(0, 1, 100)
    task = HeldOutTask(FactorInput(mdata, {"a": "nb", "b": "nb"}, 3, 0), {})
    found = task.depths(z)
    assert found["depth_correlations"]["a"] == pytest.approx(1.0)
    expected = abs(np.corrcoef(z[place[20:], 1], np.log1p(depths["b"]))[0, 1])
    assert found["depth_correlations"]["b"] == pytest.approx(expected, abs=0.2)
    assert found["depth_correlation"] == pytest.approx(1.0)
    real = HeldOutTask(FactorInput(mdata, {"a": "normal", "b": "normal"}, 3, 0), {})
    assert real.depths(z) == {}


def test_depth_within_types_is_what_types_do_not_differ_by() -> None:
    rng = np.random.default_rng(0)
    kind = np.arange(200) % 2
    depth = np.where(kind, 2000, 300) + rng.integers(-100, 100, 200)
    shares = np.array([[0.19] * 5 + [0.01] * 5, [0.01] * 5 + [0.19] * 5])
    counts = np.stack([rng.multinomial(n, shares[k]) for n, k in zip(depth, kind, strict=True)])
    parts = {"a": AnnData(counts.astype(np.float32))}
    mdata = combine(parts, pd.DataFrame(index=parts["a"].obs_names))
    task = HeldOutTask(FactorInput(mdata, {"a": "nb"}, 1, 0), {})
    rows = mdata.obs_names.astype(int)
    told = task.depths((kind + rng.normal(0, 0.1, 200))[rows, None])
    assert told["depth_correlations"]["a"] > 0.9
    assert told["depth_within_types"]["a"] < 0.3
    assert task.depths(np.log1p(depth)[rows, None])["depth_within_types"]["a"] > 0.95


def test_agreement_of_fits_that_saw_other_cells() -> None:
    rng = np.random.default_rng(0)
    z, w = rng.normal(size=(200, 3)), rng.normal(size=(50, 3))
    names = np.array([f"cell{number}" for number in range(200)])
    order = rng.permutation(200)[:150]
    first = replace(fitted(z, w), cells=names)
    assert agreement(first, replace(fitted(z[order], w), cells=names[order])) == pytest.approx(
        (1.0, 1.0)
    )
    with pytest.raises(FileError, match="share none by name"):
        agreement(first, fitted(z[order], w))
    with pytest.raises(FileError, match="share none by name"):
        agreement(first, replace(fitted(z, w), cells=np.char.add(names, "x")))


def test_weights_of_other_features_are_refused() -> None:
    rng = np.random.default_rng(0)
    z, w = rng.normal(size=(200, 3)), rng.normal(size=(50, 3))
    with pytest.raises(FileError, match=r"'rna': 50.*'rna': 49.*same features"):
        agreement(fitted(z, w), fitted(z, w[1:]))


def test_agreement_is_blind_to_order_and_sign_and_counts_surplus_factors() -> None:
    rng = np.random.default_rng(0)
    z, w = rng.normal(size=(200, 3)), rng.normal(size=(50, 3))
    first = fitted(z, w)
    assert agreement(first, fitted(-z[:, ::-1], -w[:, ::-1])) == pytest.approx((1.0, 1.0))
    cells, weights = agreement(first, fitted(z[:, :2], w[:, :2]))
    assert cells == pytest.approx(0.8)
    assert weights == pytest.approx(0.8)
    assert agreement(first, fitted(np.zeros((200, 3)), w))[0] == pytest.approx(0.0)
    # Weak factors that one fit has and the other has not cost nothing here.
    noise = rng.normal(size=(200, 2))
    longer = [fitted(np.c_[z, each], np.c_[w, w[:, :1]]) for each in noise.T]
    assert found_again(*longer, n_strongest=3) == pytest.approx(1.0)
    assert found_again(*longer) < 0.9
    assert agreement(*longer)[0] < 0.9


def test_stability_is_read_from_kept_answers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    z, w = rng.normal(size=(200, 2)), rng.normal(size=(50, 2))
    for seed in range(3):
        fitted(z, w).write(tmp_path / f"ours-seed{seed}.npz")
    (row,) = stabilities(tmp_path)
    assert row["method"] == "ours"
    assert row["seeds"] == [0, 1, 2]
    assert row["factors"] == pytest.approx(1.0)
    assert row["n_factors"] == 2
    fitted(z, w).write(tmp_path / "other-seed0.npz")
    (alone,) = (each for each in stabilities(tmp_path) if each["method"] == "other")
    assert alone["factors"] is None
    assert "-" in stability_table([alone])
    with pytest.raises(FileError, match="no answers"):
        stabilities(tmp_path / "nowhere")


def test_command_predicts_keeps_answers_and_compares_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    words = ["factors", "--generator", "cohort", "--methods", "pca", "--seeds", "0,1"]
    assert main([*words, "--split", "0", "--out", str(tmp_path), "--answers", str(kept)]) == 0
    assert "held-out R2" in capsys.readouterr().out
    records = read_records(tmp_path)
    assert len(records) == 2
    assert "--answers" not in records[0]["command"]
    assert records[0]["scores"]["mean_held_out"] > 0.05
    (folder,) = kept.iterdir()
    words[words.index("0,1")] = "0"
    words += ["--split", "0", "--answers", str(kept)]
    assert main([*words, "--label", "pca=a / b"]) == 0
    assert {path.name for path in folder.iterdir()} == {
        "pca-seed0.npz", "pca-seed1.npz", "a---b-seed0.npz"
    }  # fmt: skip
    capsys.readouterr()
    file = tmp_path / "stability" / "all.json"
    assert main(["stability", str(folder), "--write", str(file)]) == 0
    assert "pca" in capsys.readouterr().out
    rows = json.loads(file.read_text(encoding="utf-8"))
    (row,) = (each for each in rows if each["method"] == "pca")
    assert row["factors"] == pytest.approx(1.0)


def test_every_hidden_modality_has_a_column() -> None:
    held_out = {"Gene Expression": 0.25, "adt": 0.5}
    scores = {"mean_held_out": 0.375, "held_out": held_out, "n_factors": 3}
    record = {"comparison": "factors", "method": "pca", "seed": 0, "scores": scores}
    table = comparison_table([record])
    assert "Gene Expression" in table
    assert "0.250" in table
    assert "0.500" in table
