"""Every slot name that the package reads or writes, in one place."""

from __future__ import annotations

REGISTRY = "mosaicvi"
"""Key of the package's field in scvi-tools' registry."""

OBSM_LATENT = "X_mosaicvi"
UNS = "mosaicvi"
VARM_FEATURES = "mosaicvi_features"

LAYER_COUNTS = "counts"
LAYER_METHYLATED = "methylated"
LAYER_COVERAGE = "coverage"
LAYER_IMPUTED = "imputed"
LAYER_MEASURED = "measured"

OBS_MEASURED = "measured"
OBS_EVIDENCE = "evidence"
VAR_IMPUTABILITY = "imputability"
VAR_IMPUTABLE = "imputable"

OBS_CONFIDENCE = "mosaicvi_alignment_confidence"
"""Also the key of ``obsm`` with the confidence for each pair of modalities."""
OBS_LABEL_PREFIX = "mosaicvi_"
OBS_SUPPORT_PREFIX = "mosaicvi_support_"
OBS_PROBABILITY_SUFFIX = "_probability"
OBS_CONFIDENCE_SUFFIX = "_confidence"
OBSM_UMAP = "X_umap"
