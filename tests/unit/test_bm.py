"""The comparison runner, on small simulated cells."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from mosaicvi._errors import DataError, FileError, RequestError
from mosaicvi.bm import Imputation, comparison_table, run
from mosaicvi.bm.__main__ import main
from mosaicvi.bm._input import BATCH, TYPE, ImputationInput, Prediction
from mosaicvi.bm._load import quiet_mudata
from mosaicvi.bm._options import check_options
from mosaicvi.bm._records import place
from mosaicvi.bm._runner import SCHEMA, Entry, read_records, write_record
from mosaicvi.bm._score import Truth, score
from mosaicvi.bm._shared_features import antigen, change_of_unit, gene, share
from mosaicvi.bm.methods import TABLE, get
from mosaicvi.bm.methods._mosaicvi import sort_options

N_GENES, N_PROTEINS = 60, 4


def cells(seed: int, n_cells: int, *, prefix: str = "cell") -> mudata.MuData:
    """Three types; protein follows a latent that RNA shows; rows of protein in another order."""
    rng = np.random.default_rng(seed)
    types = rng.integers(3, size=n_cells)
    weights = np.random.default_rng(99).normal(size=(3, 3, N_GENES + N_PROTEINS))
    latent = np.eye(3)[types] * 1.5 + 0.3 * rng.normal(size=(n_cells, 3))
    rate = np.exp(latent @ weights[0] * 0.7 + 1.5)
    rna = rng.poisson(rate[:, :N_GENES]).astype(np.float32)
    protein = rng.poisson(5 * rate[:, N_GENES:]).astype(np.float32)
    names = [f"{prefix}{i}" for i in range(n_cells)]
    obs = pd.DataFrame(
        {"batch": np.where(np.arange(n_cells) % 2, "b1", "b0"), "celltype": types.astype(str)},
        index=names,
    )
    genes = pd.DataFrame(index=[f"Gene{i}" for i in range(N_GENES)])
    order = rng.permutation(n_cells)
    proteins = pd.DataFrame(index=["CD3", "CD4", "PD-1", "CD19"])
    with quiet_mudata():
        mdata = mudata.MuData(
            {
                "rna": AnnData(sp.csr_matrix(rna), obs[[]], genes),
                "protein": AnnData(protein[order], obs[[]].iloc[order], proteins),
            }
        )
    for name in obs:
        mdata.obs[name] = obs.loc[mdata.obs_names, name]
    return mdata


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("bm") / "cells.h5mu"
    with quiet_mudata():
        cells(0, 200).write_h5mu(path)
    return str(path)


def measured(mdata: mudata.MuData, names: tuple[str, ...]) -> np.ndarray:
    return np.asarray(mdata["protein"][list(names)].X.toarray())


def dense(file: str) -> mudata.MuData:
    with quiet_mudata():
        mdata = mudata.read_h5mu(file)
    mdata.mod["protein"].X = sp.csr_matrix(mdata["protein"].X)
    return mdata


def test_hiding_a_share_is_seeded_and_hides(file: str) -> None:
    comparison = Imputation(data=file, hide=0.25)
    task, again, other = comparison.task(3), comparison.task(3), comparison.task(4)
    query = task.public.query
    assert len(query) == 50
    assert query == again.public.query
    assert query != other.public.query
    assert not set(query) & set(task.public.mdata["protein"].obs_names)
    assert set(query) <= set(task.public.mdata["rna"].obs_names)
    assert len(task.public.paired) == 150
    np.testing.assert_array_equal(task.truth.measured, measured(dense(file), query))


@pytest.mark.parametrize("outer", [{"hide": 0.25}, {"hide_batch": "b1"}])
def test_validation_scores_other_cells_and_shows_neither(
    file: str, outer: dict[str, object]
) -> None:
    outer_query = set(Imputation(data=file, **outer).task(3).public.query)  # type: ignore[arg-type]
    task = Imputation(data=file, validate=0.2, **outer).task(3)  # type: ignore[arg-type]
    query, seen = set(task.public.query), task.public.mdata
    n_left = 200 - len(outer_query)
    assert len(query) == round(0.2 * n_left)
    assert not query & outer_query
    assert not (query | outer_query) & set(seen["protein"].obs_names)
    assert query | outer_query <= set(seen["rna"].obs_names)
    np.testing.assert_array_equal(task.truth.measured, measured(dense(file), task.public.query))


def test_fewer_cells_are_drawn_before_the_split(file: str) -> None:
    task, other = (Imputation(data=file, hide=0.25, n_cells=80).task(seed) for seed in (0, 1))
    assert task.public.mdata.n_obs == 80
    assert len(task.public.query) == 20
    assert set(task.public.mdata.obs_names) != set(other.public.mdata.obs_names)
    with pytest.raises(RequestError, match="n_cells"):
        Imputation(data=file, hide=0.25, n_cells=0)
    with pytest.raises(RequestError, match="n_cells"):
        Imputation(train=file, test=file, n_cells=10)


def test_noise_is_a_modality_of_every_cell_and_changes_nothing_else(file: str) -> None:
    plain = Imputation(data=file, hide=0.25).task(3).public
    noisy = Imputation(data=file, hide=0.25, noise=7).task(3).public
    table = noisy.mdata["noise"]
    assert table.shape == (200, 7)
    assert table.X.mean() == pytest.approx(1.0, abs=0.1)
    assert noisy.query == plain.query
    assert noisy.paired == plain.paired
    assert noisy.likelihoods["noise"] == "nb"
    for name in ("rna", "protein"):
        assert (noisy.mdata[name].X != plain.mdata[name].X).nnz == 0


def test_hiding_a_batch_hides_that_batch(file: str) -> None:
    task = Imputation(data=file, hide_batch="b1").task(0)
    mdata = dense(file)
    assert set(mdata.obs.loc[list(task.public.query), "batch"]) == {"b1"}
    assert set(task.public.labels(BATCH, task.public.paired)) == {"b0"}
    with pytest.raises(RequestError, match="b0"):
        Imputation(data=file, hide_batch="nobody").task(0)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"data": "x", "hide": 0.2, "hide_batch": "b"},
        {"data": "x", "hide": 1.2},
        {"data": "x", "hide": 0.2, "validate": 1.0},
        {"train": "x"},
        {"data": "x", "train": "x", "test": "y"},
    ],
)
def test_cells_must_be_chosen_once(settings: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        Imputation(**settings)  # type: ignore[arg-type]


def test_unknown_data_and_modalities_are_named(file: str) -> None:
    with pytest.raises(RequestError, match="h5mu"):
        Imputation(data="no_such_data", hide=0.5).task(0)
    with pytest.raises(DataError, match="atac"):
        Imputation(data=file, target="atac", hide=0.5).task(0)
    with pytest.raises(RequestError, match="knn"):
        get("nearest")


def test_types_come_from_labels_or_from_clusters(file: str) -> None:
    labelled = Imputation(data=file, hide=0.25).task(0)
    assert set(labelled.truth.types) == {"0", "1", "2"}
    mdata = dense(file)
    del mdata.obs["celltype"]
    path = Path(file).with_name("unlabelled.h5mu")
    with quiet_mudata():
        mdata.write_h5mu(path)
    clustered = Imputation(data=str(path), hide=0.25).task(0)
    table = pd.crosstab(clustered.truth.types, labelled.truth.types)
    assert (table.max(axis=1) / table.sum(axis=1)).min() > 0.8
    with pytest.raises(RequestError, match="label"):
        Imputation(data=file, hide=0.25, labels="label").task(0)


def test_scrambled_hidden_values_change_no_bit_of_a_prediction(file: str, tmp_path: Path) -> None:
    """What a method gets, and so what it predicts, does not depend on the hidden values."""
    query = Imputation(data=file, hide=0.25).task(1).public.query
    mdata = dense(file)
    values = mdata["protein"].X.toarray()
    rows = mdata["protein"].obs_names.get_indexer(list(query))
    values[rows] = np.random.default_rng(5).poisson(50.0, size=(len(query), N_PROTEINS))
    mdata.mod["protein"].X = sp.csr_matrix(values)
    scrambled = tmp_path / "scrambled.h5mu"
    with quiet_mudata():
        mdata.write_h5mu(scrambled)
    for method in ("type_means", "knn", "ridge", "kernel_ridge"):
        draws = []
        for name in (file, str(scrambled)):
            folder = tmp_path / f"{method}-{Path(name).stem}"
            folder.mkdir()
            Imputation(data=name, hide=0.25, n_draws=5).task(1).write_input(folder, options={})
            given = ImputationInput.read(folder)
            assert not set(given.query) & set(given.mdata["protein"].obs_names)
            runner = get(method)(given)
            runner.fit()
            draws.append(runner.predict()[""].draws)
        np.testing.assert_array_equal(draws[0], draws[1])


def test_runner_end_to_end(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two methods in subprocesses, through the command line."""
    words = ["imputation", "--data", file, "--hide", "0.25", "--seeds", "1", "--jobs", "2"]
    words += ["--methods", "type_means,knn", "--draws", "20", "--out", str(tmp_path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "knn" in printed
    assert "type_means" in printed
    (record,) = read_records(next(tmp_path.glob("knn-*seed1.json")))
    assert record["schema"] == SCHEMA
    assert record["task"]["n_query"] == 50
    assert record["task"]["features"] == ["CD3", "CD4", "PD-1", "CD19"]
    assert record["command"].startswith("python -m mosaicvi.bm imputation --data")
    assert record["command"].endswith("--methods type_means,knn --draws 20")  # without --out
    assert record["seconds"]["fit"] > 0
    assert record["peak_memory_mib"] > 10
    scores = record["scores"]
    assert scores["pearson"]["mean"] > 0.6
    assert scores["miscoverage"]["mean"] < 0.15
    (type_means,) = read_records(next(tmp_path.glob("type_means-*seed1.json")))
    assert type_means["scores"]["pearson"]["within_type"] == 0
    summary = tmp_path / "summary" / "all.json"
    assert main(["table", str(tmp_path), "--write", str(summary)]) == 0
    assert capsys.readouterr().out == printed
    again = tmp_path / "summary" / "again.json"
    assert main(["table", str(summary), "--write", str(again)]) == 0
    assert capsys.readouterr().out == printed
    assert again.read_text() == summary.read_text()
    assert "per_feature" not in summary.read_text()
    assert main(["table", str(tmp_path / "nowhere.json")]) == 2


def test_a_method_that_fails_is_reported_and_left_out(
    file: str, caplog: pytest.LogCaptureFixture
) -> None:
    comparison = Imputation(data=file, hide=0.25, n_draws=5)
    with caplog.at_level("ERROR", logger="mosaicvi"):
        records = run(comparison, [Entry("no_such_method")], [0])
    assert records == []
    assert "no_such_method" in caplog.text


def test_every_method_of_the_table_can_be_imported() -> None:
    for name in TABLE:
        if name != "mosaicvi":
            assert get(name).name == name


def test_type_means_are_the_means_of_the_types(file: str) -> None:
    task = Imputation(data=file, hide=0.25, n_draws=3).task(0)
    runner = get("type_means")(task.public)
    runner.fit()
    predicted = runner.predict()[""].mean
    training, types = task.public.target_log1p(task.public.paired), task.public.labels
    for name in "012":
        chosen = task.truth.types == name
        expected = training[types(TYPE, task.public.paired) == name].mean(axis=0)
        np.testing.assert_allclose(
            predicted[chosen], np.tile(expected, (chosen.sum(), 1)), rtol=1e-6
        )


def test_residual_draws_have_the_spread_of_held_out_errors(file: str) -> None:
    task = Imputation(data=file, hide=0.25, n_draws=200).task(0)
    runner = get("ridge")(task.public)
    runner.fit()
    prediction = runner.predict()[""]
    errors = np.log1p(task.truth.measured) - prediction.mean
    spread = (np.log1p(prediction.draws) - prediction.mean).std(axis=(0, 1))
    np.testing.assert_allclose(spread, errors.std(axis=0), rtol=0.35)


def test_two_data_sets_share_antigens_and_genes(tmp_path: Path) -> None:
    first, second = cells(0, 120), cells(1, 80)
    second.mod["rna"].var_names = [f"GENE{i}" for i in range(10, 10 + N_GENES)]
    second.mod["protein"].var_names = ["cd279", "cd3.1", "cd3.2", "cd8"]
    with quiet_mudata():
        first.write_h5mu(tmp_path / "first.h5mu")
        second.write_h5mu(tmp_path / "second.h5mu")
    files = {"train": str(tmp_path / "first.h5mu"), "test": str(tmp_path / "second.h5mu")}
    task = Imputation(**files).task(0)  # type: ignore[arg-type]
    assert task.public.features == ("cd279", "cd3")
    assert task.public.mdata["rna"].n_vars == N_GENES - 10
    assert len(task.public.paired) == 120
    assert len(task.public.query) == 80
    assert set(task.public.labels(BATCH, task.public.query)) == {"query:b0", "query:b1"}
    raw = second["protein"].to_df()
    clones = np.rint((raw["cd3.1"] + raw["cd3.2"]) / 2)
    names = [name.removeprefix("query:") for name in task.public.query]
    np.testing.assert_array_equal(task.truth.measured[:, 1], clones.loc[names])
    np.testing.assert_array_equal(task.truth.measured[:, 0], raw["cd279"].loc[names])


def test_names_of_antigens() -> None:
    same = {"CD3_TotalSeqB": "cd3", "cd3.2": "cd3", "PD-1": "cd279", "hla.dr": "hladr"}
    assert {name: antigen(name) for name in same} == same
    assert antigen("cd8") != antigen("cd8a")
    assert gene("Cd3e") == gene("CD3E")
    table = AnnData(np.ones((2, 1)), var=pd.DataFrame(index=["CD3"]))
    with pytest.raises(DataError, match="common"):
        share(table, AnnData(np.ones((2, 1)), var=pd.DataFrame(index=["CD4"])), antigen, "protein")


def test_change_of_unit_matches_mean_and_spread() -> None:
    rng = np.random.default_rng(0)
    training, test = rng.normal(2, 1, size=(500, 3)), rng.normal(5, 3, size=(400, 3))
    slope, intercept = change_of_unit(training, test)
    mapped = intercept + slope * training
    np.testing.assert_allclose(mapped.mean(axis=0), test.mean(axis=0))
    np.testing.assert_allclose(mapped.std(axis=0), test.std(axis=0))


def _truth(measured: np.ndarray, unit: tuple[np.ndarray, np.ndarray] | None = None) -> Truth:
    n_cells, n_features = measured.shape
    names = tuple(f"f{i}" for i in range(n_features))
    return Truth(measured, names, np.full(n_cells, "a"), np.full(n_features, 1.0), None, unit)


def test_scores_of_the_true_distribution_and_of_a_bad_one() -> None:
    rng = np.random.default_rng(0)
    rate = rng.gamma(2.0, 3.0, size=(2_000, 2))
    truth = _truth(rng.poisson(rate).astype(float))
    good = score(Prediction(rng.poisson(rate, size=(100, 2_000, 2)).astype(np.float32)), truth)
    wide = score(Prediction(rng.poisson(rate[rng.permutation(2_000)], size=(100, 2_000, 2))), truth)
    assert good["miscoverage"]["mean"] < 0.02
    assert good["crps_log1p"]["mean"] < 0.7 * wide["crps_log1p"]["mean"]
    assert good["pearson"]["mean"] > 0.7 > abs(wide["pearson"]["mean"])
    json.dumps(good, allow_nan=False)


def test_equal_counts_are_ties() -> None:
    """Whatever the last bit of their log1p: most counts around 6 are ties of some draws."""
    rng = np.random.default_rng(0)
    truth = _truth(rng.poisson(6.0, size=(4_000, 1)).astype(float))
    scores = score(Prediction(rng.poisson(6.0, (100, 4_000, 1)).astype(np.float32)), truth)
    assert scores["pit_distance"]["mean"] < 0.03
    same = np.full((50, 1_000, 1), 6.0, dtype=np.float32)
    constant = score(Prediction(same), _truth(np.full((1_000, 1), 6.0)))
    assert constant["coverage_50%"]["mean"] == pytest.approx(0.5, abs=0.06)


def test_a_change_of_unit_leaves_order_and_rescales_error() -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(20.0, size=(300, 2)).astype(float)
    draws = rng.poisson(20.0, size=(50, 300, 2)).astype(np.float32)
    shifted = np.expm1(np.log1p(draws) + 1.0)
    unit = np.ones(2), np.full(2, -1.0)
    plain, mapped = (
        score(Prediction(draws), _truth(counts)),
        score(Prediction(shifted), _truth(counts, unit)),
    )
    for name in ("pearson", "crps_log1p", "rmse_log1p", "coverage_80%"):
        assert mapped[name]["mean"] == pytest.approx(plain[name]["mean"], abs=0.02)


def test_predictions_must_be_whole() -> None:
    truth = _truth(np.ones((3, 2)))
    with pytest.raises(RequestError, match="shape"):
        score(Prediction(np.ones((4, 2, 2), dtype=np.float32)), truth)
    with pytest.raises(RequestError, match="finite"):
        score(Prediction(np.full((4, 3, 2), np.nan, dtype=np.float32)), truth)


def test_records_are_checked(tmp_path: Path) -> None:
    record = {"schema": "other/1", "method": "a/b", "seed": 0}
    path = write_record(record, tmp_path)
    assert path.name == "a-b-seed0.json"
    with pytest.raises(FileError, match="other/1"):
        read_records(path)
    path.write_text("{")
    with pytest.raises(FileError, match="record"):
        read_records(path)
    assert comparison_table([]) == "no records\n"


def test_the_table_shows_differences_paired_by_seed() -> None:
    def record(method: str, seed: int, crps: float) -> dict[str, object]:
        names = ["spearman", "gate_precision", "crps_counts", "miscoverage"]
        names += ["coverage_80%", "width_80%"]
        scores = {name: {"mean": 0.5} for name in names}
        return {
            "method": method,
            "seed": seed,
            "seconds": {"fit": 1.0, "predict": 0.1},
            "peak_memory_mib": 100.0,
            "scores": {
                **scores,
                "crps_log1p": {"mean": crps},
                "rmse_log1p": {"pooled": 0.7, "within_type": 0.6},
                "pearson": {"mean": 0.8, "within_type": None},
            },
        }

    records = [record("knn", seed, 0.34 + 0.01 * seed) for seed in range(4)]
    records += [record("mosaicvi", seed, 0.31 + 0.01 * seed) for seed in range(3)]
    table = comparison_table(records)
    lines = table.splitlines()
    assert lines[2].startswith("mosaicvi")
    assert "mosaicvi minus" in table
    assert lines[-1].split()[:3] == ["knn", "3", "-0.030"]
    assert "*" in lines[-1]


def _row(method: str, seed: int, crps: float, **settings: object) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "comparison": "imputation",
        "setting": "",
        "method": method,
        "seed": seed,
        "settings": {"data": "a", **settings},
        "scores": {"crps_log1p": {"mean": crps}},
    }


def test_the_first_of_a_method_and_seed_is_shown(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("mosaicvi"), "propagate", True)
    new, again = _row("knn", 0, 0.1, pair=("x", "y")), _row("knn", 0, 0.9, pair=["x", "y"])
    assert "0.100" in comparison_table([new, again])
    assert comparison_table([new, again]) == comparison_table([new])
    assert not caplog.text
    assert comparison_table([new, _row("knn", 0, 0.9, noise=3, pair=[])]) == comparison_table([new])
    assert "other pair: the first is taken" in caplog.text  # the first does not say which noise
    assert "noise" not in caplog.text
    comparison_table([new, {**again, "options": {"k": 5}}])
    assert "other options" in caplog.text


def test_data_sets_have_tables_and_files_of_their_own(tmp_path: Path) -> None:
    across = _row("knn", 0, 0.3, data=None, train="a", test="b")
    records = [_row("knn", 0, 0.1), _row("ridge", 0, 0.2, data="b"), across]
    records += [_row("knn", 0, 0.4, hide_batch="p3"), _row("knn", 0, 0.5, hide_batch="p4")]
    texts = comparison_table(records).split("imputation, ")[1:]
    assert [text.splitlines()[0] for text in texts] == [
        "a", "b", "a to b", "a, p3 hidden", "a, p4 hidden"
    ]  # fmt: skip
    names = {write_record(record, tmp_path).name for record in records}
    assert "knn-a-to-b-seed0.json" in names
    assert len(names) == len(records)
    file = write_record(_row("knn", 0, 0.1, data="/x/y.h5mu"), tmp_path)
    assert file.name == "knn-x-y.h5mu-seed0.json"


def test_a_setting_that_names_the_data_is_not_told_twice() -> None:
    for setting in ("a, 5 factors", "a 90 cells, cpu", "a"):
        assert place({**_row("knn", 0, 0.1), "setting": setting}) == setting
    assert place({**_row("knn", 0, 0.1), "setting": "atac"}) == "a, atac"
    assert place({"setting": None}) == ""


def test_options_go_to_the_call_they_name() -> None:
    placed = sort_options({"n_latent": 5, "train.max_epochs": 3, "setup.layer": None, "a.b": 1})
    assert placed["model"] == {"n_latent": 5, "a.b": 1}
    assert placed["train"] == {"max_epochs": 3}
    assert placed["setup"] == {"layer": None}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--option n_latnt=3", r"no such option: n_latnt.*n_latent"),
        ("--option train.max_epoch=3", r"train\.max_epoch\..*train\.max_epochs"),
        ("--option setup.layers=x", r"setup\.layers\..*setup\.layer"),
        ("--option mosaicvi_paired.n_latnt=3", "mosaicvi_paired has no such option"),
        ("--likelihood protein=nope", "unknown likelihood 'nope'"),
    ],
)
def test_what_no_call_takes_is_refused_before_a_worker_starts(
    words: str, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr("mosaicvi.bm.__main__.run", started)
    given = "imputation --data absent.h5mu --hide 0.25 --methods mosaicvi,mosaicvi_paired"
    assert main([*given.split(), *words.split()]) == 2
    assert re.search(says, capsys.readouterr().err)


def test_options_that_a_call_takes_pass() -> None:
    taken = ["n_latent", "query_cells", "train.max_epochs", "train.enable_progress_bar"]
    taken += ["train.gradient_clip_val", "setup.layer", "predict.transform_batch"]
    check_options("mosaicvi", dict.fromkeys(taken), "imputation")
    check_options("factorvi", {"n_factors": 3, "train.restarts": 2}, "factors")
    check_options("knn", {"anything": 1}, "imputation")
    with pytest.raises(RequestError, match=r"predict\.seed"):
        check_options("mosaicvi", {"predict.seed": 1}, "alignment")


def test_values_of_neighbours_are_drawn(file: str, tmp_path: Path) -> None:
    """Draws of the variant are counts that training cells show, around the same mean."""
    task = Imputation(data=file, hide=0.25, n_draws=400).task(1)
    task.write_input(tmp_path, options={})
    runner = get("knn")(ImputationInput.read(tmp_path))
    runner.fit()
    answers = runner.predict()
    draws = answers["values"].draws
    shown = runner.task.counts(runner.task.target, runner.task.paired).toarray()
    for feature in range(draws.shape[2]):
        assert np.isin(np.rint(draws[..., feature]), shown[:, feature]).all()
    np.testing.assert_array_equal(answers["values"].mean, answers[""].mean)
    np.testing.assert_allclose(np.log1p(draws).mean(0), answers[""].mean, atol=0.6)
    scores = {name: score(answer, task.truth) for name, answer in answers.items()}
    assert scores["values"]["crps_log1p"]["mean"] < 1.1 * scores[""]["crps_log1p"]["mean"]


def test_counts_are_read_where_a_model_reads_them(file: str, tmp_path: Path) -> None:
    """X may hold logs and ``layers["counts"]`` the counts, as after the usual steps of scanpy."""
    mdata, path = dense(file), str(tmp_path / "logged.h5mu")
    for modality in mdata.mod.values():
        modality.layers["counts"] = modality.X.copy()
        modality.X = modality.X.log1p()
    with quiet_mudata():
        mdata.write_h5mu(path)
    plain, layered = (Imputation(data=data, hide=0.25).task(3) for data in (file, path))
    np.testing.assert_array_equal(layered.truth.measured, plain.truth.measured)
    for name in mdata.mod:
        given, expected = layered.public.mdata[name].X, plain.public.mdata[name].X
        np.testing.assert_array_equal(given.toarray(), expected.toarray())
    for modality in mdata.mod.values():
        del modality.layers["counts"]
    with quiet_mudata():
        mdata.write_h5mu(path)
    with pytest.raises(DataError, match=r"modality 'rna'.*log-transformed"):
        Imputation(data=path, hide=0.25).task(3)
