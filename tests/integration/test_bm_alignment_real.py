"""The alignment comparison on real cells: trivial rows and baselines score as they should."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.test_graph_real import FILES

from mosaicvi.bm import Alignment
from mosaicvi.bm._alignment_score import score_alignment
from mosaicvi.bm.aligners import CEILINGS, get

if TYPE_CHECKING:
    from collections.abc import Callable

    from mosaicvi.bm._alignment import AlignmentTask


def scored(task: AlignmentTask, name: str) -> dict[str, Any]:
    """Scores of each variant of a method."""
    pairs = task._true_pairs() if name in CEILINGS else ()
    method = get(name)(task.public.given(options={}, true_pairs=pairs))
    method.fit()
    return {
        variant: score_alignment(answer, task.truth) for variant, answer in method.predict().items()
    }


@pytest.fixture
def need(require_file: Callable[[str], Path]) -> Callable[[str], None]:
    def _need(name: str) -> None:
        for file in FILES[name]:
            require_file(file)

    return _need


def test_snareseq(need: Callable[[str], None]) -> None:
    """Batch and depth win overall and lose within strata; linked features know some biology."""
    need("snareseq_cortex")
    folder = os.environ.get("MOSAICVI_ANNOTATION_DIR")
    if folder is None or not (Path(folder) / "genes_mm10.tsv.gz").is_file():
        pytest.skip("needs genes_mm10.tsv.gz in MOSAICVI_ANNOTATION_DIR")
    task = Alignment("snareseq_cortex", n_cells=2000).task(0)
    assert task.public.graph.n_edges > 25_000
    found = {
        name: scored(task, name)[""]["foscttm"]
        for name in ("constant", "depth", "batch_depth", "smoothed", "cca_all_pairs")
    }
    assert set(found["constant"].values()) == {0.5}
    assert found["depth"]["overall"] < 0.42
    assert found["batch_depth"]["overall"] < 0.05
    assert min(found["depth"]["stratified"], found["batch_depth"]["stratified"]) > 0.45
    assert found["cca_all_pairs"]["stratified"] < 0.2
    assert found["smoothed"]["stratified"] < 0.36
    assert found["smoothed"]["within_type"] < 0.48


def test_sln(need: Callable[[str], None]) -> None:
    """Linked features transfer labels; nothing that needs pairs is scored."""
    need("sln_unpaired")
    task = Alignment("sln_unpaired", ("rna", "protein"), n_cells=5000).task(0)
    assert task.describe()["n_types"] <= 28
    found = scored(task, "smoothed")["wide"]
    assert "foscttm" not in found
    assert found["label_transfer"]["accuracy"] > 0.65
    assert found["label_transfer"]["of_supervised"] > 0.85
    assert scored(task, "constant")[""]["label_transfer"]["balanced"] < 0.1
