"""Methods of the factor comparison."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mosaicvi._errors import RequestError
from mosaicvi.bm._method import find_method

TABLE = {
    "factorvi": "_factorvi:FactorVIMethod",
    "mofapy2": "_mofapy2:Mofapy2",
    "mofaflex": "_mofaflex:MofaFlex",
    "mofaflex_counts": "_mofaflex:MofaFlexCounts",
    "pca": "_pca:PrincipalComponents",
    "marginal": "_marginal:Marginal",
}
"""Command-line name of a method -> where its class is."""

ACTIVE = 0.01
"""Explained variance from which a factor counts as active, in methods that measure it so."""

OPTIONAL = ("mofapy2", "mofaflex")
"""Methods that run by default where their package, of the same name, can be imported."""

ON_REQUEST = ("mofaflex_counts",)
"""Methods that run where they are named: its predictions are far below those of feature means."""


def get(name: str) -> Any:
    """Class of a method."""
    return find_method(TABLE, __name__, name)


def imported(package: str) -> Any:
    """The package of a method, which is optional.

    Raises
    ------
    RequestError
        If it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise RequestError(
            f"the package {package} cannot be imported ({error})",
            key="methods",
            expected=f"{package}, or methods without it",
            remedy=f"pip install {package}, or pip install 'mosaicvi[benchmark]'",
        ) from error


def defaults(*, held_out: bool) -> list[str]:
    """Methods that run unless some are named: those that suit, and are installed.

    Parameters
    ----------
    held_out
        Whether values are to be predicted; else factors are to be found, and a row without any says
        nothing.
    """
    usual = [name for name in TABLE if name not in ON_REQUEST]
    names = [name for name in usual if name not in OPTIONAL or find_spec(name) is not None]
    return [name for name in names if held_out or name != "marginal"]
