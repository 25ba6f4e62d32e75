"""What each part of the alignment is worth: ``python -m tests.benchmarks.ablate_alignment``.

Every variant leaves one part out, or changes one weight, and is fitted to the same cells with the
same seeds. Parts that are no option of the model are replaced from outside, here, so that the model
carries no switches for them.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

from mosaicvi.alignment import AnchorSpec, _held_out
from mosaicvi.bm._alignment import Alignment, AlignmentTask
from mosaicvi.bm._alignment_input import Embedding
from mosaicvi.bm._alignment_score import score_alignment
from mosaicvi.bm.aligners._features import turned
from mosaicvi.bm.aligners._mosaicvi import MosaicVIAligner
from mosaicvi.graph import FeatureGraph
from mosaicvi.model import _construct, _inputs, _linkage, _linked_columns, _technical
from mosaicvi.module._mosaic_module import MosaicModule
from mosaicvi.nn._aligned_inputs import AlignedInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXPERT = MosaicModule.expert
WRONG_SIGNS = 1 / 3
MODALITIES = {"snareseq_cortex": ("rna", "atac")}
SCORES = {
    "labels": ("label_transfer", "accuracy"),
    "balanced": ("label_transfer", "balanced"),
    "strata": ("foscttm", "stratified"),
    "mixing": ("mixing", "modality"),
    "leak bat": ("leakage", "batch"),
    "leak dep": ("leakage", "depth"),
    "leak mod": ("leakage", "modality"),
}


@dataclass(frozen=True)
class Variant:
    """A fit that differs in one thing.

    Parameters
    ----------
    plan
        Weights of loss terms.
    patches
        Object, attribute and what replaces it.
    graph
        How the graph is changed.
    start
        Score the canonical scores that the fit starts from, not the fit.
    """

    plan: dict[str, Any] = field(default_factory=dict)
    patches: tuple[tuple[Any, str, Any], ...] = ()
    graph: Callable[[FeatureGraph], FeatureGraph] | None = None
    start: bool = False


def _with_length(self: AlignedInputs, projected: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    rest = self.residuals(projected, batch)
    return torch.cat([rest, (rest - self.center) @ self.weights], -1)


def _sure(data: Any, graph: FeatureGraph, *given: Any, **named: Any) -> np.ndarray:
    return np.ones(graph.n_edges)


def _drawn_by_prior(
    self: MosaicModule, name: str, inputs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    mean, variance = EXPERT(self, name, inputs)
    return mean / (1 + variance), variance


def _drawn_by_its_average(
    self: MosaicModule, name: str, inputs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The prior draws a cell by how much surer it is than its modality's average cell.

    The average, of each dimension, is a running one of the minibatches.
    """
    mean, variance = EXPERT(self, name, inputs)
    kept = (1 / (1 + variance)).detach().mean(0)
    averages: dict[str, torch.Tensor] = self.__dict__.setdefault("_kept", {})
    if self.training:
        averages[name] = 0.95 * averages.get(name, kept) + 0.05 * kept
    return mean / (1 + variance) / averages.get(name, kept), variance


def _no_regression(values: np.ndarray, representation: np.ndarray) -> np.ndarray:
    return np.zeros_like(values)


def _wrong_signs(graph: FeatureGraph) -> FeatureGraph:
    edges = graph.to_pandas()
    wrong = np.random.default_rng(0).random(len(edges)) < WRONG_SIGNS
    return _with_signs(graph, np.where(wrong, -edges["sign"], edges["sign"]))


def _unsigned(graph: FeatureGraph) -> FeatureGraph:
    return _with_signs(graph, 1)


def _with_signs(graph: FeatureGraph, sign: Any) -> FeatureGraph:
    return FeatureGraph.from_pandas(
        graph.to_pandas().assign(sign=sign),
        features={name: graph.names(name) for name in graph.modalities},
    )


