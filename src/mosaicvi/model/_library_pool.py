"""Library sizes of cells that were measured, and draws of them for others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData


@dataclass(frozen=True)
class LibraryRule:
    """What cells tell of the log of a library size.

    Attributes
    ----------
    latent
        Weights of latent dimensions, ``(n_latent,)``.
    depth
        Modality to the weight of the log1p of its counts.
    typical
        Modality to the mean of that log1p in each of its batches, ``(n_batches,)``; NaN where no
        cell of the regression had it.
    at_draws
        Whether it is of places that the modality itself gives, and is read at draws that are
        such places where there are some; else it is read at posterior means.
    """

    latent: np.ndarray
    depth: Mapping[str, float]
    typical: Mapping[str, np.ndarray]
    at_draws: bool

    def told(
        self, places: np.ndarray, data: MosaicData, cells: np.ndarray, evidence: Sequence[str]
    ) -> np.ndarray:
        """What is known of the log of library sizes, up to a constant, ``(..., n_cells)``.

        Parameters
        ----------
        places
            In the latent space, ``(..., n_cells, n_latent)``.
        data
            Registered data.
        cells
            Rows of the MuData.
        evidence
            Modalities whose counts may be used.
        """
        # Row by row: last bits of a matrix product depend on how many rows there are.
        told = (places * self.latent).sum(axis=-1)
        for name, weight in self.depth.items():
            if name in evidence and name in data.modalities:
                told = told + weight * depth_of(data.modalities[name], cells, self.typical[name])
        return np.asarray(told, dtype=np.float32)


@dataclass(frozen=True)
class LibraryPool:
    """Library sizes from which answers for unmeasured cells draw.

    Attributes
    ----------
    sizes, batches
        Size and batch code of cells that were measured, ``(n_kept,)`` each. Cells without a count
        are among them: they were measured as well.
    told
        What the rule says of these cells, ``(n_kept,)``; zeros without one.
    rule
        What cells tell of their sizes; None: nothing.
    """

    sizes: np.ndarray
    batches: np.ndarray
    told: np.ndarray
    rule: LibraryRule | None = None

    def draw(
        self, codes: np.ndarray, uniform: np.ndarray, told: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Library sizes, and the batch each comes from, both of ``uniform``'s shape.

        Parameters
        ----------
        codes
            Batch that is answered for, broadcastable to ``uniform``.
        uniform
            Noise on [0, 1), ``(n_samples, n_cells)``.
        told
            What the rule says of the cells asked about, broadcastable to ``uniform``; NaN where it
            says nothing, which leaves sizes as they are. Nothing beyond what it says of cells that
            were measured is believed.
        """
        with np.errstate(divide="ignore"):
            rest = np.log(self.sizes) - self.told
        drawn, source = np.empty_like(uniform), np.empty(uniform.shape, dtype=np.int64)
        wanted = np.broadcast_to(codes, uniform.shape)
        known = np.clip(told, self.told.min(), self.told.max()) if len(self.told) else told
        shift = np.broadcast_to(known, uniform.shape)
        for code in np.unique(wanted):
            pool = np.flatnonzero(self.batches == code)
            pool = np.arange(len(self.sizes)) if len(pool) == 0 else pool
            pool = pool[np.argsort(rest[pool], kind="stable")]
            asked = wanted == code
            picks = pool[(uniform[asked] * len(pool)).astype(np.int64)]
            moved = np.nan_to_num(shift[asked] - self.told[picks])
            drawn[asked] = self.sizes[picks] * np.exp(moved)
            source[asked] = self.batches[picks]
        return drawn, source

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, for a file."""
        found = {"sizes": self.sizes, "batches": self.batches, "told": self.told}
        if self.rule is not None:
            rule = self.rule
            found |= {"latent": rule.latent, "at_draws": np.array(rule.at_draws)}
            for name, weight in rule.depth.items():
                found[f"depth.{name}"] = np.array(weight, dtype=np.float32)
                found[f"typical.{name}"] = rule.typical[name]
        return found

    @classmethod
    def from_arrays(cls, found: Mapping[str, np.ndarray]) -> LibraryPool:
        """What :meth:`arrays` gave; of files without ``told``, sizes of which nothing is told."""
        sizes = found["sizes"]
        rule = None
        if "latent" in found:
            names = [name.removeprefix("depth.") for name in found if name.startswith("depth.")]
            rule = LibraryRule(
                found["latent"],
                {name: float(found[f"depth.{name}"]) for name in names},
                {name: found[f"typical.{name}"] for name in names},
                bool(found["at_draws"]),
            )
        return cls(sizes, found["batches"], found.get("told", np.zeros_like(sizes)), rule)


def depth_of(modality: ModalityData, cells: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Log1p of the counts of cells beside the mean of their batch, ``(n_cells,)``.

    Zero where a cell lacks the modality, or no such mean is known.
    """
    rows = modality.rows[cells]
    held = rows >= 0
    found = np.zeros(len(cells), dtype=np.float32)
    codes = modality.batch[rows[held]]
    known = np.where(codes >= 0, typical[codes], np.nan)
    found[held] = np.nan_to_num(np.log1p(modality.library_size[rows[held]]) - known)
    return found
