"""Tools: common jobs in one call, on top of a model's getters."""

from mosaicvi.tl._alignment_confidence import alignment_confidence
from mosaicvi.tl._build_atlas import build_atlas
from mosaicvi.tl._correct_latent import correct_latent
from mosaicvi.tl._factor_stability import factor_stability
from mosaicvi.tl._imputation_support import imputation_support
from mosaicvi.tl._impute_protein import impute_protein
from mosaicvi.tl._integration_consistency import integration_consistency
from mosaicvi.tl._match_cells import match_cells
from mosaicvi.tl._negative_transfer import negative_transfer
from mosaicvi.tl._protein_background import protein_background
from mosaicvi.tl._to_anndata import to_anndata
from mosaicvi.tl._transfer_labels import transfer_labels

__all__ = [
    "alignment_confidence",
    "build_atlas",
    "correct_latent",
    "factor_stability",
    "imputation_support",
    "impute_protein",
    "integration_consistency",
    "match_cells",
    "negative_transfer",
    "protein_background",
    "to_anndata",
    "transfer_labels",
]
