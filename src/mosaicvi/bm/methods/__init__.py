"""Methods of the imputation comparison. Adding one: a file here and a line in the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaicvi.bm._method import find_method

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
    found: type[Method] = find_method(TABLE, __name__, name)
    return found
