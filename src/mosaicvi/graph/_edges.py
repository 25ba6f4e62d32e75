"""Edges of a feature graph as arrays, checked and in one fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mosaicvi._errors import DataError, RequestError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Label = Callable[[int], str]
Duplicates = Literal["error", "strongest"]


@dataclass(frozen=True, eq=False)
class Edges:
    """Undirected edges between numbered features; one edge a pair.

    Attributes
    ----------
    source, target
        Numbers of the features, shape ``(n_edges,)``, int64; ``source < target``, sorted.
    sign
        1 or -1: whether the two features rise together or against each other, shape
        ``(n_edges,)``, int8.
    weight
        In (0, 1], shape ``(n_edges,)``, float64.
    type
        What the edge rests on, such as ``promoter``, shape ``(n_edges,)``, object.
    """

    source: np.ndarray
    target: np.ndarray
    sign: np.ndarray
    weight: np.ndarray
    type: np.ndarray

    def __len__(self) -> int:
        """Count the edges."""
        return len(self.source)

    @classmethod
    def of(
        cls,
        source: ArrayLike,
        target: ArrayLike,
        sign: ArrayLike = 1,
        weight: ArrayLike = 1.0,
        type: str | Iterable[str] = "edge",
    ) -> Edges:
        """Edges from arrays, or from one value for all; unchecked until a graph takes them.

        Parameters
        ----------
        source, target, sign, weight, type
            As the attributes, in any order and orientation, shape ``(n_edges,)``; sign, weight and
            type may be single values.
        """
        first = np.asarray(source, dtype=np.int64)
        kinds = [type] * len(first) if isinstance(type, str) else [str(kind) for kind in type]
        return cls(
            first,
            np.asarray(target, dtype=np.int64),
            np.broadcast_to(np.asarray(sign), first.shape),
            np.broadcast_to(np.asarray(weight), first.shape),
            np.array(kinds, dtype=object),
        )

    def take(self, which: np.ndarray) -> Edges:
        """Some of the edges, by number or mask."""
        return Edges(
            self.source[which],
            self.target[which],
            self.sign[which],
            self.weight[which],
            self.type[which],
        )


def canonical(
    edges: Edges, n_features: int, label: Label, *, duplicates: Duplicates = "error"
) -> Edges:
    """Check edges and bring them to one order; an edge of weight zero is no edge and is left out.

    Parameters
    ----------
    edges
        Edges in any order and orientation.
    n_features
        Number of features.
    label
        Name of a feature by its number, for messages.
    duplicates
        What to do with a pair that occurs twice: ``error``, or keep the ``strongest`` edge (the
        first of equally strong ones).

    Returns
    -------
    Edges with read-only arrays.

    Raises
    ------
    DataError
        Features out of range, a feature linked to itself, signs other than 1 and -1, weights
        outside [0, 1], a pair that occurs twice, or twice with conflicting signs.
    """
    if duplicates not in ("error", "strongest"):
        raise RequestError(
            f"found {duplicates!r}", key="duplicates", expected="'error' or 'strongest'"
        )
    _check_features(edges, n_features, label)
    sign, weight = _signs(edges, label), _weights(edges, label)
    # Before pairs are compared: no edge is neither a second one nor of another sign.
    real = weight > 0
    edges, sign, weight = edges.take(real), sign[real], weight[real]
    low, high = np.minimum(edges.source, edges.target), np.maximum(edges.source, edges.target)
    # Pairs side by side, the strongest of each first, ties in the given order.
    order = np.lexsort((-weight, high, low))
    low, high, sign, weight = low[order], high[order], sign[order], weight[order]
    repeats = np.zeros(len(low), dtype=bool)
    repeats[1:] = (low[1:] == low[:-1]) & (high[1:] == high[:-1])
    _check_repeats(repeats, low, high, sign, duplicates, label)
    keep = ~repeats
    kept = Edges(
        low[keep],
        high[keep],
        sign[keep].astype(np.int8),
        weight[keep],
        edges.type[order][keep],
    )
    for array in (kept.source, kept.target, kept.sign, kept.weight, kept.type):
        array.flags.writeable = False
    return kept


def _pair(edges: Edges, number: int, label: Label) -> str:
    return f"{label(int(edges.source[number]))!r} and {label(int(edges.target[number]))!r}"


def _check_features(edges: Edges, n_features: int, label: Label) -> None:
    lengths = {len(x) for x in (edges.source, edges.target, edges.sign, edges.weight, edges.type)}
    if len(lengths) > 1:
        raise DataError(
            f"the arrays of edges have lengths {sorted(lengths)}", expected="one length"
        )
    for numbers in (edges.source, edges.target):
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= n_features):
            raise DataError(
                f"edges name features {int(numbers.min())} to {int(numbers.max())}",
                expected=f"numbers from 0 to {n_features - 1}",
            )
    loops = np.flatnonzero(edges.source == edges.target)
    if len(loops):
        raise DataError(
            f"{len(loops)} edges link a feature to itself, the first "
            f"{label(int(edges.source[loops[0]]))!r}",
            key="target",
            expected="edges between two features",
            remedy="leave these edges out: table[table['source'] != table['target']], or "
            "graph.remove_edges_from(networkx.selfloop_edges(graph))",
        )


def _numbers(values: np.ndarray, key: str) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the column holds {np.asarray(values).dtype} values", key=key, expected="numbers"
        ) from error


def _signs(edges: Edges, label: Label) -> np.ndarray:
    sign = _numbers(edges.sign, "sign")
    wrong = np.flatnonzero(~np.isin(sign, (-1.0, 1.0)))
    if len(wrong):
        raise DataError(
            f"{len(wrong)} signs are neither 1 nor -1, the first {sign[wrong[0]]:g} between "
            f"{_pair(edges, int(wrong[0]), label)}",
            key="sign",
            expected="1 (both features rise together) or -1",
            remedy="drop edges of unknown sign, or say that they count as 1; from_table does "
            "either by unknown_sign=",
        )
    return sign


def _weights(edges: Edges, label: Label) -> np.ndarray:
    weight = _numbers(edges.weight, "weight")
    wrong = np.flatnonzero(~((weight >= 0) & (weight <= 1)))
    if len(wrong):
        negative = " (negative)" if weight[wrong[0]] < 0 else ""
        raise DataError(
            f"{len(wrong)} weights are outside [0, 1], the first {weight[wrong[0]]:g}{negative} "
            f"between {_pair(edges, int(wrong[0]), label)}",
            key="weight",
            expected="weights between 0 (no edge) and 1; direction belongs into the sign",
            remedy="rescale scores first, or let from_table do it by rescale='max' or 'rank'; turn "
            "negative weights into sign=-1 and their absolute value",
        )
    return weight


def _check_repeats(
    repeats: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    sign: np.ndarray,
    duplicates: Duplicates,
    label: Label,
) -> None:
    again = np.flatnonzero(repeats)
    if not len(again):
        return
    conflicts = again[sign[again] != sign[again - 1]]
    if len(conflicts):
        first = conflicts[0]
        raise DataError(
            f"{len(conflicts)} pairs occur with both signs, the first {label(int(low[first]))!r} "
            f"and {label(int(high[first]))!r}",
            key="sign",
            expected="one sign a pair",
            remedy="decide for one sign, or leave these pairs out",
        )
    if duplicates == "error":
        first = again[0]
        raise DataError(
            f"{len(again)} edges are duplicated, the first between {label(int(low[first]))!r} and "
            f"{label(int(high[first]))!r}",
            expected="one edge a pair, whatever its direction",
            remedy="duplicates='strongest' keeps the edge of largest weight",
        )
