"""Fixtures that every test may use."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

DATA_DIR = "MOSAICVI_DATA_DIR"
REQUIRE_DATA = "MOSAICVI_REQUIRE_DATA"
SEED = 0

mpl.use("Agg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests where there is no GPU."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Start every test from the same global random state."""
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 - other packages draw from numpy's global state
    torch.manual_seed(SEED)


@pytest.fixture(scope="session")
def data_dir() -> Path | None:
    """Folder with the raw files of the public data sets, None where the variable is not set."""
    variable = os.environ.get(DATA_DIR)
    return Path(variable) if variable else None


@pytest.fixture(scope="session")
def require_file(data_dir: Path | None) -> Callable[[str], Path]:
    """Path of a raw data file; where it is missing the test is skipped, or fails in CI."""

    def require(name: str) -> Path:
        path = None if data_dir is None else data_dir / name
        if path is not None and path.is_file():
            return path
        place = "is not set" if data_dir is None else f"= {data_dir} does not hold it"
        message = f"needs {name}, and {DATA_DIR} {place}"
        if os.environ.get(REQUIRE_DATA, "") not in ("", "0"):
            pytest.fail(f"{message} ({REQUIRE_DATA} is set, so this is no skip)")
        pytest.skip(message)

    return require
