"""The comparison of controls, on small simulated cells."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from tests.unit.test_bm_alignment import MODALITIES, N_CELLS, cells

from mosaicvi._errors import RequestError
from mosaicvi.bm import Alignment
from mosaicvi.bm.__main__ import main
from mosaicvi.bm._alignment_input import (
    DOUBT,
    EDGES,
    OWN,
    PLACES,
    SHARED,
    AlignmentInput,
    Embedding,
)
from mosaicvi.bm._alignment_score import score_alignment
from mosaicvi.bm._controls import under_controls
from mosaicvi.bm._load import quiet_mudata
from mosaicvi.bm._runner import read_records
from mosaicvi.bm.aligners import get
from mosaicvi.bm.controls import TABLE, parse, parse_all
from mosaicvi.bm.controls._orphans import Markers, orphan_scores

if TYPE_CHECKING:
    from pathlib import Path

    from mosaicvi.bm._alignment import AlignmentTask

SHARE = 0.5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("controls") / "paired.h5mu"
    mdata = cells()
    mdata.obs["is_type"] = True
    mdata.obs["tissue"] = np.where(np.arange(mdata.n_obs) % 3, "spleen", "node")
    with quiet_mudata():
        mdata.write_h5mu(path)
    return str(path)


@pytest.fixture(scope="module")
def alignment(data: str) -> Alignment:
    return Alignment(data, graph="links", pairs=SHARE, columns=("tissue",))


def task_of(alignment: Alignment, text: str, seed: int = 0) -> AlignmentTask:
    (controlled,) = under_controls(alignment, [parse(text)])
    return controlled.task(seed)


def latents_of(task: AlignmentTask, own: Any) -> dict[str, np.ndarray]:
    """Latents that place a cell by its true type, and the types of ``own[modality]`` elsewhere."""
    rng = np.random.default_rng(0)
    places = 8.0 * np.eye(4)
    found = {}
    for name in MODALITIES:
        types = task.truth.cells[name]["type"].astype(int).to_numpy()
        place = places[types] + rng.normal(size=(len(types), 4))
        place[np.isin(types, own.get(name, []))] += rng.normal(size=4) * 10
        found[name] = place
    return found


def test_texts_are_read_back() -> None:
    texts = ["none", "permuted", "permuted:graph", "drop:In*,Ex a@atac", "rewired:0.3"]
    texts += ["imbalance:10@rna", "drop:tissue=node,pDCs@protein"]
    assert [one.text for one in parse_all(",".join(texts))] == texts
    assert {text.partition(":")[0] for text in texts} == set(TABLE)
    assert parse(texts[-1]).columns == ("tissue",)
    for wrong in ("none:1", "shuffled", "permuted:2", "drop:a", "drop:@rna", "rewired:2"):
        with pytest.raises(RequestError, match="controls"):
            parse(wrong)
    for wrong in ("rewired:some", "imbalance:0.5@rna", "imbalance:10"):
        with pytest.raises(RequestError, match="controls"):
            parse(wrong)


def test_permuted_pairs_are_wrong_within_their_strata(alignment: Alignment) -> None:
    """Names agree between the wrong cells, of one batch and like depth; the truth is unchanged."""
    before = alignment.task(0)
    with_graph, without = (task_of(alignment, text) for text in ("permuted:graph", "permuted"))
    assert with_graph.public.n_pairs == without.public.n_pairs == before.public.n_pairs == 120
    assert with_graph.public.graph == before.public.graph
    assert without.public.graph.n_edges == 0
    first, second = (with_graph.truth.cells[name] for name in MODALITIES)
    shared = first.index.intersection(second.index)
    assert (first.loc[shared, "batch"] == second.loc[shared, "batch"]).all()
    assert (first.loc[shared, "pair"] != second.loc[shared, "pair"]).mean() > 0.95
    depth = np.corrcoef(first.loc[shared, "depth"], second.loc[shared, "depth"])[0, 1]
    pairs = (table.sort_values("pair")["depth"] for table in (first, second))
    assert depth > 0.3 * np.corrcoef(*pairs)[0, 1]
    for name in MODALITIES:  # each cell keeps its counts and what is true of it
        np.testing.assert_array_equal(
            with_graph.truth.cells[name]["pair"], before.truth.cells[name]["pair"]
        )
        np.testing.assert_array_equal(
            with_graph.public.counts(name).toarray(), before.public.counts(name).toarray()
        )
        public = with_graph.public.mdata
        assert list(public.mod[name].obs_names) == list(with_graph.truth.cells[name].index)
        np.testing.assert_array_equal(
            with_graph.public.batch(name), with_graph.truth.cells[name]["batch"].astype(str)
        )
    np.testing.assert_array_equal(with_graph.truth.matches[0], before.truth.matches[0])
    with pytest.raises(RequestError, match="pairs"):
        task_of(alignment.with_pairs(0.0), "permuted")


def test_permuted_pairs_say_nothing_beyond_their_strata(alignment: Alignment) -> None:
    """Types of paired cells agree; of permuted ones as often as of any two of a stratum."""

    def agreement(task: AlignmentTask) -> float:
        first, second = (task.truth.cells[name] for name in MODALITIES)
        shared = first.index.intersection(second.index)
        return float((first.loc[shared, "type"] == second.loc[shared, "type"]).mean())

    def chance(task: AlignmentTask) -> float:
        """Pairs of two cells of one batch and quintile of depth that share their type."""
        cells = task.truth.cells["rna"].query("~scored")
        fifth = cells.groupby("batch")["depth"].transform(lambda d: pd.qcut(d, 5, labels=False))
        groups = [g["type"].value_counts() for _, g in cells.groupby(["batch", fifth])]
        shares = [(n * (n - 1)).sum() / (n.sum() - 1) for n in groups]
        return float(sum(shares) / len(cells))

    assert agreement(alignment.task(0)) == 1.0
    found = [agreement(task_of(alignment, "permuted", seed)) for seed in range(5)]
    expected = [chance(alignment.task(seed)) for seed in range(5)]
    assert np.mean(expected) < 0.7
    assert np.mean(found) == pytest.approx(np.mean(expected), abs=0.06)


def test_rewired_edges_keep_degrees_and_are_known(alignment: Alignment) -> None:
    before = alignment.with_pairs(0.0).task(0).public.graph
    for share in (0.0, 0.3, 1.0):
        task = task_of(alignment, f"rewired:{share:g}")
        graph = task.public.graph
        true = set(before.to_pandas()[["source", "target"]].itertuples(index=False, name=None))
        found = graph.to_pandas()[["source", "target"]]
        right = np.array([e in true for e in found.itertuples(index=False, name=None)])
        # each gene has two peaks: exchanged peaks may come to lie on a true edge
        assert (~right).mean() == pytest.approx(share, abs=0.1)
        assert graph.n_edges >= 45
        assert task.public.n_pairs == 0
        assert task.public.wanted == (EDGES,)
        assert task.also is not None
        answer = Embedding({}, {EDGES: right + 0.1 * np.arange(len(right)) % 0.1})
        scores = task.also(answer, task.truth)["edges"]
        assert (scores["n_true"], scores["n_wrong"]) == (right.sum(), (~right).sum())
        assert scores.get("auc", 1.0) == 1.0
        upside_down = Embedding({}, {EDGES: -answer.wanted[EDGES]})
        assert task.also(upside_down, task.truth)["edges"].get("auc", 0.0) == 0.0
        assert "auc" not in task.also(Embedding({}), task.truth)["edges"]


def test_a_thinned_modality_keeps_what_is_true(alignment: Alignment) -> None:
    task = task_of(alignment, "imbalance:10@atac")
    rna, atac = (task.truth.cells[name] for name in MODALITIES)
    assert (len(rna), len(atac)) == (N_CELLS, N_CELLS // 10)
    first, second = task.truth.matches
    assert len(first) == len(second) == N_CELLS // 10
    np.testing.assert_array_equal(rna["pair"].to_numpy()[first], atac["pair"].to_numpy()[second])
    assert len(task._true_pairs()) == N_CELLS // 10
    latents = latents_of(task, {})
    assert score_alignment(Embedding(latents), task.truth)["label_transfer"]["accuracy"] > 0.9
    assert len(task_of(alignment, "imbalance:10@rna").truth.cells["rna"]) == N_CELLS // 10
    with pytest.raises(RequestError, match="controls"):
        task_of(alignment, "imbalance:10@protein")


def test_imbalance_says_what_so_few_labels_can_say_without_any_alignment(
    alignment: Alignment,
) -> None:
    found = {}
    for text in ("imbalance:2@atac", "imbalance:25@atac"):
        task = task_of(alignment, text)
        assert task.also is not None
        scores = task.also(Embedding({}), task.truth)["few_labels"]
        labelled = task.truth.typed("atac")[1]
        own = task.truth.typed("rna")[1]
        expected = [min((labelled == name).sum(), (own == name).sum() // 2) for name in set(own)]
        assert scores["n_labelled"] == sum(expected)
        found[text] = scores
    assert found["imbalance:2@atac"]["balanced"] > found["imbalance:25@atac"]["balanced"]
    json.dumps(found, allow_nan=False)


def test_orphans_are_scored(alignment: Alignment) -> None:
    """A latent that keeps the orphans apart does well, one that puts them on others does not."""
    task = task_of(alignment, "drop:2,tissue=node@atac")
    atac = task.truth.cells["atac"]
    assert "2" not in set(atac["type"])
    assert set(atac["tissue"]) == {"spleen"}
    assert len(task.truth.cells["rna"]) == N_CELLS
    assert task.also is not None
    apart = task.also(Embedding(latents_of(task, {})), task.truth)
    good = apart["orphans"]
    assert good["types"] == ["2"]
    assert good["n_orphans"] == (task.truth.cells["rna"]["type"] == "2").sum()
    assert good["auc"] > 0.95
    assert good["abstain"] > 0.9
    assert good["answered"] > 0.7
    assert good["accuracy"] > 0.95
    assert apart["by_type"]["2"]["confidence"] < apart["by_type"]["1"]["confidence"]
    assert apart["by_type"]["2"]["right"] == 0.0
    mixed = latents_of(task, {})
    orphan = (task.truth.cells["rna"]["type"] == "2").to_numpy()
    mixed["rna"][orphan] = mixed["rna"][~orphan][: orphan.sum()]
    bad = task.also(Embedding(mixed), task.truth)["orphans"]
    assert bad["auc"] < 0.8
    assert bad["abstain"] < 0.5
    # what the method says of its cells besides the latent is heard
    places = {key + m: part for key in (SHARED, OWN) for m, part in latents_of(task, {}).items()}
    told = task.also(Embedding(mixed, places), task.truth)["orphans"]
    assert told["auc"] > bad["auc"] + 0.1
    assert told["abstain"] > bad["abstain"] + 0.3
    # nor are labels given that nothing but doubtful links tells
    doubtful = Embedding(latents_of(task, {}), {DOUBT: np.array(1.0)})
    assert task.also(doubtful, task.truth)["orphans"]["answered"] == 0.0
    json.dumps(apart, allow_nan=False)
    for wrong in ("drop:9@atac", "drop:2@protein"):
        with pytest.raises(RequestError, match="controls"):
            task_of(alignment, wrong)


def test_markers_are_those_of_the_orphans(alignment: Alignment) -> None:
    whole = alignment.with_pairs(0.0).task(0)
    markers = Markers.of(whole, "atac", ["2"])
    assert markers is not None
    counts = np.log1p(whole.public.counts("atac").toarray())
    types = whole.truth.cells["atac"]["type"].to_numpy()
    means = np.stack([counts[types == str(i)].mean(axis=0) for i in range(4)])
    best = np.argmax(means[2] - means[[0, 1, 3]].max(axis=0))
    assert markers.columns[0] == best
    assert markers.names[0] == f"peak{best}"
    np.testing.assert_allclose(markers.levels.loc["2"], means[2][markers.columns])
    assert Markers.of(whole, "atac", []) is None
    # imputed as their types truly are, and as if all were orphans
    task = task_of(alignment, "drop:2@atac")
    assert task.public.wanted == (PLACES, "atac")
    seen = task.truth.cells["rna"]["type"].astype(int).to_numpy()
    latents = latents_of(task, {})
    score = partial(orphan_scores, truth=task.truth, alone="rna", lacking="atac", markers=markers)
    honest = score(Embedding(latents, {"atac": means[seen]}))["markers"]
    assert honest["imputed"] == pytest.approx(honest["true"])
    assert honest["imputed_orphans"] == pytest.approx(honest["true_orphans"])
    assert honest["positive"] == honest["positive_types"]
    everywhere = np.broadcast_to(means[2], (N_CELLS, means.shape[1]))
    dreamt = score(Embedding(latents, {"atac": everywhere}))["markers"]
    assert dreamt["positive"] == 1.0
    assert dreamt["imputed"] > dreamt["true"] + 0.1
    assert "markers" not in score(Embedding(latents))


def test_what_is_wanted_travels(alignment: Alignment, tmp_path: Path) -> None:
    task = task_of(alignment, "rewired:0.5")
    task.write_input(tmp_path, options={})
    assert AlignmentInput.read(tmp_path).wanted == (EDGES,)
    answer = Embedding({"rna": np.zeros((2, 1))}, {EDGES: np.arange(3.0)})
    answer.write(tmp_path / "answer.npz")
    again = Embedding.read(tmp_path / "answer.npz")
    assert list(again.latents) == ["rna"]
    np.testing.assert_array_equal(again.wanted[EDGES], np.arange(3.0))
    assert again.doubt == 0.0
    Embedding({}, {DOUBT: np.array(0.3)}).write(tmp_path / "doubtful.npz")
    assert Embedding.read(tmp_path / "doubtful.npz").doubt == 0.3


def test_the_model_answers_what_is_wanted(alignment: Alignment) -> None:
    """Confidences in the order of the graph's edges, imputed values in that of the cells."""
    task = task_of(alignment, "drop:2@atac").with_public(wanted=(EDGES, PLACES, "atac"))
    options = {"train.max_epochs": 1, "train.enable_progress_bar": False}
    method = get("mosaicvi")(task.public.given(options=options))
    method.fit()
    wanted = method.predict()[""].wanted
    assert float(wanted[DOUBT]) == method._model.counterparts["rna"].apart["atac"].doubt
    assert wanted["atac"].shape == (N_CELLS, 60)
    assert np.isfinite(wanted["atac"]).all()
    table = method._model.get_edge_confidence()
    expected = {(e.source, e.target): e.confidence for e in table.itertuples()}
    edges = task.public.graph.to_pandas()
    found = [expected[e.source, e.target] for e in edges.itertuples()]
    np.testing.assert_array_equal(wanted[EDGES], found)


def test_end_to_end(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command line, in subprocesses: one table, a row a control."""
    words = ["controls", "--data", data, "--graph", "links", "--methods", "linked"]
    words += ["--controls", "none,drop:2,tissue=node@atac,imbalance:4@rna"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("  ")[0] for line in printed.splitlines()]
    assert [row for row in rows if row.startswith("linked, ")] == [
        "linked, none",
        "linked, drop:2,tissue=node@atac",
        "linked, imbalance:4@rna",
    ]
    assert "orph AUC" in printed
    (record,) = read_records(next(tmp_path.glob("linked-*drop-2-tissue-node-atac-seed0.json")))
    assert record["comparison"] == "controls"
    assert record["settings"]["control"] == "drop:2,tissue=node@atac"
    assert record["task"]["n_pairs_given"] == 0
    assert main(["table", str(tmp_path)]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(printed.splitlines())
    assert main([*words[:-1], "drop:nothing@atac"]) == 2
