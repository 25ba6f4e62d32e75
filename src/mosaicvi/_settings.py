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
