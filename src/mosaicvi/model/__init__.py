"""Models."""

from mosaicvi.model._mosaicvi import MosaicVI

__all__ = ["MosaicVI"]
