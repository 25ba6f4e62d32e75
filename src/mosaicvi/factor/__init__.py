"""FactorVI: factors that can be read, for any assay mix."""

from mosaicvi.factor._factorvi import FactorVI

__all__ = ["FactorVI"]
