"""How alike the factors of two fits are that differ in their seed alone."""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi._errors import FileError
from mosaicvi.bm._factor_input import FactorAnswer
from mosaicvi.factor._stability import correlations, match, together

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_NAME = re.compile(r"(?P<method>.+)-seed(?P<seed>-?\d+)\.npz")
HEADINGS = ("setting", "method", "seeds", "factors", "weights", "found again", "number")
N_STRONGEST = 8
"""Factors of a fit, strongest first, that are looked for in another."""


def agreement(first: FactorAnswer, second: FactorAnswer) -> tuple[float, float]:
    """Mean absolute correlation of matched factors of two fits, of cells and of weights.

    Factors are matched one to one, best in sum over cells. A factor without a partner counts zero:
    a sum over pairs is divided by the mean number of factors of the two fits. Fits that saw
    different cells are compared over those that both have.

    Raises
    ------
    FileError
        If they share no cell, or their weights are not of the same features.
    """
    rows, others = _common(first, second)
    _check_features(first, second)
    partner, cells = match(first.factors[rows], second.factors[others])
    paired = partner >= 0
    own, other = together(first.weights), together(second.weights)
    weights = correlations(own[:, paired], other[:, partner[paired]]).diagonal()
    number = (first.factors.shape[1] + second.factors.shape[1]) / 2
    return float(cells.sum() / number), float(weights.sum() / number)


def found_again(first: FactorAnswer, second: FactorAnswer, n_strongest: int = N_STRONGEST) -> float:
    """Mean absolute correlation over cells of the strongest factors with their partners.

    Methods order factors by what they explain. Weak factors of a fit with many are no fault of it.
    """
    rows, others = _common(first, second)
    sides = (first.factors[rows], second.factors[others])
    found = [match(*each)[1][:n_strongest].mean() for each in (sides, sides[::-1])]
    return float(np.mean(found))


def _common(first: FactorAnswer, second: FactorAnswer) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the cells that two answers share; all, where they name none.

    Raises
    ------
    FileError
        If they share none, or name none and are not of one size.
    """
    if len(first.cells) and len(second.cells):
        names, rows, others = np.intersect1d(first.cells, second.cells, return_indices=True)
        if len(names):
            return rows, others
    elif len(first.factors) == len(second.factors):
        return np.arange(len(first.factors)), np.arange(len(second.factors))
    raise FileError(
        f"answers of {len(first.factors)} and {len(second.factors)} cells share none by name",
        expected="answers to one data set",
        remedy="make them again: older files do not name cells",
    )


def _check_features(first: FactorAnswer, second: FactorAnswer) -> None:
    """Refuse weights of other features: they are compared row by row."""
    sizes, others = (
        {name: len(table) for name, table in answer.weights.items()} for answer in (first, second)
    )
    if sizes != others:
        raise FileError(
            f"answers with weights of {sizes} and of {others} features",
            expected="the same features in both",
            remedy="make them again: older files were made of the features of the cells drawn",
        )


def stabilities(folder: Path) -> list[dict[str, Any]]:
    """Stability of every method of a folder of answers.

    Parameters
    ----------
    folder
        What ``factors --answers`` left of one split: ``<method>-seed<seed>.npz``.

    Returns
    -------
    One entry a method: mean agreement over all pairs of seeds (``factors``, ``weights``, and
    ``found_again`` of the eight strongest; None for a single seed) and the mean number of factors.

    Raises
    ------
    FileError
        If the folder holds no answers, or some that cannot be compared.
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
        again = [found_again(answers[a], answers[b]) for a, b in combinations(seeds, 2)]
        means = [float(v) for v in np.mean(pairs, axis=0)] if pairs else [None, None]
        rows.append(
            {
                "setting": folder.name,
                "method": method,
                "seeds": seeds,
                "factors": means[0],
                "weights": means[1],
                "found_again": float(np.mean(again)) if again else None,
                "n_factors": float(np.mean([a.factors.shape[1] for a in answers.values()])),
            }
        )
    return rows


def stability_table(rows: Sequence[dict[str, Any]]) -> str:
    """Lines of text, most stable first within a setting."""
    ordered = sorted(rows, key=lambda row: (row["setting"], -(row["factors"] or 0.0)))
    keys = ("factors", "weights", "found_again")
    texts = [list(HEADINGS)] + [
        [
            row["setting"],
            row["method"],
            str(len(row["seeds"])),
            *("-" if row[key] is None else f"{row[key]:.3f}" for key in keys),
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
