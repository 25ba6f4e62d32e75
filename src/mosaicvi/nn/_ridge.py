"""Ridge regressions that leave some rows out, from one Gram matrix of all rows.

Each set of rows left out, and each penalty, is a system of its own. Factorising all of them takes
most of the time, and a Gram matrix for each set most of the memory, that regressions on thousands
of features need. But the systems are alike: the factor of one, with all rows, is a preconditioner
under which conjugate gradients (Hestenes and Stiefel 1952) solve another in some ten steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.blas import ssyrk

from mosaicvi._types import Float32

Precondition = Callable[[Float32[np.ndarray, "used targets"]], Float32[np.ndarray, "used targets"]]
"""Solves a system that is near the one in hand."""

TOLERANCE = 1e-5
"""Residual at which a solution is done, as a share of the right side's norm: what rounding in
single precision leaves of a factorisation's own."""

TRIAL_TOLERANCE = 1e-3
"""The same while penalties are compared, whose errors differ by far more."""

_MOST_STEPS = 200


_COLUMNS = 512


def gram_of(
    blocks: Iterable[Float32[np.ndarray, "rows used"]], n_used: int
) -> Float32[np.ndarray, "used used"]:
    """Gram matrix of rows that come in blocks, in the memory of one, shape ``(n_used, n_used)``.

    In Fortran's order, in which LAPACK takes a copy of it as it is.
    """
    gram = np.zeros((n_used, n_used), dtype=np.float32, order="F")
    for block in blocks:
        # Adds to the upper triangle where it lies: no second matrix of that size.
        gram = ssyrk(1.0, block.T, beta=1.0, c=gram, overwrite_c=1)
    for start in range(0, n_used, _COLUMNS):
        stop = min(start + _COLUMNS, n_used)
        square = np.triu(gram[start:stop, start:stop])
        gram[start:stop, start:stop] = square + np.triu(square, 1).T
        gram[stop:, start:stop] = gram[start:stop, stop:].T
    return gram


def factorised(gram: Float32[np.ndarray, "used used"], penalty: float) -> Precondition:
    """Cholesky factor of ``gram + penalty I``, as a function that solves with it."""
    system = gram.copy(order="F")
    system[np.diag_indices_from(system)] += penalty
    factor = cho_factor(system, overwrite_a=True, check_finite=False)
    return partial(cho_solve, factor, check_finite=False)


@dataclass(frozen=True)
class Ridge:
    """A regression of some targets to all rows but some.

    Attributes
    ----------
    gram
        Gram matrix of all rows, shape ``(n_used, n_used)``.
    product
        Product of all rows with their targets, shape ``(n_used, n_targets)``.
    left_out
        Rows that take no part, shape ``(n_left_out, n_used)``.
    targets
        Their targets, shape ``(n_left_out, n_targets)``.
    """

    gram: Float32[np.ndarray, "used used"]
    product: Float32[np.ndarray, "used targets"]
    left_out: Float32[np.ndarray, "left used"]
    targets: Float32[np.ndarray, "left targets"]

    def path(self, penalties: Sequence[float]) -> list[Float32[np.ndarray, "used targets"]]:
        """Roughly, the weights under each penalty: to compare them."""
        near = factorised(self.gram, float(np.exp(np.mean(np.log(penalties)))))
        tried: list[Float32[np.ndarray, "used targets"]] = []
        for penalty in penalties:
            start = tried[-1] if tried else np.zeros_like(self.product)
            tried.append(self.solve(penalty, near, start, TRIAL_TOLERANCE))
        return tried

    def error(self, weights: Float32[np.ndarray, "used targets"], n_rows: int) -> float:
        """Squared error on at most so many of the rows left out."""
        missed = self.left_out[:n_rows] @ weights - self.targets[:n_rows]
        return float(np.square(missed).sum())

    def solve(
        self,
        penalty: float,
        near: Precondition,
        start: Float32[np.ndarray, "used targets"],
        tolerance: float = TOLERANCE,
    ) -> Float32[np.ndarray, "used targets"]:
        """Weights under a penalty, shape ``(n_used, n_targets)``, all targets at once.

        Parameters
        ----------
        penalty
            Added to the Gram matrix's diagonal.
        near
            Preconditioner.
        start
            Where to start, shape ``(n_used, n_targets)``.
        tolerance
            Largest residual of a target, as a share of its right side's norm.
        """
        left, right = self.left_out, self.product - self.left_out.T @ self.targets

        def times(v: Float32[np.ndarray, "used targets"]) -> Float32[np.ndarray, "used targets"]:
            return np.asarray(self.gram @ v - left.T @ (left @ v) + penalty * v, np.float32)

        enough = tolerance * np.linalg.norm(right, axis=0)
        weights = start.copy()
        residual = right - times(weights)
        step = near(residual)
        size = _dot(residual, step)
        for _ in range(_MOST_STEPS):
            if bool((np.linalg.norm(residual, axis=0) <= enough).all()):
                break
            moved = times(step)
            # a target that is solved exactly has nothing left to divide by
            length = size / np.maximum(_dot(step, moved), np.finfo(np.float32).tiny)
            weights += length * step
            residual -= length * moved
            turned = near(residual)
            before, size = size, _dot(residual, turned)
            step = turned + (size / np.maximum(before, np.finfo(np.float32).tiny)) * step
        return weights


def _dot(
    left: Float32[np.ndarray, "used targets"], right: Float32[np.ndarray, "used targets"]
) -> Float32[np.ndarray, " targets"]:
    """Product of columns."""
    return np.asarray(np.einsum("ft,ft->t", left, right))
