"""Methods of the imputation comparison. Adding one: a file here and a line in the table."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from mosaicvi._errors import RequestError

if TYPE_CHECKING:
    from mosaicvi.bm.methods._base import Method

TABLE: dict[str, str] = {
    "mosaicvi": "_mosaicvi:MosaicVIMethod",
    "type_means": "_type_means:TypeMeans",
    "knn": "_knn:NearestNeighbours",
    "ridge": "_ridge:RidgeRegression",
    "kernel_ridge": "_kernel_ridge:KernelRidge",
    "mlp": "_mlp:PerceptronEnsemble",
    "totalvi": "_totalvi:TotalVIMethod",
}
"""Name of a method -> module and class, imported only by the worker that runs it."""


def get(name: str) -> type[Method]:
    """Class of a method.

    Raises
    ------
    RequestError
        If there is no method of that name; lists the known.
    """
    if name not in TABLE:
        raise RequestError(f"{name!r}", key="methods", expected=f"one of {sorted(TABLE)}")
    module, attribute = TABLE[name].split(":")
    found: type[Method] = getattr(import_module(f"{__name__}.{module}"), attribute)
    return found
