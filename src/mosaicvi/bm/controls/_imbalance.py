"""One modality with far fewer cells than the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from mosaicvi.bm.controls._base import Control, check_modality, keep_cells

if TYPE_CHECKING:
    from mosaicvi.bm._alignment import AlignmentTask


@dataclass(frozen=True)
class Imbalance(Control):
    """Keep one in so many cells of a modality, drawn at random.

    Parameters
    ----------
    ratio
        One in how many.
    modality
        Modality that is thinned.
    """

    ratio: float
    modality: str

    name = "imbalance"
    usage = "imbalance:RATIO@MODALITY"

    @property
    def text(self) -> str:
        """Such as ``imbalance:10@rna``."""
        return f"{self.name}:{self.ratio:g}@{self.modality}"

    @classmethod
    def parse(cls, argument: str) -> Self:
        """Read ratio and modality."""
        ratio, _, modality = argument.partition("@")
        try:
            found = cls(float(ratio), modality)
        except ValueError as error:
            raise cls.refuse(argument) from error
        if not (found.ratio >= 1.0 and modality):
            raise cls.refuse(argument)
        return found

    def apply(self, task: AlignmentTask, rng: np.random.Generator) -> AlignmentTask:
        """Thin the modality."""
        check_modality(task, self.modality)
        n_cells = len(task.truth.cells[self.modality])
        kept = np.zeros(n_cells, dtype=bool)
        kept[rng.permutation(n_cells)[: max(round(n_cells / self.ratio), 1)]] = True
        return keep_cells(task, {self.modality: kept})
