"""Types that only one modality has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np

from mosaicvi.bm._alignment_input import PLACES
from mosaicvi.bm._alignment_score import TYPE
from mosaicvi.bm.controls._base import Control, check_modality, keep_cells
from mosaicvi.bm.controls._orphans import Markers, orphan_scores

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mosaicvi.bm._alignment import AlignmentTask

MANY_FEATURES = 1000
"""A modality with more features has no short list of markers, and is not imputed."""


@dataclass(frozen=True)
class Drop(Control):
    """Leave out all cells of some types, or of another group, in one modality.

    The other modality's cells of types that are gone are orphans: they must get low confidence and
    no label, and what marks them must not appear in others.

    Parameters
    ----------
    groups
        Types, with ``*`` and ``?`` as in file names, or ``column=value``.
    modality
        Modality that loses the cells.
    """

    groups: tuple[str, ...]
    modality: str

    name = "drop"
    usage = "drop:TYPE[,TYPE][,COLUMN=VALUE]@MODALITY"

    @property
    def text(self) -> str:
        """Such as ``drop:In*,Ex*@atac``."""
        return f"{self.name}:{','.join(self.groups)}@{self.modality}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the groups that are not types."""
        return tuple(dict.fromkeys(_column(group) for group in self.groups if "=" in group))

    @classmethod
    def parse(cls, argument: str) -> Self:
        """Read groups and modality."""
        groups, _, modality = argument.rpartition("@")
        found = cls(tuple(groups.split(",")), modality)
        if not (modality and all(found.groups)):
            raise cls.refuse(argument)
        return found

    def apply(self, task: AlignmentTask, rng: np.random.Generator) -> AlignmentTask:
        """Leave the cells out, and score what the method says of those that they leave alone."""
        other = check_modality(task, self.modality)
        cells = task.truth.cells[self.modality]
        gone = np.zeros(len(cells), dtype=bool)
        for group in self.groups:
            found = _of_group(cells, group)
            if not found.any():
                raise self.refuse(f"{group}@{self.modality}")
            gone |= found
        changed = keep_cells(task, {self.modality: ~gone})
        left = frozenset(changed.truth.typed(self.modality)[1])
        orphans = sorted(set(changed.truth.typed(other)[1]) - left)
        markers = None
        wanted: tuple[str, ...] = (PLACES,)
        if len(task.public.mdata.mod[self.modality].var_names) <= MANY_FEATURES:
            markers = Markers.of(task, self.modality, orphans)
            wanted = (PLACES, self.modality)
        scores = partial(orphan_scores, alone=other, lacking=self.modality, markers=markers)
        return replace(changed.with_public(wanted=wanted), also=scores)


def _column(group: str) -> str:
    return group.partition("=")[0]


def _of_group(cells: pd.DataFrame, group: str) -> NDArray[np.bool_]:
    """Whether each cell is of the group."""
    pattern = group.partition("=")[2] if "=" in group else group
    values = cells[_column(group) if "=" in group else TYPE]
    return np.array([fnmatchcase(str(value), pattern) for value in values], dtype=bool)
