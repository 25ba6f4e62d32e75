"""Rules by which a gene and a peak belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from mosaicvi._errors import RequestError

if TYPE_CHECKING:
    import pandas as pd


@runtime_checkable
class Rule(Protocol):
    """How far a gene reaches, and what a peak within reach weighs."""

    @property
    def needs_strand(self) -> bool:
        """Whether the rule tells the two ends of a gene apart."""

    def reach(self, genes: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Start and end of the region in which peaks belong to each gene."""

    def weigh(
        self, genes: pd.DataFrame, start: np.ndarray, end: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weight and type of each pair; genes and peaks row by row."""


def start_site(genes: pd.DataFrame) -> np.ndarray:
    """Base at which transcription starts, shape ``(n,)``, int64; the first one without strand."""
    start, end = genes["start"].to_numpy(), genes["end"].to_numpy()
    return np.where(genes["strand"].to_numpy() == "-", end - 1, start)


@dataclass(frozen=True)
class GeneBody:
    """A peak belongs to a gene whose body or promoter it overlaps by one base or more.

    All edges have weight 1; their type is ``promoter`` where the peak reaches into the promoter,
    else ``body``.

    Parameters
    ----------
    upstream
        Length of the promoter, in bases before the transcription start (default 2,000).
    """

    upstream: int = 2000

    def __post_init__(self) -> None:
        _check_number(self.upstream, "upstream", 0)

    @property
    def needs_strand(self) -> bool:
        """Whether there is a promoter."""
        return self.upstream > 0

    def reach(self, genes: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Body and promoter, 0-based half-open, each of shape ``(n_genes,)``."""
        minus = genes["strand"].to_numpy() == "-"
        start, end = genes["start"].to_numpy(), genes["end"].to_numpy()
        low = np.where(minus, start, np.maximum(start - self.upstream, 0))
        return low, np.where(minus, end + self.upstream, end)

    def weigh(
        self, genes: pd.DataFrame, start: np.ndarray, end: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weight 1, and whether promoter or body, each of shape ``(n_pairs,)``."""
        minus = genes["strand"].to_numpy() == "-"
        before = np.where(minus, end > genes["end"].to_numpy(), start < genes["start"].to_numpy())
        kind = np.where(before & (self.upstream > 0), "promoter", "body")
        return np.ones(len(start)), kind.astype(object)


@dataclass(frozen=True)
class Window:
    r"""A peak belongs to every gene within a distance, the less the farther it is.

    The weight is :math:`2^{-d / h}`, with :math:`d` the bases from the anchor's to the peak's
    nearest base (0 where they overlap) and :math:`h` the half distance.

    Parameters
    ----------
    distance
        Largest distance, in bases (default 100,000).
    half_distance
        Distance at which the weight is one half, in bases (default 10,000); None: all weights 1.
    anchor
        ``"start"``: the transcription start (default); ``"body"``: the whole gene.

    Examples
    --------
    >>> rule = mosaicvi.graph.Window(distance=50_000)
    >>> mosaicvi.graph.from_coordinates(mdata, annotation="genes.gtf", rule=rule)
    """

    distance: int = 100_000
    half_distance: float | None = 10_000
    anchor: Literal["start", "body"] = "start"

    def __post_init__(self) -> None:
        _check_number(self.distance, "distance", 0)
        if self.half_distance is not None and not self.half_distance > 0:
            raise RequestError(
                f"found {self.half_distance}", key="half_distance", expected="bases above zero"
            )
        if self.anchor not in ("start", "body"):
            raise RequestError(f"found {self.anchor!r}", key="anchor", expected="'start' or 'body'")

    @property
    def needs_strand(self) -> bool:
        """Whether the anchor is the transcription start."""
        return self.anchor == "start"

    def _anchor(self, genes: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        if self.anchor == "body":
            return genes["start"].to_numpy(), genes["end"].to_numpy()
        site = start_site(genes)
        return site, site + 1

    def reach(self, genes: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Anchor and the distance around it, 0-based half-open, each of shape ``(n_genes,)``."""
        low, high = self._anchor(genes)
        return np.maximum(low - self.distance, 0), high + self.distance

    def weigh(
        self, genes: pd.DataFrame, start: np.ndarray, end: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weight by distance and type ``window``, each of shape ``(n_pairs,)``."""
        low, high = self._anchor(genes)
        gap = np.maximum(np.maximum(low - end, start - high) + 1, 0)
        weight = np.ones(len(start))
        if self.half_distance is not None:
            weight = 2.0 ** (-gap / self.half_distance)
        return weight, np.full(len(start), "window", dtype=object)


def _check_number(value: int, key: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise RequestError(
            f"found {value!r}", key=key, expected=f"a whole number of bases, {least} or more"
        )
