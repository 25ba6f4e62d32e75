"""What getters and constructors are asked for: numbers and batches that make sense, or an error."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import RequestError
from mosaicvi.data._columns import as_label

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_whole(
    value: object, key: str, least: int = 1, *, other: str = "", remedy: str | None = None
) -> None:
    """Refuse what is no whole number, or too small a one.

    Parameters
    ----------
    value
        What was given.
    key
        Name of the argument.
    least
        Smallest number that makes sense.
    other, remedy
        What else is taken, and what to do, for the message.

    Raises
    ------
    RequestError
        If it is not, or below ``least``.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least:  # type: ignore[operator]  # an Integral by now
        raise RequestError(
            f"found {value!r}",
            key=key,
            expected=f"a whole number, {least} or more{other}",
            remedy=remedy,
        )


def batch_codes(
    modality: str, given: object, categories: Sequence[str], usable: Sequence[str]
) -> tuple[int, ...]:
    """Codes of the batches that an answer is asked for.

    Parameters
    ----------
    modality
        Whose batches they are.
    given
        One batch or several, by name or by the value that the column holds.
    categories
        Names of the modality's batches, in the order of their codes.
    usable
        Those in which it was measured.

    Raises
    ------
    RequestError
        If one did not measure the modality, or none is given.
    """
    asked = list(given) if np.iterable(given) and not isinstance(given, str) else [given]
    expected = "one of " + ", ".join(map(repr, usable))
    if not asked:
        raise RequestError(
            "no batch given",
            modality=modality,
            key="transform_batch",
            expected=f"{expected}, or several; None answers for each cell as it was measured",
        )
    codes = []
    for each in asked:
        label = as_label(each)
        if label not in usable:
            raise RequestError(
                f"batch {each!r} did not measure it",
                modality=modality,
                key="transform_batch",
                expected=expected,
            )
        codes.append(list(categories).index(label))
    return tuple(codes)
