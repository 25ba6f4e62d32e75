"""The demo: impute the hidden protein of real cells, and say how well that went."""

from mosaicvi._demo._cells import CHOICES
from mosaicvi._demo._run import run

__all__ = ["CHOICES", "run"]