VARIANTS = {
    "all parts": Variant(),
    "the start alone": Variant(start=True),
    "effects over all cells, not within groups": Variant(patches=((_technical, "N_ROUNDS", 0),)),
    "the prior draws cells by each modality's own certainty": Variant(
        patches=((MosaicModule, "expert", _drawn_by_prior),)
    ),
    "the prior draws cells by more or less than their modality's average": Variant(
        patches=((MosaicModule, "expert", _drawn_by_its_average),)
    ),
    "a component of projections for 100 cells, not 20": Variant(
        patches=(
            (_inputs, "CELLS_AN_ALIGNED_COMPONENT", _inputs.CELLS_A_COMPONENT),
            (_inputs, "ALIGNED_WIDTH_RANGE", _inputs.WIDTH_RANGE),
        )
    ),
    "shared scores keep their length": Variant(patches=((AlignedInputs, "forward", _with_length),)),
    "one round of anchors": Variant(
        patches=((_construct, "AnchorSpec", partial(AnchorSpec, n_rounds=1)),)
    ),
    "15 neighbours for anchors": Variant(patches=((_linkage, "SPARSE_NEIGHBOURS", 15),)),
    "30 neighbours for anchors": Variant(
        patches=((_construct, "AnchorSpec", partial(AnchorSpec, n_neighbours=30)),)
    ),
    "directions weighted by found pairs alone": Variant(
        patches=((_held_out, "LEAST_PAIRS", 10**9),)
    ),
    "directions weighted by anchors, not by unseen counts": Variant(
        patches=((_linkage, "unseen_correlation", lambda *_, **__: None),)
    ),
    "linked features are not regressed on components": Variant(
        patches=((_linked_columns, "regress", _no_regression),)
    ),
    "linked features are not smoothed": Variant(
        patches=((_linked_columns, "SPARSE_COUNTS", -1.0),)
    ),
    "edges are not weighed by cells": Variant(patches=((_linkage, "graph_confidence", _sure),)),
    "signs are ignored": Variant(graph=_unsigned),
    "a third of the signs is wrong": Variant(graph=_wrong_signs),
    "no InfoNCE on anchors": Variant(plan={"alignment_weight": 0.0}),
    "graph term 0": Variant(plan={"graph_weight": 0.0}),
    "graph term 100": Variant(plan={"graph_weight": 100.0}),
    "decoders without the graph": Variant(patches=((_construct, "graph_arrays", lambda *_: None),)),
    "decoders with an MLP": Variant(
        patches=((_construct, "MIN_PAIRED_CELLS", 0), (_construct, "ENOUGH_PAIRS", 0.0))
    ),
}


@contextmanager
def _applied(variant: Variant) -> Iterator[None]:
    patches = [mock.patch.object(*patch) for patch in variant.patches]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def _start(aligner: MosaicVIAligner) -> dict[str, np.ndarray]:
    """Shared scores that the encoders of a model read."""
    module, data = aligner._model.module, aligner._model._cells(None).dataset
    return {
        name: turned(
            data.encoder_inputs[name][:, -module.aligned[name].n_directions :].astype(float)
        )
        for name in module.modalities
    }


def scores(task: AlignmentTask, variant: Variant) -> dict[str, float]:
    """Scores of one fit."""
    plan = {"train.plan_kwargs": variant.plan} if variant.plan else {}
    if variant.start:
        plan["train.max_epochs"] = 1
    given = task.public.given(options=plan)
    if variant.graph is not None:
        object.__setattr__(given, "graph", variant.graph(given.graph))
    with _applied(variant):
        aligner = MosaicVIAligner(given)
        aligner.fit()
        answer = Embedding(_start(aligner)) if variant.start else aligner.predict()[""]
    found = score_alignment(answer, task.truth)
    return {name: found.get(a, {}).get(b) for name, (a, b) in SCORES.items()}


def main() -> None:
    """Fit every variant and write a row of means over seeds for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="pbmc_mosaic")
    parser.add_argument("--n-cells", type=int)
    parser.add_argument("--min-share", type=float, default=0.0)
    parser.add_argument("--linked-only", action="store_true")
    parser.add_argument("--pairs", type=float, default=0.0)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--variants", default="all")
    arguments = parser.parse_args()
    both = MODALITIES.get(arguments.data, ("rna", "protein"))
    alignment = Alignment(
        data=arguments.data,
        modalities=both,
        pairs=arguments.pairs,
        n_cells=arguments.n_cells,
        min_share=arguments.min_share,
        linked_only=arguments.linked_only,
    )
    chosen = list(VARIANTS) if arguments.variants == "all" else arguments.variants.split(";")
    tasks = [alignment.task(int(seed)) for seed in arguments.seeds.split(",")]
    for name in chosen:
        each = pd.DataFrame([scores(task, VARIANTS[name]) for task in tasks]).astype(float)
        sys.stdout.write(f"| {name} | " + " | ".join(_cell(each[s]) for s in SCORES) + " |\n")
        sys.stdout.flush()


def _cell(values: pd.Series) -> str:
    """Mean, and the range over seeds."""
    if values.isna().all():
        return ""
    return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"


if __name__ == "__main__":
    main()
