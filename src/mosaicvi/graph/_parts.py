"""What a feature graph is made of, for the functions that make one from another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from mosaicvi._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    from mosaicvi.graph._edges import Edges
    from mosaicvi.graph._nodes import Nodes

REASON, DETAIL = "reason", "detail"
"""Columns of metadata that say why a feature has no edge."""

HUB = "hub"
"""Column of metadata that is True for a feature that has no data and only joins others."""

RESERVED = ("modality", "feature", "n_edges")
"""Columns of the table of features that are no metadata."""


class Parts(NamedTuple):
    """Features, edges over their numbers, and metadata in their order."""

    features: Mapping[str, Iterable[str]]
    edges: Edges
    metadata: pd.DataFrame | None


def aligned_metadata(metadata: pd.DataFrame | None, nodes: Nodes) -> pd.DataFrame:
    """Return a copy of metadata with rows numbered like nodes.

    Raises
    ------
    DataError
        The number of rows differs, or a column is named like one of :data:`RESERVED`.
    """
    if metadata is None:
        return pd.DataFrame(index=pd.RangeIndex(nodes.n))
    if len(metadata) != nodes.n:
        raise DataError(
            f"found {len(metadata)} rows", key="metadata", expected=f"{nodes.n}, one a feature"
        )
    taken = [name for name in RESERVED if name in metadata.columns]
    if taken:
        raise DataError(
            f"columns {taken} have another meaning",
            key="metadata",
            remedy="rename them, or pass the table without them",
        )
    return metadata.reset_index(drop=True).copy()


def take_metadata(metadata: pd.DataFrame, numbers: np.ndarray) -> pd.DataFrame:
    """Rows of nodes by number; a row of missing values (empty reasons) for -1."""
    table = metadata.reindex(numbers).reset_index(drop=True)
    for column in (REASON, DETAIL):
        if column in table:
            table[column] = table[column].where(table[column].notna(), "")
    return table
