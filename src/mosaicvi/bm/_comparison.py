"""What the runner needs to know of a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class Task(Protocol):
    """One problem: its public part, which methods see, and its hidden part, which scores use."""

    def write_input(
        self, folder: Path, *, options: dict[str, Any], method: str = "", name: str = ""
    ) -> None:
        """Write what a method may see, and nothing else, into a folder.

        Only a method that is marked as a ceiling is told more than the others. ``name`` is the one
        that the method goes by in the table, for what a task keeps of answers.
        """

    def score(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Score the predictions that a worker left in a folder: one set a variant of the method."""

    def describe(self) -> dict[str, Any]:
        """Numbers of cells and features, names of features: goes into every record."""


class Comparison(Protocol):
    """A family of tasks, one for each seed."""

    name: str
    """Command-line name."""

    @property
    def setting(self) -> str:
        """What tells it from others of one call, such as ``pairs=0.05``; may be empty."""

    def task(self, seed: int) -> Task:
        """Build the task of a seed."""

    def describe(self) -> dict[str, Any]:
        """Settings that make two records comparable."""
