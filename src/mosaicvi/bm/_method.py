"""What every method of every comparison has in common, and how one is found by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from mosaicvi._errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Answer(Protocol):
    """What a method answers; the worker writes it, the scores read it."""

    def write(self, path: Path) -> None:
        """Write to a file."""


Given = TypeVar("Given")
Answered = TypeVar("Answered", bound=Answer)


class BaseMethod(ABC, Generic[Given, Answered]):
    """One way to answer a task. The worker times :meth:`fit` and :meth:`predict`.

    Parameters
    ----------
    task
        What the method may see.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages whose versions belong in the record."""
    kind: str = ""
    """``"trivial"`` for a row without biology, ``"ceiling"`` for one that is told the truth,
    ``"unaligned"`` for one that had nothing to align by."""

    def __init__(self, task: Given) -> None:
        self.task = task

    @abstractmethod
    def fit(self) -> None:
        """Learn."""

    @abstractmethod
    def predict(self) -> dict[str, Answered]:
        """Answer: the method's answer under "", variants under their names."""

    def details(self) -> dict[str, Any]:
        """What the record should say besides: epochs, chosen penalties. JSON-able."""
        return {}


def find_method(table: Mapping[str, str], package: str, name: str) -> Any:
    """Class of a method, imported now.

    Parameters
    ----------
    table
        Name of a method -> ``module:class``, relative to the package.
    package
        Package of the modules.
    name
        Name of the method.

    Raises
    ------
    RequestError
        If there is no method of that name; lists the known.
    """
    if name not in table:
        raise RequestError(f"{name!r}", key="methods", expected=f"one of {sorted(table)}")
    module, attribute = table[name].split(":")
    return getattr(import_module(f"{package}.{module}"), attribute)
