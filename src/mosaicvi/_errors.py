"""Errors and warnings of the package.

Each says which modality, which key, what was found, what was expected, and what to do.
"""

from __future__ import annotations

from numbers import Integral


class MosaicviError(ValueError):
    """Base of every error that mosaicvi raises on purpose.

    Parameters
    ----------
    found
        What was found.
    modality
        The modality concerned, if one is.
    key
        The slot, column or argument concerned, if one is.
    expected
        What was expected instead.
    remedy
        What to do about it.
    """

    def __init__(
        self,
        found: str,
        *,
        modality: str | None = None,
        key: str | None = None,
        expected: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.found, self.modality, self.key = found, modality, key
        self.expected, self.remedy = expected, remedy
        super().__init__(self._message())

    def _message(self) -> str:
        place = ", ".join(
            part
            for part in (
                f"modality {self.modality!r}" if self.modality is not None else "",
                f"key {self.key!r}" if self.key is not None else "",
            )
            if part
        )
        message = f"{place}: {self.found}" if place else self.found
        message = message.rstrip(".") + "."
        if self.expected:
            message += f" Expected: {self.expected.rstrip('.')}."
        if self.remedy:
            message += f" Remedy: {self.remedy.rstrip('.')}."
        return message


class DataError(MosaicviError):
    """The MuData, or a column or matrix in it, is not what the model needs."""


class RequestError(MosaicviError):
    """A getter was asked for something that the model or the data cannot give."""


class FileError(MosaicviError):
    """A saved model cannot be loaded: truncated, foreign, newer, or for other features."""


class DownloadError(MosaicviError):
    """A dataset is neither in the cache nor reachable."""


class MosaicviWarning(UserWarning):
    """Something works, but probably not as the user believes; the text names the remedy."""


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
