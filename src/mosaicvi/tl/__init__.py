"""Tools: common jobs in one call, on top of a model's getters."""

from mosaicvi.tl._impute_protein import impute_protein
from mosaicvi.tl._protein_background import protein_background
from mosaicvi.tl._to_anndata import to_anndata

__all__ = ["impute_protein", "protein_background", "to_anndata"]
