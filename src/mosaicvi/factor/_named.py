"""Where named factors start: the rotation in which they stand out for their sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from mosaicvi.factor._components import varimax

if TYPE_CHECKING:
    from mosaicvi.factor._gene_sets import Members

N_NULL = 20
"""Random sets of the same size with which a set's contrast is compared."""


def named_rotation(
    loadings: np.ndarray, own: np.ndarray, members: Members, *, seed: int
) -> np.ndarray:
    r"""Orthogonal rotation whose first factors are those of gene sets.

    For a set with members S, the direction of unit length along which members' squared loadings
    exceed the others' most,

    .. math:: \max_r \; r^\top \big(\tfrac1{|S|} \sum_{f \in S} b_f b_f^\top
        - \tfrac1{|\bar S|} \sum_{f \notin S} b_f b_f^\top\big)\, r

    (contrastive principal components; Abid et al. 2018), sets in the order of their contrast, each
    orthogonal to those before. Loadings of a feature are divided by their length and a common one,
    so that no feature rules. What is left is rotated by varimax; sets whose contrast random ones of
    their size reach start from those of its factors that suit them best. Should the data not bear
    such a set out, its factor loses the name after training.

    Parameters
    ----------
    loadings
        Loadings of all features, shape ``(n_all_features, n_factors)``.
    own
        Those of the modality whose features are genes, ``(n_features, n_factors)``.
    members
        Members of the sets.
    seed
        Seed of the random sets.

    Returns
    -------
    Shape ``(n_factors, n_factors)``.
    """
    n_factors, n_sets = own.shape[1], members.table.shape[1]
    length = np.linalg.norm(own, axis=1, keepdims=True)
    scaled = own / (length + np.median(length) + 1e-12)
    contrasts = [_contrast(scaled, members.table[:, s]) for s in range(n_sets)]
    floor = [_null(scaled, int(members.table[:, s].sum()), seed) for s in range(n_sets)]
    basis, chosen = np.eye(n_factors), {}
    waiting = set(range(n_sets))
    while waiting:
        best, place, direction = max(
            (_top(basis.T @ contrasts[s] @ basis, s, floor[s]) for s in sorted(waiting)),
            key=lambda found: found[0],
        )
        if best <= 0:
            break
        chosen[place] = basis @ direction
        waiting.discard(place)
        basis = _complement(np.column_stack([*chosen.values()]), n_factors)
    rest = basis @ varimax(loadings @ basis) if basis.shape[1] > 1 else basis
    left = sorted(waiting)
    fit = np.array([_fit((scaled @ rest) ** 2, members.table[:, s]) for s in left])
    rows, columns = linear_sum_assignment(-fit.reshape(len(left), rest.shape[1]))
    for row, column in zip(rows, columns, strict=True):
        chosen[left[row]] = rest[:, column]
    free = np.delete(rest, columns, axis=1)
    return np.column_stack([*(chosen[s] for s in range(n_sets)), free])


def _fit(squares: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Excess of members' squared loadings over the others', in standard errors, a factor."""
    inside, outside = squares[member], squares[~member]
    error = np.sqrt(squares.var(0) / max(len(inside), 1)) + 1e-12
    return np.asarray((inside.mean(0) - outside.mean(0)) / error)


def _contrast(loadings: np.ndarray, member: np.ndarray) -> np.ndarray:
    inside, outside = loadings[member], loadings[~member]
    return np.asarray(
        inside.T @ inside / max(len(inside), 1) - outside.T @ outside / max(len(outside), 1)
    )


def _null(loadings: np.ndarray, size: int, seed: int) -> float:
    """Largest contrast of random sets."""
    rng = np.random.default_rng(seed)
    largest = 0.0
    for _ in range(N_NULL):
        member = np.zeros(len(loadings), dtype=bool)
        member[rng.choice(len(loadings), size, replace=False)] = True
        largest = max(largest, float(np.linalg.eigvalsh(_contrast(loadings, member))[-1]))
    return largest


def _top(contrast: np.ndarray, place: int, floor: float) -> tuple[float, int, np.ndarray]:
    """Contrast above its floor, its set and its direction."""
    if not contrast.size:
        return -np.inf, place, np.zeros(0)
    values, vectors = np.linalg.eigh(contrast)
    return float(values[-1]) - floor, place, vectors[:, -1]


def _complement(directions: np.ndarray, n_factors: int) -> np.ndarray:
    """Orthonormal basis of what is orthogonal to some directions."""
    left, _, _ = np.linalg.svd(directions, full_matrices=True)
    return np.asarray(left[:, directions.shape[1] : n_factors])
