"""Methods of the imputation comparison. Adding one: a file here and a line in the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaicvi.bm._method import find_method

if TYPE_CHECKING:
    from mosaicvi.bm.methods._base import Method

TABLE: dict[str, str] = {
    "mosaicvi": "_mosaicvi:MosaicVIMethod",
    "mosaicvi_paired": "_mosaicvi:PairedMosaicVI",
    "marginal": "_marginal:Marginal",
    "linked_neighbours": "_linked_neighbours:LinkedNeighbours",
    "type_means": "_type_means:TypeMeans",
    "knn": "_knn:NearestNeighbours",
    "ridge": "_ridge:RidgeRegression",
    "kernel_ridge": "_kernel_ridge:KernelRidge",
    "mlp": "_mlp:PerceptronEnsemble",
    "totalvi": "_totalvi:TotalVIMethod",
}
"""Name of a method -> module and class, imported only by the worker that runs it."""

UNPAIRED = frozenset({"mosaicvi", "marginal", "linked_neighbours"})
"""Methods that can do without paired cells. Where a comparison hides the pairs, the others are told
them, and marked as a ceiling."""


def defaults(*, unpaired: bool) -> tuple[str, ...]:
    """Methods of a comparison for which none are named."""
    if unpaired:
        return tuple(name for name in TABLE if name in UNPAIRED | {"mosaicvi_paired"})
    return tuple(name for name in TABLE if name not in {"mosaicvi_paired", "linked_neighbours"})


def get(name: str) -> type[Method]:
    """Class of a method.

    Raises
    ------
    RequestError
        If there is no method of that name; lists the known.
    """
    found: type[Method] = find_method(TABLE, __name__, name)
    return found
