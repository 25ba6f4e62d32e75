"""What a worker needs for each comparison: how its input is read, and its methods."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Kit:
    """Input and methods of a comparison, imported when asked for.

    Parameters
    ----------
    input
        ``module:class`` of the input; the class has ``read(folder)``.
    methods
        Module with the table of methods, ``get(name)``.
    """

    input: str
    methods: str

    def read(self, folder: Any) -> Any:
        """Read the input of a task."""
        module, name = self.input.split(":")
        return getattr(import_module(module), name).read(folder)

    def method(self, name: str) -> Any:
        """Class of a method."""
        return import_module(self.methods).get(name)


_ALIGNMENT = Kit("mosaicvi.bm._alignment_input:AlignmentInput", "mosaicvi.bm.aligners")
KITS = {
    "imputation": Kit("mosaicvi.bm._input:ImputationInput", "mosaicvi.bm.methods"),
    "alignment": _ALIGNMENT,
    "controls": _ALIGNMENT,
    "speed": Kit("mosaicvi.bm._speed_input:SpeedInput", "mosaicvi.bm.timed"),
    "factors": Kit("mosaicvi.bm._factor_input:FactorInput", "mosaicvi.bm.factors"),
}
"""By the comparison's command-line name."""
