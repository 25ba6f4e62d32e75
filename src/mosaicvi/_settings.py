"""Logger of the package, and the few settings that are not arguments."""

from __future__ import annotations

import logging
import os
from pathlib import Path

logger = logging.getLogger("mosaicvi")

DATA_DIR_VARIABLE = "MOSAICVI_DATA_DIR"
"""Environment variable that moves the folder in which datasets are cached."""


class Settings:
    """Package settings, reachable as ``mosaicvi.settings``.

    ``settings.data_dir`` is the folder of cached data, a path. None (default): the folder that the
    environment variable ``MOSAICVI_DATA_DIR`` names, else one in the user's cache.

    What is said of choices and downloads follows ``scvi.settings.verbosity``, as progress bars do,
    or the user's own logging, where that is set up (logger ``"mosaicvi"``).
    """

    def __init__(self) -> None:
        self._data_dir: Path | None = None

    @property
    def data_dir(self) -> Path | None:
        """Folder of cached data: this setting, else ``MOSAICVI_DATA_DIR``, else None (default)."""
        if self._data_dir is not None:
            return self._data_dir
        variable = os.environ.get(DATA_DIR_VARIABLE)
        return Path(variable) if variable else None

    @data_dir.setter
    def data_dir(self, value: str | Path | None) -> None:
        self._data_dir = None if value is None else Path(value)


settings = Settings()


class _AsScviTools(logging.Handler):
    """Shows messages as scvi-tools shows its own, unless the user's logging takes them.

    Without it nobody would see what ``alignment="auto"`` chose, or that a file is downloaded:
    Python shows warnings alone where no logging is set up.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a message to scvi-tools' handlers, as its verbosity (its logger's level) says."""
        scvi_logger = logging.getLogger("scvi")
        if logging.getLogger().handlers or not scvi_logger.isEnabledFor(record.levelno):
            return
        for handler in scvi_logger.handlers:
            if record.levelno >= handler.level:
                handler.handle(record)


logger.setLevel(logging.INFO)
logger.addHandler(_AsScviTools())
