"""How alike the factors of two fits are that differ in their seed alone."""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from mosaicvi._errors import FileError
from mosaicvi.bm._factor_input import FactorAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_NAME = re.compile(r"(?P<method>.+)-seed(?P<seed>-?\d+)\.npz")
HEADINGS = ("setting", "method", "seeds", "factors", "weights", "number")


def absolute_correlations(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Absolute correlations of the columns of two tables; zero for constant columns."""

    def unit(table: NDArray[np.float64]) -> NDArray[np.float64]:
        centred = table - table.mean(0)
        norm = np.linalg.norm(centred, axis=0)
        return np.asarray(np.where(norm > 0, centred / np.maximum(norm, 1e-300), 0.0))

    return np.abs(unit(first).T @ unit(second))


def stacked_weights(answer: FactorAnswer) -> NDArray[np.float64]:
    """Weights of all modalities, each of the same total size."""
    tables = [np.asarray(table, dtype=np.float64) for table in answer.weights.values()]
    return np.concatenate([t / max(float(np.linalg.norm(t)), 1e-300) for t in tables])


def agreement(first: FactorAnswer, second: FactorAnswer) -> tuple[float, float]:
    """Mean absolute correlation of matched factors of two fits, of cells and of weights.

    Factors are matched one to one, best in sum over cells. A factor without a partner counts zero:
    a sum over pairs is divided by the mean number of factors of the two fits.
    """
    table = absolute_correlations(first.factors, second.factors)
    rows, columns = linear_sum_assignment(-table)
    weights = absolute_correlations(stacked_weights(first), stacked_weights(second))
    number = sum(table.shape) / 2
    return (
        float(table[rows, columns].sum() / number),
        float(weights[rows, columns].sum() / number),
    )


def stabilities(folder: Path) -> list[dict[str, Any]]:
    """Stability of every method of a folder of answers.

    Parameters
    ----------
    folder
        What ``factors --answers`` left of one split: ``<method>-seed<seed>.npz``.

    Returns
    -------
    One entry a method: mean agreement over all pairs of seeds (``factors``, ``weights``; None for
    a single seed) and the mean number of factors.

    Raises
    ------
    FileError
        If the folder holds no answers.
    """
    found: dict[str, dict[int, FactorAnswer]] = {}
    for path in sorted(folder.glob("*.npz")):
        match = _NAME.fullmatch(path.name)
        if match is not None:
            own = found.setdefault(match["method"], {})
            own[int(match["seed"])] = FactorAnswer.read(path)
    if not found:
        raise FileError(f"{folder} holds no answers", expected="a folder that --answers made")
    rows = []
    for method, answers in found.items():
        seeds = sorted(answers)
        pairs = [agreement(answers[a], answers[b]) for a, b in combinations(seeds, 2)]
        means = [float(v) for v in np.mean(pairs, axis=0)] if pairs else [None, None]
        rows.append(
            {
                "setting": folder.name,
                "method": method,
                "seeds": seeds,
                "factors": means[0],
                "weights": means[1],
                "n_factors": float(np.mean([a.factors.shape[1] for a in answers.values()])),
            }
        )
    return rows


def stability_table(rows: Sequence[dict[str, Any]]) -> str:
    """Lines of text, most stable first within a setting."""
    ordered = sorted(rows, key=lambda row: (row["setting"], -(row["factors"] or 0.0)))
    texts = [list(HEADINGS)] + [
        [
            row["setting"],
            row["method"],
            str(len(row["seeds"])),
            *("-" if row[key] is None else f"{row[key]:.3f}" for key in ("factors", "weights")),
            f"{row['n_factors']:.1f}",
        ]
        for row in ordered
    ]
    widths = [max(len(row[column]) for row in texts) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in texts
    ]
    return "\n".join(lines) + "\n"
