"""What a method says of cells whose type the other modality lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mosaicvi import metrics
from mosaicvi.bm._alignment_score import TYPE
from mosaicvi.tl._counterparts import alignment_confidence_of
from mosaicvi.tl._transfer_labels import N_NEIGHBOURS, transfer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mosaicvi.bm._alignment import AlignmentTask
    from mosaicvi.bm._alignment_input import Embedding, Floats
    from mosaicvi.bm._alignment_score import AlignmentTruth, Scores

N_MARKERS = 3


@dataclass(frozen=True)
class Markers:
    """Features that tell the orphans' types from all others, and their true levels.

    Attributes
    ----------
    names
        Their names; those whose mean of log1p in the orphans' types exceeds that of every other
        type by most.
    columns
        Their columns.
    levels
        Type -> true mean of log1p of each, before any cell was left out.
    """

    names: tuple[str, ...]
    columns: NDArray[np.int64]
    levels: pd.DataFrame

    @classmethod
    def of(cls, task: AlignmentTask, modality: str, orphans: Sequence[str]) -> Markers | None:
        """Find them among the cells of the whole task; None: there are no orphans, or no markers.

        Parameters
        ----------
        task
            The task before cells were left out.
        modality
            Modality that will lack the orphans' types.
        orphans
            These types.
        """
        rows, types = task.truth.typed(modality)
        values = np.log1p(task.public.counts(modality)[rows].toarray())
        means = pd.DataFrame(values).groupby(types).mean()
        own = means.index.isin(list(orphans))
        if not own.any() or own.all():
            return None
        gap = means[own].mean().to_numpy() - means[~own].max().to_numpy()
        columns = np.argsort(-gap)[:N_MARKERS]
        columns = columns[gap[columns] > 0]
        if not len(columns):
            return None
        names = task.public.mdata.mod[modality].var_names[columns]
        return cls(tuple(names), columns, means[columns])

    def scores(
        self, imputed: Floats, types: NDArray[np.str_], orphan: NDArray[np.bool_]
    ) -> dict[str, Any]:
        """Imputed against true levels, in log1p, averaged over the markers.

        Parameters
        ----------
        imputed
            Imputed mean of log1p of all features, ``(n_cells, n_features)``.
        types, orphan
            Type of each cell, and whether it is an orphan.

        Returns
        -------
        Of the orphans and of the other cells the imputed level and the true one of their types, and
        the share of the other cells that are imputed above the middle between the two true levels.
        """
        found, true = imputed[:, self.columns], self.levels.reindex(types).to_numpy()
        # a type that the modality never had has no true level
        known = ~np.isnan(true).any(axis=1)
        ours, others = known & orphan, known & ~orphan
        middle = (true[ours].mean(axis=0) + true[others].mean(axis=0)) / 2
        return {
            "markers": list(self.names),
            "imputed": float(found[others].mean()),
            "true": float(true[others].mean()),
            "imputed_orphans": float(found[ours].mean()),
            "true_orphans": float(true[ours].mean()),
            "positive": float((found[others] > middle).mean()),
            "positive_types": float((true[others] > middle).mean()),
        }


def orphan_scores(
    answer: Embedding,
    truth: AlignmentTruth,
    *,
    alone: str,
    lacking: str,
    markers: Markers | None = None,
) -> Scores:
    """Confidence and abstention of the orphans, and of the cells that are none.

    Labels go from the modality that lacks the orphans' types to the other, as
    :func:`mosaicvi.tl.transfer_labels` gives them at its defaults.

    Parameters
    ----------
    answer
        The answer of a method.
    truth
        The hidden part of the task.
    alone
        Modality with the orphans.
    lacking
        Modality without their types.
    markers
        The orphans' markers, where the method was asked to impute them.
    """
    rows, types = truth.typed(alone)
    labels = truth.cells[lacking][TYPE]
    names = sorted(set(labels.dropna().astype(str)))
    orphan = ~np.isin(types, names)
    own, other = answer.places(alone), answer.places(lacking)
    confidence = alignment_confidence_of(own, other)[rows]
    codes = pd.Categorical(labels.astype(object), categories=names).codes.astype(np.int64)
    done = transfer(other, codes, own, len(names), N_NEIGHBOURS, 0, answer.doubt)
    answered = done.given()[rows]
    right = np.array(names)[done.code[rows]] == types
    found: Scores = {
        "orphans": {
            "types": sorted(set(types[orphan])),
            "n_orphans": int(orphan.sum()),
            "n_others": int((~orphan).sum()),
            "auc": _plain(metrics.auc(-confidence, orphan)),
            "abstain": _mean(~answered[orphan]),
            "answered": _mean(answered[~orphan]),
            "accuracy": _mean(right[answered & ~orphan]),
            "accuracy_of_all": _mean(right[~orphan]),
        },
        "by_type": _by_type(types, confidence, answered, right),
    }
    if markers is not None and lacking in answer.wanted:
        found["markers"] = markers.scores(answer.wanted[lacking][rows], types, orphan)
    return found


def _by_type(
    types: NDArray[np.str_],
    confidence: Floats,
    answered: NDArray[np.bool_],
    right: NDArray[np.bool_],
) -> dict[str, dict[str, float | int]]:
    """Number of cells, median confidence, share that is answered and share that would be right."""
    table = pd.DataFrame(
        {"type": types, "confidence": confidence, "answered": answered, "right": right}
    )
    return {
        str(name): {
            "n_cells": len(cells),
            "confidence": float(cells["confidence"].median()),
            "answered": float(cells["answered"].mean()),
            "right": float(cells["right"].mean()),
        }
        for name, cells in table.groupby("type")
    }


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def _mean(values: NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if len(values) else None
