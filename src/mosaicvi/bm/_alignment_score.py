"""Scores of an alignment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sklearn.decomposition import PCA

from mosaicvi import metrics
from mosaicvi._errors import RequestError
from mosaicvi.bm._encodings import encode

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mosaicvi.bm._alignment_input import AlignmentInput, Embedding, Floats

Scores = dict[str, Any]
"""Group of scores -> name -> value, JSON-able."""
MATCH_NEIGHBOURS = 10
COVERAGES = (0.5, 0.8)
MANY_CELLS = 20_000
N_QUERIES = 5_000
N_SUPERVISED = 50
BATCH, TYPE, DEPTH, PAIR, SCORED = "batch", "type", "depth", "pair", "scored"


@dataclass(frozen=True)
class AlignmentTruth:
    """The hidden part of an alignment task.

    Parameters
    ----------
    modalities
        First and second modality.
    cells
        Modality -> one row a cell in the order of the input, columns ``batch``, ``type`` (NaN: not
        a type), ``depth`` (total counts), ``pair`` (number that both cells of a true pair have, -1
        for none), ``scored`` (False for cells whose pairing was given), and further ones that the
        comparison was asked to keep.
    input
        What methods see, for the supervised ceiling.
    with_scib
        Whether scores of scib-metrics are wanted.
    """

    modalities: tuple[str, str]
    cells: dict[str, pd.DataFrame]
    input: AlignmentInput
    with_scib: bool = False

    @cached_property
    def matches(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the first and of the second modality of the true pairs that are scored."""
        rows = []
        for name in self.modalities:
            table = self.cells[name]
            kept = np.flatnonzero((table[PAIR] >= 0) & table[SCORED])
            rows.append(kept[np.argsort(table[PAIR].to_numpy()[kept])])
        return rows[0], rows[1]

    def typed(self, modality: str) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
        """Rows of the scored cells with a type, and their types."""
        table = self.cells[modality]
        rows = np.flatnonzero(table[TYPE].notna() & table[SCORED])
        return rows, table[TYPE].to_numpy()[rows].astype(str)

    @cached_property
    def supervised(self) -> dict[str, metrics.Accuracy]:
        """Cross-validated accuracy of each modality's own 50 components, where there are types."""
        found = {}
        for name in self.modalities:
            rows, types = self.typed(name)
            values = encode(self.input.counts(name), self.input.likelihoods[name])
            n_kept = min(N_SUPERVISED, min(values.shape) - 1)
            components = PCA(n_kept, svd_solver="arpack", random_state=0).fit_transform(values)
            try:
                found[name] = metrics.supervised_accuracy(components[rows], types)
            except RequestError:  # no types, or too few cells of them
                continue
        return found


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def _match_scores(latents: tuple[Floats, Floats], truth: AlignmentTruth) -> dict[str, Any]:
    """FOSCTTM and matching of the scored true pairs."""
    rows = truth.matches
    if not len(rows[0]):
        return {}
    sides = latents[0][rows[0]], latents[1][rows[1]]
    cells = truth.cells[truth.modalities[0]].iloc[rows[0]]
    strata = metrics.depth_strata(cells[DEPTH], cells[BATCH].astype(str))
    groups: dict[str, Any] = {"overall": None, "stratified": strata}
    if cells[TYPE].notna().any():
        # cells that are of no type are no type of their own
        groups["within_type"] = cells[TYPE].to_numpy(dtype=object)
    n_queries = N_QUERIES if len(rows[0]) > MANY_CELLS else None
    found: dict[str, Any] = {"n_pairs": len(rows[0])}
    for key, standardise in (("foscttm", True), ("foscttm_as_given", False)):
        found[key] = {
            name: _plain(
                metrics.foscttm(*sides, groups=group, standardise=standardise, n_queries=n_queries)
            )
            for name, group in groups.items()
        }
    matching = metrics.matching_accuracy(
        *sides, n_neighbours=MATCH_NEIGHBOURS, standardise=False, n_queries=n_queries
    )
    found["matching"] = {"accuracy": matching.accuracy, "expected": matching.expected}
    return found


