"""A module dictionary that knows the type of its modules and takes any name."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, ValuesView
from typing import Generic, TypeVar, cast

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_DOT = "\u2024"
_RESERVED = frozenset(dir(nn.ModuleDict()))


def _slot(name: str) -> str:
    """Name under which torch keeps a module: without dots, and not that of a method."""
    slot = name.replace(".", _DOT)
    return slot + _DOT if slot in _RESERVED else slot


def _name(slot: str) -> str:
    return slot.removesuffix(_DOT).replace(_DOT, ".")


class NamedModules(nn.ModuleDict, Generic[ModuleT]):
    """:class:`torch.nn.ModuleDict` whose values have one type, and whose keys may be any text.

    Users name modalities; torch refuses names with dots and those of its own methods.
    """

    def __getitem__(self, key: str) -> ModuleT:
        """Module of a name."""
        return cast("ModuleT", super().__getitem__(_slot(key)))

    def __setitem__(self, key: str, module: nn.Module) -> None:
        """Add a module, or replace it."""
        super().__setitem__(_slot(key), module)

    def __contains__(self, key: str) -> bool:
        """Whether there is a module of a name."""
        return super().__contains__(_slot(key))

    def __iter__(self) -> Iterator[str]:
        """Names, in order."""
        return map(_name, self._modules)

    def values(self) -> ValuesView[ModuleT]:
        """Modules, in order."""
        return cast("ValuesView[ModuleT]", super().values())

    def items(self) -> ItemsView[str, ModuleT]:
        """Names and modules, in order."""
        named = {_name(slot): cast("ModuleT", module) for slot, module in self._modules.items()}
        return named.items()
