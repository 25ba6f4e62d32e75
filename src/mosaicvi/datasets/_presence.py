"""Which simulated cell belongs to which batch, and which modalities it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from mosaicvi._errors import RequestError

if TYPE_CHECKING:
    from mosaicvi.datasets._generative import Mask
    from mosaicvi.datasets._truth import Codes

Fractions = Mapping[str, float]
Patterns = Fractions | Mapping[str, Fractions]


def default_patterns(modalities: Sequence[str]) -> dict[str, float]:
    """Half of the cells have every modality; the rest have one each, in equal shares."""
    everything = "+".join(modalities)
    if len(modalities) == 1:
        return {everything: 1.0}
    return {everything: 0.5, **dict.fromkeys(modalities, 0.5 / len(modalities))}


def draw_presence(
    rng: np.random.Generator,
    *,
    batch: Codes,
    batch_names: Sequence[str],
    modalities: Sequence[str],
    patterns: Patterns,
) -> Mask:
    """Presence of each modality in each cell, in the asked proportions within each batch.

    Numbers of cells are the fractions, rounded so that they add up; which cells is random.

    Returns
    -------
    Shape ``(n_cells, n_modalities)``.

    Raises
    ------
    RequestError
        A pattern or batch is unknown, fractions are no fractions, or a modality has no cell.
    """
    by_batch = _by_batch(patterns, batch_names)
    presence = np.zeros((len(batch), len(modalities)), dtype=bool)
    for code, name in enumerate(batch_names):
        rows = rng.permutation(np.flatnonzero(batch == code))
        counts = _shares(by_batch[name], len(rows), name)
        ends = np.cumsum(list(counts.values()))
        for pattern, end, count in zip(counts, ends, counts.values(), strict=True):
            presence[rows[end - count : end]] = _pattern(pattern, modalities)
    for column, modality in enumerate(modalities):
        if not presence[:, column].any():
            raise RequestError(
                "no simulated cell measures it",
                modality=modality,
                key="patterns",
                remedy="give a pattern that holds it a larger fraction, or simulate more cells",
            )
    return presence


def _by_batch(patterns: Patterns, batch_names: Sequence[str]) -> dict[str, Fractions]:
    if not isinstance(patterns, Mapping):
        raise RequestError(
            f"found {patterns!r}",
            key="patterns",
            expected='fractions by pattern, such as {"rna+protein": 0.5, "rna": 0.5}',
        )
    nested = [isinstance(value, Mapping) for value in patterns.values()]
    if not any(nested):
        return dict.fromkeys(batch_names, cast("Fractions", patterns))
    if not all(nested) or set(patterns) != set(batch_names):
        raise RequestError(
            f"patterns by batch for {sorted(patterns)}",
            key="patterns",
            expected=f"a mapping from pattern to fraction for each batch {list(batch_names)}",
        )
    return cast("dict[str, Fractions]", dict(patterns))


def _shares(fractions: Fractions, n_cells: int, batch: str) -> dict[str, int]:
    """Whole numbers of cells nearest to the fractions (largest remainders)."""
    values = np.array(list(fractions.values()), dtype=np.float64)
    if not len(values) or not (values >= 0).all() or not np.isclose(values.sum(), 1.0):
        raise RequestError(
            f"fractions {dict(fractions)} in batch {batch!r}",
            key="patterns",
            expected="fractions of 0 or more that add up to 1",
        )
    exact = values * n_cells
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")[: n_cells - counts.sum()]
    counts[largest] += 1
    return dict(zip(fractions, counts.tolist(), strict=True))


def _pattern(pattern: str, modalities: Sequence[str]) -> Mask:
    names = pattern.split("+")
    unknown = [name for name in names if name not in modalities]
    if unknown:
        raise RequestError(
            f"pattern {pattern!r} names {unknown[0]!r}",
            key="patterns",
            expected=f"names of modalities joined by '+', from {list(modalities)}",
        )
    return np.array([name in names for name in modalities])