def _transfer_scores(latents: tuple[Floats, Floats], truth: AlignmentTruth) -> dict[str, Any]:
    """Label transfer in both directions."""
    found: dict[str, Any] = {}
    for source, target in ((0, 1), (1, 0)):
        names = truth.modalities[source], truth.modalities[target]
        (known, types), (asked, answers) = truth.typed(names[0]), truth.typed(names[1])
        if not (len(known) and len(asked)):
            return {}
        transfer = metrics.label_transfer(
            latents[source][known], types, latents[target][asked], answers, standardise=False
        )
        scores: dict[str, Any] = {
            "source": names[0],
            "target": names[1],
            "accuracy": transfer.accuracy.plain,
            "balanced": transfer.accuracy.balanced,
        }
        ceiling = truth.supervised.get(names[1])
        if ceiling is not None:
            share = transfer.fraction_of(ceiling)
            scores |= {"of_supervised": share.plain, "balanced_of_supervised": share.balanced}
            scores |= {"supervised": ceiling.plain, "supervised_balanced": ceiling.balanced}
        at = transfer.at_coverage(COVERAGES)
        scores |= {f"at_{level:.0%}": float(at[i]) for i, level in enumerate(COVERAGES)}
        found["label_transfer" if source == 0 else "label_transfer_back"] = scores
    return found


def _latent_scores(latents: tuple[Floats, Floats], truth: AlignmentTruth) -> dict[str, Any]:
    """Leakage of batch, depth and modality, and mixing of modalities, within type."""
    leaks, parts = [], []
    for name, latent in zip(truth.modalities, latents, strict=True):
        cells = truth.cells[name]
        rows = np.flatnonzero(cells[SCORED])
        kept = cells.iloc[rows]
        named = kept[TYPE].astype(object).where(kept[TYPE].notna(), "untyped").astype(str)
        parts.append((latent[rows], named.to_numpy(), np.full(len(rows), name)))
        leaks.append(
            metrics.leakage(latent[rows], named, batch=kept[BATCH].astype(str), depth=kept[DEPTH])
        )
    together = np.concatenate([part[0] for part in parts])
    types, modality = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    both = metrics.leakage(together, types, batch=modality)
    found: dict[str, Any] = {
        "leakage": {
            "batch": _plain(float(np.mean([leak.batch for leak in leaks]))),
            "depth": _plain(float(np.mean([leak.depth for leak in leaks]))),
            "modality": _plain(both.batch),
        },
        "mixing": {"modality": _plain(metrics.batch_mixing(together, modality, types))},
    }
    if truth.with_scib:
        found["bio_conservation"] = metrics.bio_conservation(together, types)
        found["scib_mixing"] = metrics.modality_mixing(together, types, modality)
    return found


def score_alignment(embedding: Embedding, truth: AlignmentTruth) -> Scores:
    """Every score that the data allow.

    FOSCTTM and matching only where there are true pairs, label transfer only where there are
    types. ``foscttm`` is that of standardised dimensions, ``foscttm_as_given`` that of the latent's
    own distances, which label transfer and matching use too.

    Parameters
    ----------
    embedding
        The answer of a method.
    truth
        The hidden part of the task.

    Returns
    -------
    Group of scores -> name -> value, JSON-able.

    Raises
    ------
    RequestError
        If a latent has another number of cells, other dimensions, or values that are not finite.
    """
    for name in truth.modalities:
        shape = embedding.latents[name].shape if name in embedding.latents else None
        if shape is None or len(shape) != 2 or shape[0] != len(truth.cells[name]):
            raise RequestError(
                f"a latent of shape {shape}",
                modality=name,
                expected=f"({len(truth.cells[name])}, n_latent)",
            )
        if not np.isfinite(embedding.latents[name]).all():
            raise RequestError(
                "a latent with values that are not finite",
                modality=name,
                expected="finite numbers for every cell",
            )
    first, second = (np.asarray(embedding.latents[n], np.float64) for n in truth.modalities)
    if first.shape[1] != second.shape[1]:
        raise RequestError(
            f"latents with {first.shape[1]} and {second.shape[1]} dimensions",
            expected="one number of dimensions",
        )
    latents = cast("tuple[Floats, Floats]", (first, second))
    return {
        **_match_scores(latents, truth),
        **_transfer_scores(latents, truth),
        **_latent_scores(latents, truth),
    }
