"""Whether modalities can be told from the batches that measured them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from mosaicvi._errors import MosaicviWarning

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

N_NAMED = 3
"""Batches that a warning names."""


def groups_apart(labels: np.ndarray, rows: Mapping[str, np.ndarray]) -> list[dict[str, list[str]]]:
    """Groups of modalities that no batch ties to those of another group, even through others.

    Parameters
    ----------
    labels
        Batch of each cell, None where it is unknown, shape ``(n_cells,)``.
    rows
        Modality to its row of each cell, -1 where it has none, each ``(n_cells,)``.

    Returns
    -------
    For each group the batches of its modalities; modalities without a batch are left out.
    """
    groups: list[dict[str, list[str]]] = []
    for name, its_rows in rows.items():
        held = {str(label) for label in labels[its_rows >= 0] if label is not None}
        if not held:
            continue
        tied = [group for group in groups if held & {b for each in group.values() for b in each}]
        joined = {name: sorted(held)}
        for group in reversed(tied):
            joined = {**group, **joined}
        groups = [group for group in groups if group not in tied] + [joined]
    return groups


def warn_inseparable(key: str, labels: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
    """Tell of modalities that no batch has in common.

    Parameters
    ----------
    key
        Column of the batch.
    labels, rows
        As in :func:`groups_apart`.
    """
    groups = groups_apart(labels, rows)
    if len(groups) < 2:
        return
    said = "; ".join(
        f"{' and '.join(map(repr, group))} in {_some({b for each in group.values() for b in each})}"
        for group in groups
    )
    warnings.warn(
        f"batch_key {key!r} and modality are inseparable: {said}, and no batch ties these "
        "together. What parts the modalities cannot be told from what parts their batches: report "
        "that with any result. Only a batch that measured both would tell them apart.",
        MosaicviWarning,
        stacklevel=2,
    )


def _some(batches: set[str]) -> str:
    """Names of some batches."""
    names = sorted(batches)
    rest = len(names) - N_NAMED
    return ", ".join(map(repr, names[:N_NAMED])) + (f" and {rest} more" if rest > 0 else "")
