"""The alignment comparison, on small simulated cells."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from mosaicvi._errors import DataError, RequestError
from mosaicvi.bm import Alignment, comparison_table
from mosaicvi.bm.__main__ import main
from mosaicvi.bm._alignment_input import AlignmentInput, Embedding
from mosaicvi.bm._alignment_score import score_alignment
from mosaicvi.bm._graphs import build_graph
from mosaicvi.bm._load import quiet_mudata
from mosaicvi.bm._runner import read_records
from mosaicvi.bm.aligners import CEILINGS, PEERS, TABLE, get
from mosaicvi.bm.aligners._cca import canonical
from mosaicvi.bm.aligners._features import linked_features
from mosaicvi.bm.aligners._smoothed import smooth
from mosaicvi.metrics import foscttm

if TYPE_CHECKING:
    from pathlib import Path

N_CELLS, N_GENES, N_PEAKS = 240, 30, 60
MODALITIES = ("rna", "atac")


def cells(*, paired: bool = True) -> mudata.MuData:
    """Four types; gene i and its peaks 2 i and 2 i + 1 follow one rate; two batches."""
    rng = np.random.default_rng(0)
    types = rng.integers(4, size=N_CELLS)
    weights = np.random.default_rng(9).normal(size=(4, N_GENES))
    rate = np.exp(np.eye(4)[types] @ weights + 0.4 * rng.normal(size=(N_CELLS, N_GENES)) + 1.0)
    batch = np.where(np.arange(N_CELLS) % 2, "b1", "b0")
    names = np.array([f"cell{i}" for i in range(N_CELLS)])
    obs = pd.DataFrame({"batch": batch, "cell_type": types.astype(str)}, index=names)
    obs["is_type"] = types != 3
    first = slice(None) if paired else slice(0, N_CELLS // 2)
    second = rng.permutation(N_CELLS) if paired else np.arange(N_CELLS // 2, N_CELLS)
    rna, atac = rng.poisson(rate), rng.poisson(0.5 * np.repeat(rate, 2, axis=1))
    genes = pd.DataFrame(index=[f"Gene{i}" for i in range(N_GENES)])
    peaks = pd.DataFrame(index=[f"peak{i}" for i in range(N_PEAKS)])
    with quiet_mudata():
        mdata = mudata.MuData(
            {
                "rna": AnnData(sp.csr_matrix(rna[first], dtype=np.float32), obs[[]][first], genes),
                "atac": AnnData(
                    sp.csr_matrix(atac[second], dtype=np.float32), obs[[]].iloc[second], peaks
                ),
            }
        )
    for name in obs:
        mdata.obs[name] = obs.loc[mdata.obs_names, name]
    mdata.uns["links"] = pd.DataFrame(
        {"gene": [f"Gene{i // 2}" for i in range(50)], "peak": [f"peak{i}" for i in range(50)]}
    )
    return mdata


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("alignment")
    found = {}
    for name, paired in (("paired", True), ("unpaired", False)):
        found[name] = str(folder / f"{name}.h5mu")
        with quiet_mudata():
            cells(paired=paired).write_h5mu(found[name])
    return found


@pytest.fixture(scope="module")
def comparison(files: dict[str, str]) -> Alignment:
    return Alignment(files["paired"], graph="links")


def answer(task: Any, name: str, given: AlignmentInput | None = None) -> dict[str, Embedding]:
    method = get(name)(task.public if given is None else given)
    method.fit()
    json.dumps(method.details(), allow_nan=False)
    return method.predict()


def test_the_pairing_is_hidden_but_for_the_given_pairs(comparison: Alignment) -> None:
    whole = cells()
    for share, n_given in ((0.0, 0), (0.05, 12), (0.2, 48)):
        task = comparison.with_pairs(share).task(3)
        public, truth = task.public, task.truth
        first, second = (public.mdata.mod[name].obs_names for name in MODALITIES)
        assert public.n_pairs == len(set(first) & set(second)) == n_given
        assert not set(first.append(second)) & set(whole.obs_names)
        assert "type" not in public.mdata.obs
        assert list(public.mdata.obs) == ["batch"]
        left, right = truth.matches
        assert len(left) == N_CELLS - n_given
        # neither the order of the file nor that of the other modality
        assert abs(np.corrcoef(left, right)[0, 1]) < 0.2
        for rows, name in ((left, "rna"), (right, "atac")):
            assert not truth.cells[name].index[rows].isin(set(first) & set(second)).any()
        # the truth is that of the data: totals of both modalities of one cell
        totals = {
            tuple(np.asarray(whole[m][cell].X.sum()).item() for m in MODALITIES)
            for cell in whole.obs_names
        }
        found = zip(
            truth.cells["rna"]["depth"].to_numpy()[left],
            truth.cells["atac"]["depth"].to_numpy()[right],
            strict=True,
        )
        assert set(found) <= totals


def test_splits_are_seeded_and_more_pairs_contain_fewer(comparison: Alignment) -> None:
    def given(share: float, seed: int) -> set[float]:
        table = comparison.with_pairs(share).task(seed).truth.cells["rna"]
        return set(table.loc[~table["scored"], "pair"])

    def first(seed: int) -> np.ndarray:
        return np.asarray(comparison.task(seed).public.mdata["rna"].X.toarray())

    assert given(0.05, 1) < given(0.2, 1)
    np.testing.assert_array_equal(first(1), first(1))
    assert (first(1) != first(2)).any()


def test_only_a_ceiling_is_told_the_truth(comparison: Alignment, tmp_path: Path) -> None:
    task = comparison.with_pairs(0.05).task(0)
    for name in TABLE:
        task.write_input(tmp_path, options={"a": 1}, method=name)
        given = AlignmentInput.read(tmp_path)
        assert bool(given.true_pairs) == (name in CEILINGS)
        pd.testing.assert_frame_equal(
            given.graph.to_pandas(), task.public.graph.to_pandas(), check_dtype=False
        )
        assert given.n_pairs == 12
        assert given.options == {"a": 1}
        assert (get(name).kind == "ceiling") == (name in CEILINGS)
    assert get("depth").kind == "trivial"
    assert len(set(task._true_pairs())) == N_CELLS
    for left, right in task._true_pairs():
        pairs = [task.truth.cells[m].loc[c, "pair"] for m, c in (("rna", left), ("atac", right))]
        assert pairs[0] == pairs[1]


def test_rows_score_in_their_order(comparison: Alignment, tmp_path: Path) -> None:
    """Trivial rows as theory has them; linked features find types; true pairs find more."""
    task = comparison.task(0)
    task.write_input(tmp_path, options={}, method="cca_all_pairs")
    told = AlignmentInput.read(tmp_path)
    found = {}
    for name in TABLE:
        if name == "mosaicvi" or name in PEERS:
            continue
        for variant, latent in answer(task, name, told if name in CEILINGS else None).items():
            latent.write(tmp_path / "answer.npz")
            again = Embedding.read(tmp_path / "answer.npz")
            found[f"{name}/{variant}" if variant else name] = score_alignment(again, task.truth)
    json.dumps(found, allow_nan=False)
    constant = found["constant"]
    assert set(constant["foscttm"].values()) == {0.5}
    assert constant["matching"]["accuracy"] == pytest.approx(constant["matching"]["expected"])
    assert constant["leakage"]["depth"] == 0.0
    assert found["depth"]["leakage"]["depth"] == pytest.approx(1.0, abs=1e-3)
    assert found["batch_depth"]["leakage"]["batch"] == pytest.approx(1.0, abs=1e-3)
    stratified = {name: scores["foscttm"]["stratified"] for name, scores in found.items()}
    assert stratified["batch_depth"] > 0.35
    assert max(stratified[name] for name in ("linked", "smoothed", "cca_all_pairs")) < 0.3
    assert stratified["cca_all_pairs"] < stratified["smoothed"]
    for name in ("linked", "smoothed"):
        scores = found[name]
        assert scores["label_transfer"]["accuracy"] > 0.9
        assert scores["label_transfer"]["of_supervised"] > 0.9
        # turned components: standardising their dimensions changes little
        given = scores["foscttm_as_given"]["stratified"]
        assert given == pytest.approx(stratified[name], abs=0.06)


def test_labels_that_are_no_types_are_not_scored(comparison: Alignment) -> None:
    task = comparison.task(0)
    assert task.describe()["n_types"] == 3
    assert set(task.truth.typed("rna")[1]) == {"0", "1", "2"}
    assert len(task.truth.matches[0]) == N_CELLS
    embedding = answer(task, "linked")[""]
    rows = task.truth.matches
    types = task.truth.cells["rna"].iloc[rows[0]]["type"]
    known = types.notna().to_numpy()
    sides = [embedding.latents[n][r][known] for n, r in zip(MODALITIES, rows, strict=True)]
    wanted = foscttm(*sides, groups=types[known].astype(str), standardise=False)
    found = score_alignment(embedding, task.truth)["foscttm_as_given"]["within_type"]
    assert found == pytest.approx(wanted)


def test_unpaired_data_are_scored_by_label_alone(files: dict[str, str]) -> None:
    unpaired = Alignment(files["unpaired"], graph="links")
    task = unpaired.task(0)
    scores = score_alignment(answer(task, "linked")[""], task.truth)
    assert "foscttm" not in scores
    assert scores["label_transfer"]["accuracy"] > 0.8
    assert scores["mixing"]["modality"] > 0.5
    with pytest.raises(RequestError, match="both modalities"):
        unpaired.with_pairs(0.1).task(0)
    with pytest.raises(RequestError, match="true pairs"):
        answer(task, "cca_all_pairs")


def test_correlation_of_given_pairs_does_not_see_the_others(comparison: Alignment) -> None:
    task = comparison.with_pairs(0.4).task(0)
    given = task.public.given(options={"pairs": "given"})
    told = task.public.given(options={"pairs": "given"}, true_pairs=task._true_pairs())
    alone, same = (answer(task, "cca_all_pairs", each)[""] for each in (given, told))
    np.testing.assert_array_equal(alone.latents["rna"], same.latents["rna"])
    with pytest.raises(RequestError, match="all or given"):
        answer(task, "cca_all_pairs", task.public.given(options={"pairs": "some"}))
    with pytest.raises(RequestError, match="true pairs"):
        answer(task, "cca_all_pairs", comparison.task(0).public.given(options={"pairs": "given"}))


def test_fewer_cells_and_features(files: dict[str, str]) -> None:
    small = Alignment(files["paired"], graph="links", n_cells=100, linked_only=True).task(0)
    found = small.describe()
    assert found["n_cells"] == {"rna": 100, "atac": 100}
    assert found["n_features"] == {"rna": 25, "atac": 50}
    assert found["n_pairs_scored"] == 100
    assert found["n_edges"] == 50
    whole = cells()
    share = {name: (whole[name].X > 0).mean(axis=0).A1 for name in MODALITIES}
    threshold = float(np.median(share["atac"]))
    task = Alignment(files["paired"], graph="links", min_share=threshold).task(0)
    for name in MODALITIES:
        expected = whole[name].var_names[share[name] >= threshold]
        assert list(task.public.mdata[name].var_names) == list(expected)
        assert list(task.public.graph.names(name)) == list(expected)


def test_an_answer_must_fit_the_cells(comparison: Alignment) -> None:
    task = comparison.task(0)
    good = {name: np.zeros((N_CELLS, 2)) for name in MODALITIES}
    for wrong in (
        {"rna": good["rna"]},
        {**good, "atac": np.zeros((3, 2))},
        {**good, "atac": np.full((N_CELLS, 2), np.nan)},
        {**good, "atac": np.zeros((N_CELLS, 3))},
    ):
        with pytest.raises(RequestError):
            score_alignment(Embedding(wrong), task.truth)


def test_linked_features_follow_the_graph(comparison: Alignment) -> None:
    public = comparison.task(0).public
    features = linked_features(public)
    assert {name: table.shape for name, table in features.items()} == {
        "rna": (N_CELLS, 25),
        "atac": (N_CELLS, 25),
    }
    counts = public.counts("atac").toarray()
    sums = counts[:, 0:50:2] + counts[:, 1:50:2]
    expected = np.log1p(1e4 * sums / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(features["atac"], expected)
    empty = Alignment(comparison.data, graph="none").task(0)
    with pytest.raises(RequestError, match="graph"):
        linked_features(empty.public)


def test_smoothing_is_the_mean_of_neighbours() -> None:
    places, values = np.array([[0.0], [1.0], [10.0], [11.0]]), np.array([[1.0], [3], [5], [9]])
    np.testing.assert_allclose(smooth(values, places, 2), [[2], [2], [7], [7]])
    np.testing.assert_allclose(smooth(values, places, 30), np.full((4, 1), 4.5))


def test_canonical_variates_correlate_as_they_say() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(500, 2))
    left = np.hstack([shared + 0.5 * rng.normal(size=(500, 2)), rng.normal(size=(500, 3))])
    right = np.hstack([rng.normal(size=(500, 2)), shared + 0.5 * rng.normal(size=(500, 2))])
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    first, second, correlation = canonical(left, right)
    scores = left @ first, right @ second
    np.testing.assert_allclose(scores[0].std(axis=0), 1.0)
    between = np.array([np.corrcoef(scores[0][:, i], scores[1][:, i])[0, 1] for i in range(4)])
    np.testing.assert_allclose(between, correlation)
    # no direction correlates better with the other side than the first
    fitted = right @ np.linalg.lstsq(right, scores[0][:, 0], rcond=None)[0]
    assert np.corrcoef(fitted, scores[0][:, 0])[0, 1] == pytest.approx(correlation[0])
    assert correlation[0] == pytest.approx(0.8, abs=0.08)


def test_graphs(tmp_path: Path) -> None:
    mdata = cells()
    links = build_graph(mdata, MODALITIES, "links")
    assert links.n_edges == 50
    table = tmp_path / "links.csv"
    mdata.uns["links"].head(7).to_csv(table, index=False)
    assert build_graph(mdata, MODALITIES, table=table).n_edges == 7
    assert build_graph(mdata, MODALITIES, "none").n_edges == 0
    with pytest.raises(RequestError, match="assembly"):
        build_graph(mdata, MODALITIES)
    with pytest.raises(RequestError, match="graph_table"):
        build_graph(mdata, MODALITIES, "table")
    with pytest.raises(RequestError, match="names"):
        build_graph(mdata, MODALITIES, "guess")
    del mdata.uns["links"]
    with pytest.raises(DataError, match="links"):
        build_graph(mdata, MODALITIES, "links")


@pytest.mark.parametrize(
    "settings",
    [
        {"pairs": 1.0},
        {"pairs": -0.1},
        {"n_cells": 0},
        {"min_share": 1.0},
        {"modalities": ("rna",)},
    ],
)
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Alignment("x", **settings)


def test_end_to_end(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command line, in subprocesses, two shares of pairs."""
    words = ["alignment", "--data", files["paired"], "--graph", "links", "--pairs", "0,0.1"]
    words += ["--methods", "constant,cca_all_pairs", "--jobs", "2", "--out", str(tmp_path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert f"alignment, {files['paired']}, pairs=0\n" in printed
    assert f"alignment, {files['paired']}, pairs=0.1\n" in printed
    assert "constant (trivial)" in printed
    assert "cca_all_pairs/with_batch (ceiling)" in printed
    assert "told pairs that the others are not" in printed
    (record,) = read_records(next(tmp_path.glob("constant-*pairs-0.1-seed0.json")))
    assert record["setting"] == "pairs=0.1"
    assert record["kind"] == "trivial"
    assert record["task"]["n_pairs_given"] == 24
    assert main(["table", str(tmp_path), "--write", str(tmp_path / "out" / "all.json")]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(printed.splitlines())
    assert main(["alignment", "--data", files["paired"], "--pairs", "some"]) == 2


def test_a_model_that_nothing_ties_is_marked(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["alignment", "--data", files["paired"], "--pairs", "0,0.2", "--methods", "mosaicvi"]
    words += ["--option", "train.max_epochs=1", "--jobs", "2"]
    assert main([*words, "--graph", "none"]) == 0
    without, given = capsys.readouterr().out.split("pairs=0.2")
    assert "mosaicvi (unaligned)" in without
    assert "unaligned" not in given
    assert main([*words, "--graph", "links"]) == 0
    assert "unaligned" not in capsys.readouterr().out


def test_the_table_says_what_rows_are() -> None:
    def record(method: str, kind: str, value: float | None) -> dict[str, Any]:
        return {
            "comparison": "alignment",
            "setting": "pairs=0",
            "method": method,
            "kind": kind,
            "seed": 0,
            "scores": {"label_transfer": {"accuracy": value}},
        }

    records = [record("a", "", 0.5), record("b", "trivial", 0.9), record("c", "", None)]
    lines = comparison_table(records).splitlines()
    assert [line.split()[0] for line in lines[3:6]] == ["b", "a", "c"]
    assert lines[3].startswith("b (trivial)")
    assert "FOSCTTM" not in lines[1]


@pytest.mark.parametrize("name", ["paired", "unpaired"])
@pytest.mark.parametrize("kind", ["links", "none"])
def test_methods_by_default_are_those_that_the_data_suit(
    files: dict[str, str], name: str, kind: str
) -> None:
    """A method that must fail would make every such command fail."""
    comparison = Alignment(files[name], graph=kind)
    chosen, task = set(comparison.suiting()), comparison.task(0)
    assert {"mosaicvi", "constant", "depth", "batch_depth"} <= chosen
    assert ("linked" in chosen) == ("smoothed" in chosen) == (kind == "links")
    assert ("cca_all_pairs" in chosen) == (name == "paired")
    assert not chosen & {"scglue", "multivi"}
    for missing in {"linked", "smoothed"} - chosen:
        with pytest.raises(RequestError, match="links no features"):
            get(missing)(task.public).fit()


def test_methods_of_unpaired_data_all_end(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def started(_comparison: object, entries: list[Any], *_: object, **__: object) -> list[Any]:
        asked.extend(entry.name for entry in entries)
        return []

    monkeypatch.setattr("mosaicvi.bm.__main__.run", started)
    main(["alignment", "--data", files["unpaired"], "--graph", "none"])
    assert asked == ["mosaicvi", "constant", "depth", "batch_depth"]


def test_modalities_of_other_names_are_told_how_to_link(caplog: pytest.LogCaptureFixture) -> None:
    mdata = cells()
    del mdata.uns["links"]
    with quiet_mudata():
        named = mudata.MuData({"gex": mdata["rna"], "adt": mdata["atac"]})
    with caplog.at_level("INFO", logger="mosaicvi"):
        assert build_graph(named, ("gex", "adt")).n_edges == 0
    assert "--graph names" in caplog.text
