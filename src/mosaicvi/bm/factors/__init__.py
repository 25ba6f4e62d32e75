"""Methods of the factor comparison."""

from __future__ import annotations

from typing import Any

from mosaicvi.bm._method import find_method

TABLE = {
    "factorvi": "_factorvi:FactorVIMethod",
    "mofapy2": "_mofapy2:Mofapy2",
    "pca": "_pca:PrincipalComponents",
}
"""Command-line name of a method -> where its class is."""

ACTIVE = 0.01
"""Explained variance from which a factor counts as active, in methods that measure it so."""


def get(name: str) -> Any:
    """Class of a method."""
    return find_method(TABLE, __name__, name)
