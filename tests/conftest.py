"""Fixtures that every test may use."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import matplotlib as mpl
import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

DATA_DIR = "MOSAICVI_DATA_DIR"
REQUIRE_DATA = "MOSAICVI_REQUIRE_DATA"
SEED = 0

SHAPE_CHECKED = tuple(
    f"mosaicvi.{package}" for package in ("alignment", "fusion", "likelihoods", "nn")
)
"""Packages whose annotated array shapes are checked at every call."""

SHAPE_CHECKING = ("unit", "property", "integration/test_model.py")
"""Tests that do so; in those that fit for thousands of steps it would cost most of their time."""

# An int will do where a float is asked for. Modules are changed as they are imported: nothing may
# import mosaicvi before this line.
jaxtyping.install_import_hook(
    SHAPE_CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)
CHECKS_DISABLED = jaxtyping.config.jaxtyping_disable

mpl.use("Agg")


def pytest_configure(config: pytest.Config) -> None:
    """Let our own advice to users be a plain warning; pytest.warns expects it where it belongs.

    Not in pyproject.toml: pytest imports a filter's class before it reads this file.
    """
    config.addinivalue_line("filterwarnings", "default::mosaicvi._errors.MosaicviWarning")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check shapes, or not, before the first fixture of a test runs."""
    here = Path(__file__).parent
    checked = any(item.path.is_relative_to(here / part) for part in SHAPE_CHECKING)
    jaxtyping.config.update("jaxtyping_disable", CHECKS_DISABLED or not checked)


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
