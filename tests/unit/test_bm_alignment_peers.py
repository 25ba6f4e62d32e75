"""Rows of the alignment comparison that are other packages' models."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from mosaicvi._errors import RequestError
from mosaicvi.bm.__main__ import _entries, _parser
from mosaicvi.bm._alignment_input import AlignmentInput
from mosaicvi.bm._load import quiet_mudata
from mosaicvi.bm._worker import processor_time
from mosaicvi.bm.aligners import PEERS, TABLE, defaults, get
from mosaicvi.bm.aligners._features import turned
from mosaicvi.bm.aligners._multivi import MODALITY, PAIRED
from mosaicvi.bm.aligners._scglue import guidance
from mosaicvi.graph import Edges, FeatureGraph

if TYPE_CHECKING:
    from collections.abc import Callable

N_CELLS, N_GENES, N_PEAKS = 160, 20, 40
MODALITIES = ("rna", "atac")
FEATURES = {"rna": [f"g{i}" for i in range(N_GENES)], "atac": [f"p{i}" for i in range(N_PEAKS)]}


def made(n_pairs: int, likelihoods: dict[str, str] | None = None, **options: Any) -> AlignmentInput:
    """Four types in two batches; peaks 2 i and 2 i + 1 follow gene i; cells in random order."""
    rng = np.random.default_rng(0)
    types = rng.integers(4, size=N_CELLS)
    rate = np.exp(1.0 + np.eye(4)[types] @ rng.normal(size=(4, N_GENES)))
    counts = {"rna": rng.poisson(rate), "atac": rng.poisson(np.repeat(rate, 2, axis=1) / 2)}
    batch, tables, batches = np.where(np.arange(N_CELLS) % 2, "b1", "b0"), {}, {}
    for name in MODALITIES:
        order = rng.permutation(N_CELLS)
        names = np.array([f"pair:{i}" if i < n_pairs else f"{name}:{i}" for i in order])
        values = sp.csr_matrix(counts[name][order], dtype=np.float32)
        tables[name] = AnnData(
            values, pd.DataFrame(index=names), pd.DataFrame(index=FEATURES[name])
        )
        batches |= dict(zip(names, batch[order], strict=True))
    with quiet_mudata():
        mdata = mudata.MuData(tables)
    mdata.obs["batch"] = [batches[name] for name in mdata.obs_names]
    peaks = np.arange(N_PEAKS)
    graph = FeatureGraph(FEATURES, Edges.of(peaks // 2, N_GENES + peaks, weight=0.5))
    known = {"rna": "zinb", "atac": "poisson", **(likelihoods or {})}
    return AlignmentInput(mdata, MODALITIES, graph, known, seed=3, options=options)


def fitted(name: str, task: AlignmentInput) -> tuple[Any, dict[str, np.ndarray]]:
    method = get(name)(task)
    method.fit()
    (embedding,) = method.predict().values()
    json.dumps(method.details(), allow_nan=False)
    for modality in MODALITIES:
        assert embedding.latents[modality].shape[0] == N_CELLS
        assert np.isfinite(embedding.latents[modality]).all()
    assert len({latent.shape[1] for latent in embedding.latents.values()}) == 1
    return method, embedding.latents


@pytest.mark.parametrize("likelihoods", [{}, {"atac": "nb_mixture"}])
@pytest.mark.parametrize("n_pairs", [0, 30])
def test_multivi(n_pairs: int, likelihoods: dict[str, str]) -> None:
    """With and without pairs, of peaks and of antibodies; its cells are the task's, in order."""
    task = made(n_pairs, likelihoods, max_epochs=2)
    method, latents = fitted("multivi", task)
    assert method.kind == ("" if n_pairs else "unaligned")
    assert method.details()["epochs"] == 2
    assert method.details()["ended_by"] == "epochs"
    padded = method._mdata
    assert (padded.obs[MODALITY] == PAIRED).sum() == n_pairs
    joint = pd.DataFrame(turned(method._model.get_latent_representation()), padded.obs_names)
    for name in MODALITIES:
        own, table = task.mdata.mod[name], padded.mod[name]
        kept = table[own.obs_names]
        np.testing.assert_array_equal(kept.X.toarray(), own.X.toarray())
        assert table.X.sum() == own.X.sum()
        # where a cell has one modality, its latent is that of the modality's own encoder
        alone = ~own.obs_names.str.startswith("pair:")
        expected = joint.loc[own.obs_names[alone]]
        np.testing.assert_allclose(latents[name][alone], expected, atol=1e-5)
    _, again = fitted("multivi", task)
    for name in MODALITIES:
        np.testing.assert_array_equal(again[name], latents[name])


def test_multivi_ends_in_time() -> None:
    method, _ = fitted("multivi", made(0, minutes=0.0))
    assert method.details()["ended_by"] == "time"
    assert method.details()["epochs"] <= 1


