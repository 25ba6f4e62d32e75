"""Types of one modality's cells, read from their neighbours in another modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mosaicvi._errors import RequestError, check_whole
from mosaicvi.metrics._abstention import accuracy_at_coverage
from mosaicvi.metrics._folds import stratified_folds
from mosaicvi.metrics._latents import as_latents, check_finite, standardised
from mosaicvi.metrics._shapes import along, as_named, dense, stated

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

TIE = 1e-6


@dataclass(frozen=True)
class Accuracy:
    """Plain and balanced accuracy.

    Parameters
    ----------
    plain
        Share of cells whose type is right.
    balanced
        Mean over the types of the share of their cells that is right: every type counts alike.
    """

    plain: float
    balanced: float


def type_accuracy(predicted: NDArray[np.str_], labels: NDArray[np.str_]) -> Accuracy:
    """Plain and balanced accuracy over the types that ``labels`` have."""
    correct = predicted == labels
    codes = np.unique(labels, return_inverse=True)[1]
    recall = np.bincount(codes, weights=correct) / np.bincount(codes)
    return Accuracy(float(correct.mean()), float(recall.mean()))


@dataclass(frozen=True)
class LabelTransfer:
    """Transferred types, how sure they are, and how right.

    Parameters
    ----------
    predicted
        Type of each target cell, shape ``(n_target,)``.
    confidence
        Share of the neighbours that have this type, shape ``(n_target,)``.
    correct
        Whether it is the true type, shape ``(n_target,)``.
    accuracy
        Plain and balanced.
    """

    predicted: NDArray[np.str_]
    confidence: NDArray[np.float64]
    correct: NDArray[np.bool_]
    accuracy: Accuracy

    def fraction_of(self, supervised: Accuracy) -> Accuracy:
        """Both accuracies over those of supervision, see :func:`supervised_accuracy`.

        1 where the transfer is as good as labels of the target's own modality; above 1 is possible.
        """
        return Accuracy(
            self.accuracy.plain / supervised.plain, self.accuracy.balanced / supervised.balanced
        )

    def at_coverage(self, coverage: ArrayLike) -> NDArray[np.float64]:
        """Accuracy when the least confident abstain, see :func:`accuracy_at_coverage`."""
        return accuracy_at_coverage(self.confidence, self.correct, coverage)


def _labels(labels: ArrayLike, n_cells: int, key: str) -> NDArray[np.str_]:
    given = np.asarray(labels)
    if given.shape != (n_cells,):
        raise RequestError(
            f"shape {given.shape} for {n_cells} cells", key=key, expected="(n_cells,)"
        )
    known = stated(labels)
    if not known.all():
        raise RequestError(
            f"{int((~known).sum())} of {n_cells} cells have no label",
            key=key,
            expected="a label of each cell",
            remedy="leave these cells out, here and of the latent: rows = pd.notna(labels)",
        )
    return as_named(labels)


def label_transfer(
    source: ArrayLike,
    source_labels: ArrayLike,
    target: ArrayLike,
    target_labels: ArrayLike,
    *,
    n_neighbours: int = 15,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    standardise: bool = True,
) -> LabelTransfer:
    """Transfer types by k nearest neighbours from one modality's cells to another's.

    The most frequent type among the k nearest source cells; of equally frequent ones the one whose
    cells are nearer. Cells at equal distances come in the order of the source.

    Parameters
    ----------
    source, target
        Latent of the cells of either modality, ``(n_source, n_latent)`` and
        ``(n_target, n_latent)``.
    source_labels, target_labels
        Types, shapes ``(n_source,)`` and ``(n_target,)``; 1, 1.0 and ``"1"`` are one. A target type
        that the source lacks is counted as wrong; cells without a type (None, NaN) must be left
        out.
    n_neighbours
        k, at most the number of source cells.
    metric
        Distance.
    standardise
        Standardise every dimension over both modalities first, as in :func:`foscttm`.

    Returns
    -------
    Types, confidence and accuracy. A constant embedding gives about the share of the commonest
    type, and a balanced accuracy of one over the number of types.

    Raises
    ------
    RequestError
        If the arrays do not belong together, a label is missing, the latent has values that are not
        finite, or ``n_neighbours`` is no whole number of at least one.
    """
    check_whole(n_neighbours, "n_neighbours")
    known, asked = as_latents(source, target)
    types = _labels(along(source_labels, source), len(known), "source_labels")
    truth = _labels(along(target_labels, target), len(asked), "target_labels")
    if standardise:
        known, asked = standardised(known, asked)
    k = min(n_neighbours, len(known))
    found = NearestNeighbors(n_neighbors=k, metric=metric).fit(known)
    nearest = found.kneighbors(asked, return_distance=False)
    names, codes = np.unique(types, return_inverse=True)
    votes = np.zeros((len(asked), len(names)))
    rows = np.arange(len(asked))
    for rank in range(k):
        votes[rows, codes[nearest[:, rank]]] += 1.0 - TIE * rank
    best = votes.argmax(axis=1)
    predicted = names[best]
    confidence = (codes[nearest] == best[:, None]).mean(axis=1)
    return LabelTransfer(predicted, confidence, predicted == truth, type_accuracy(predicted, truth))


def supervised_accuracy(
    features: ArrayLike, labels: ArrayLike, *, n_folds: int = 5, seed: int = 0
) -> Accuracy:
    """Accuracy that labels of the modality itself give: what a transfer can be held against.

    Logistic regression on standardised features, cross-validated; each cell is predicted by a model
    that has not seen it. Types with fewer cells than folds are learnt and predicted in the folds
    that have them.

    Parameters
    ----------
    features
        Representation of the cells, such as 50 principal components, ``(n_cells, n_features)``.
    labels
        Types, shape ``(n_cells,)``; cells without one (None, NaN) must be left out.
    n_folds
        Folds of the cross-validation.
    seed
        Seed of the folds.

    Raises
    ------
    RequestError
        If the arrays do not belong together, a label is missing, the features have values that are
        not finite, or there are fewer than two types.
    """
    values = np.asarray(dense(features, "features"), dtype=np.float64)
    if values.ndim != 2:
        raise RequestError(
            f"shape {values.shape}", key="features", expected="(n_cells, n_features)"
        )
    check_finite(values, "features")
    names = _labels(along(labels, features), len(values), "labels")
    counts = np.unique(names, return_counts=True)[1]
    if n_folds < 2 or len(counts) < 2 or np.sort(counts)[-2] < n_folds:
        raise RequestError(
            f"{n_folds} folds, {len(counts)} types with up to {counts.max(initial=0)} cells",
            key="labels, n_folds",
            expected="two folds or more, and two types with as many cells as folds",
        )
    predicted = np.empty(len(names), dtype=names.dtype)
    folds = stratified_folds(names, n_folds, seed)
    for fold in range(n_folds):
        test = folds == fold
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        predicted[test] = model.fit(values[~test], names[~test]).predict(values[test])
    return type_accuracy(predicted, names)
