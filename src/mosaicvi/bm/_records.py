"""What tells records apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mosaicvi._settings import logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Record = dict[str, Any]


def place(record: Record) -> str:
    """Data of a record, and its setting: ``pbmc_mosaic, p4_0 hidden, unpaired``; may be empty.

    Settings of some comparisons name the data, or what the data were drawn from, themselves.
    """
    settings, setting = record.get("settings") or {}, record.get("setting") or ""
    data = _data(settings)
    named = not data or setting == data or setting.startswith((f"{data},", f"{data} "))
    parts = [] if named else [data]
    if settings.get("hide_batch"):
        parts.append(f"{settings['hide_batch']} hidden")
    return ", ".join([*parts, setting] if setting else parts)


def _data(settings: Mapping[str, Any]) -> str:
    """Name or file of the data; of two, those learnt from and those answered for."""
    if settings.get("data"):
        return str(settings["data"])
    names = (settings.get("train"), settings.get("test"))
    return " to ".join(str(name) for name in names if name)


def distinct(records: Iterable[Record]) -> list[Record]:
    """Records without those of a method and seed that an earlier one has, at the same place.

    Says so where what is left out was made with other settings or options: a table has one row a
    method.
    """
    kept: dict[tuple[str, str, str, int], Record] = {}
    for record in records:
        key = (record.get("comparison", ""), place(record), record["method"], record["seed"])
        first = kept.setdefault(key, record)
        others = [] if first is record else _differing(first, record)
        if others:
            logger.warning(
                "%s, seed %d, is there with other %s: the first is taken. Remedy: give the other "
                "a --label, or print its file by itself",
                record["method"], record["seed"], ", ".join(others),
            )  # fmt: skip
    return list(kept.values())


def _differing(first: Record, second: Record) -> Sequence[str]:
    """Settings, of those that both state, and options by which two records differ."""
    ours, theirs = ((record.get("settings") or {}) for record in (first, second))
    found = [key for key in ours if key in theirs and _text(ours[key]) != _text(theirs[key])]
    same = _text(first.get("options")) == _text(second.get("options"))
    return found if same else [*found, "options"]


def _text(value: Any) -> str:
    """Of a value as a file would have it: tuples are lists there."""
    return json.dumps(value, sort_keys=True, default=str)
