"""One modality with far fewer cells than the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.decomposition import PCA

from mosaicvi import metrics
from mosaicvi.bm._alignment_score import N_SUPERVISED
from mosaicvi.bm._encodings import encode
from mosaicvi.bm.controls._base import Control, check_modality, keep_cells

if TYPE_CHECKING:
    from mosaicvi.bm._alignment import AlignmentTask
    from mosaicvi.bm._alignment_input import Embedding
    from mosaicvi.bm._alignment_score import AlignmentTruth, Scores


@dataclass(frozen=True)
class Imbalance(Control):
    """Keep one in so many cells of a modality, drawn at random.

    Scored besides: what so few labels can say at all (:func:`few_labels`).

    Parameters
    ----------
    ratio
        One in how many.
    modality
        Modality that is thinned.
    """

    ratio: float
    modality: str

    name = "imbalance"
    usage = "imbalance:RATIO@MODALITY"

    @property
    def text(self) -> str:
        """Such as ``imbalance:10@rna``."""
        return f"{self.name}:{self.ratio:g}@{self.modality}"

    @classmethod
    def parse(cls, argument: str) -> Self:
        """Read ratio and modality."""
        ratio, _, modality = argument.partition("@")
        try:
            found = cls(float(ratio), modality)
        except ValueError as error:
            raise cls.refuse(argument) from error
        if not (found.ratio >= 1.0 and modality):
            raise cls.refuse(argument)
        return found

    def apply(self, task: AlignmentTask, rng: np.random.Generator) -> AlignmentTask:
        """Thin the modality."""
        other = check_modality(task, self.modality)
        n_cells = len(task.truth.cells[self.modality])
        kept = np.zeros(n_cells, dtype=bool)
        kept[rng.permutation(n_cells)[: max(round(n_cells / self.ratio), 1)]] = True
        changed = keep_cells(task, {self.modality: kept})
        return replace(changed, also=partial(few_labels, few=self.modality, many=other))


def few_labels(answer: Embedding, truth: AlignmentTruth, *, few: str, many: str) -> Scores:
    """Label transfer within one modality, from as few cells of each type as the other one has.

    Nothing has to be aligned there: it is what the vote of nearest cells makes of so few labels.

    Parameters
    ----------
    answer
        The answer of a method, which this does not depend on.
    truth
        The hidden part of the task.
    few, many
        Modality that was thinned, and the other, within which labels are transferred.
    """
    rows, types = truth.typed(many)
    names, counts = np.unique(truth.typed(few)[1], return_counts=True)
    rng = np.random.default_rng(0)
    chosen = np.zeros(len(rows), dtype=bool)
    for name, count in zip(names, counts, strict=True):
        own = np.flatnonzero(types == name)
        chosen[rng.permutation(own)[: min(count, len(own) // 2)]] = True
    if not chosen.any() or chosen.all():
        return {}
    values = encode(truth.input.counts(many), truth.input.likelihoods[many])
    n_kept = min(N_SUPERVISED, min(values.shape) - 1)
    components = PCA(n_kept, svd_solver="arpack", random_state=0).fit_transform(values)[rows]
    found = metrics.label_transfer(
        components[chosen], types[chosen], components[~chosen], types[~chosen], standardise=False
    )
    return {
        "few_labels": {
            "n_labelled": int(chosen.sum()),
            "accuracy": found.accuracy.plain,
            "balanced": found.accuracy.balanced,
        }
    }
