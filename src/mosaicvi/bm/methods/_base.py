"""The contract of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mosaicvi.bm._input import ImputationInput, Prediction


class Method(ABC):
    """One way to impute. The worker times :meth:`fit` and :meth:`predict`.

    Parameters
    ----------
    task
        What the method may see.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages whose versions belong in the record."""

    def __init__(self, task: ImputationInput) -> None:
        self.task = task

    @abstractmethod
    def fit(self) -> None:
        """Learn from the training cells."""

    @abstractmethod
    def predict(self) -> dict[str, Prediction]:
        """Answer for the query cells: the method's answer under "", variants under their names."""

    def details(self) -> dict[str, Any]:
        """What the record should say besides: epochs, chosen penalties. JSON-able."""
        return {}
