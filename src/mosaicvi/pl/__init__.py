"""Figures. Each takes the axes to draw on, returns them, and neither saves nor shows."""

from mosaicvi.pl._alignment import alignment
from mosaicvi.pl._calibration import calibration
from mosaicvi.pl._factors import factors, variance_explained, weights
from mosaicvi.pl._history import history
from mosaicvi.pl._imputation import imputation

__all__ = [
    "alignment",
    "calibration",
    "factors",
    "history",
    "imputation",
    "variance_explained",
    "weights",
]