def test_multivi_refuses_what_it_cannot_join() -> None:
    with pytest.raises(RequestError, match="protein with accessibility"):
        get("multivi")(made(0, {"rna": "nb_mixture"})).fit()
    with pytest.raises(RequestError, match="counts"):
        get("multivi")(made(0, {"rna": "normal"})).fit()


@pytest.mark.parametrize("name", sorted(PEERS))
def test_options_are_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mosaicvi.bm.aligners._scglue.imported", lambda: None)
    with pytest.raises(
        RequestError, match=rf"{name} has no such option: epochs.*{name}\.max_epochs"
    ):
        get(name)(made(0, epochs=1)).fit()


def test_the_guidance_graph_is_the_task_s_graph_with_loops() -> None:
    graph = guidance(made(0).graph.to_networkx())
    assert set(graph.nodes) == {f"{m}:{feature}" for m in MODALITIES for feature in FEATURES[m]}
    assert all(graph.edges[node, node]["weight"] == 1.0 for node in graph)
    between = [edge for edge in graph.edges if edge[0] != edge[1]]
    assert len(between) == N_PEAKS
    assert graph.edges["rna:g3", "atac:p7"] == {"weight": 0.5, "sign": 1, "type": "edge"}
    assert made(0).graph.n_edges == N_PEAKS


def test_scglue_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scglue", None)
    with pytest.raises(RequestError, match="pip install scglue"):
        get("scglue")(made(0)).fit()


@pytest.fixture
def scglue() -> None:
    pytest.importorskip("scglue", reason="scglue is an extra: pip install 'mosaicvi[benchmark]'")


@pytest.mark.usefixtures("scglue")
@pytest.mark.parametrize(
    ("n_pairs", "options", "likelihoods", "distribution"),
    [
        (0, {}, {}, "NB"),
        (30, {}, {"atac": "nb_mixture"}, "NBMixture"),
        (0, {"protein": "Normal"}, {"atac": "nb_mixture"}, "Normal"),
    ],
)
def test_scglue(
    n_pairs: int, options: dict[str, str], likelihoods: dict[str, str], distribution: str
) -> None:
    task = made(n_pairs, likelihoods, max_epochs=30, **options)
    method, latents = fitted("scglue", task)
    assert method.kind == ""
    assert method.details()["epochs_of_stages"] == [30, 30]
    assert method.details()["distributions"] == {"rna": "NB", "atac": distribution}
    assert type(method._model).__name__ == ("PairedSCGLUEModel" if n_pairs else "SCGLUEModel")
    for name, table in method._tables.items():
        assert list(table.obs_names) == list(task.mdata.mod[name].obs_names)
        backwards = turned(method._model.encode_data(name, table[::-1].copy()))
        np.testing.assert_allclose(backwards[::-1], latents[name], atol=1e-5)


@pytest.mark.usefixtures("scglue")
def test_scglue_without_balancing_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    method = get("scglue")(made(0))
    method._tables = {"rna": AnnData(obs=pd.DataFrame({"balancing_weight": [np.nan]}, index=["a"]))}
    with pytest.raises(RequestError, match="balancing weights"):
        method._check_weights()


@pytest.fixture
def entries() -> Callable[[str], dict[str, Any]]:
    def parsed(words: str) -> dict[str, Any]:
        arguments = _parser().parse_args(["alignment", "--data", "x", *words.split()])
        return {entry.method: entry for entry in _entries(arguments, TABLE)}

    return parsed


def test_options_go_to_their_method(entries: Callable[[str], dict[str, Any]]) -> None:
    found = entries(
        "--methods mosaicvi,multivi,linked --option train.max_epochs=2 --option n_latent=5 "
        "--option multivi.minutes=None --label multivi=long --label ours"
    )
    assert found["mosaicvi"].options == {"train.max_epochs": 2, "n_latent": 5}
    assert found["multivi"].options == {"minutes": None}
    assert found["linked"].options == {}
    assert [found[name].name for name in ("mosaicvi", "multivi", "linked")] == [
        "ours",
        "long",
        "linked",
    ]
    with pytest.raises(RequestError, match="scglue does not run"):
        entries("--methods mosaicvi --option scglue.max_epochs=2")
    # an option of mosaicvi's is no mistake where it does not run: settings of a batch of commands
    assert entries("--methods linked --option n_latent=5")["linked"].options == {}


def test_peers_run_when_asked_for(entries: Callable[[str], dict[str, Any]]) -> None:
    assert set(defaults(paired=True, linked=True)) == set(TABLE) - PEERS
    assert set(entries("--methods scglue")) == {"scglue"}


def test_processor_time_includes_children() -> None:
    import subprocess

    before = processor_time()
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    assert processor_time() - before > 0.02
