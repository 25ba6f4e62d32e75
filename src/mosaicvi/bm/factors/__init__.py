"""Methods of the factor comparison."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from mosaicvi.bm._method import find_method

TABLE = {
    "factorvi": "_factorvi:FactorVIMethod",
    "mofapy2": "_mofapy2:Mofapy2",
    "mofaflex": "_mofaflex:MofaFlex",
    "pca": "_pca:PrincipalComponents",
    "marginal": "_marginal:Marginal",
}
"""Command-line name of a method -> where its class is."""

ACTIVE = 0.01
"""Explained variance from which a factor counts as active, in methods that measure it so."""

OPTIONAL = ("mofapy2", "mofaflex")
"""Methods that run by default where their package, of the same name, can be imported."""


def get(name: str) -> Any:
    """Class of a method."""
    return find_method(TABLE, __name__, name)


def defaults(*, held_out: bool) -> list[str]:
    """Methods that run unless some are named: those that suit, and are installed.

    Parameters
    ----------
    held_out
        Whether values are to be predicted; else factors are to be found, and a row without any says
        nothing.
    """
    names = [name for name in TABLE if name not in OPTIONAL or find_spec(name) is not None]
    return [name for name in names if held_out or name != "marginal"]
