"""The contract of a control, and what several of them do to a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from mosaicvi._errors import RequestError
from mosaicvi.bm._alignment_score import PAIR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mosaicvi.bm._alignment import AlignmentTask


class Control(ABC):
    """A change of an alignment task after which it is known what must come out."""

    name: ClassVar[str]
    usage: ClassVar[str]
    """How it is written on the command line."""
    needs_pairs: ClassVar[bool] = False
    """Whether methods are given some pairs."""

    @property
    @abstractmethod
    def text(self) -> str:
        """As on the command line; the name of its row in the table."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the cells that it reads, besides batch and type."""
        return ()

    @classmethod
    @abstractmethod
    def parse(cls, argument: str) -> Self:
        """Make it of what follows its name and a colon on the command line."""

    @abstractmethod
    def apply(self, task: AlignmentTask, rng: np.random.Generator) -> AlignmentTask:
        """Return the changed task, with the scores of this control."""

    @classmethod
    def refuse(cls, argument: str) -> RequestError:
        """Error for an argument that does not fit."""
        return RequestError(f"{cls.name}:{argument}", key="controls", expected=cls.usage)


@dataclass(frozen=True)
class Untouched(Control):
    """The task as it is, to hold the others against."""

    name = usage = "none"

    @property
    def text(self) -> str:
        """``none``."""
        return self.name

    @classmethod
    def parse(cls, argument: str) -> Self:
        """Make it; there is nothing to say."""
        if argument:
            raise cls.refuse(argument)
        return cls()

    def apply(self, task: AlignmentTask, rng: np.random.Generator) -> AlignmentTask:
        """Return the same task."""
        return task


def check_modality(task: AlignmentTask, modality: str) -> str:
    """Refuse a modality that the task does not have; return the other one."""
    if modality not in task.public.modalities:
        raise RequestError(
            f"{modality!r}", key="controls", expected=f"of {list(task.public.modalities)}"
        )
    (other,) = (name for name in task.public.modalities if name != modality)
    return other


def keep_cells(task: AlignmentTask, kept: Mapping[str, NDArray[np.bool_]]) -> AlignmentTask:
    """Leave out cells of some modalities; a true pair that loses a cell is none any more.

    Parameters
    ----------
    task
        The task.
    kept
        Modality -> whether each cell stays, in the order of the input; others keep all.
    """
    tables, cells = {}, {}
    for name in task.public.modalities:
        table, truth = task.public.mdata.mod[name], task.truth.cells[name]
        rows = np.flatnonzero(kept.get(name, np.ones(len(truth), dtype=bool)))
        tables[name], cells[name] = table[rows].copy(), truth.iloc[rows].copy()
    first, second = (set(table[PAIR]) for table in cells.values())
    for table in cells.values():
        table.loc[~table[PAIR].isin(first & second), PAIR] = -1
    return task.with_cells(tables, cells)
