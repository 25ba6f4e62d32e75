"""How fast the parameters that belong to one feature learn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi.likelihoods._rate import RateLikelihood
from mosaicvi.model._requests import check_named
from mosaicvi.train._plan import OptimizerSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.data import MosaicData
    from mosaicvi.data._mosaic_data import ModalityData
    from mosaicvi.module._mosaic_module import MosaicModule

FEATURE_RATE = 4.0
"""``feature_rate`` of counts and continuous values."""

ALIGNED_GENE_RATE, MOST_GENE_RATE = 256.0, 8.0
"""With anchors, ``feature_rate`` of counts that share a library size: this number over the square
root of the cells, up to so much. Such fits of few cells have few steps."""

ENOUGH_COUNTS, LOWEST_REGION_RATE = 40.0, 0.1
"""``feature_rate`` of regions: 1 where all cells together have so many counts of the average
region; with fewer it falls with the square of their number, to no less than this."""


def optimizer_spec(
    module: MosaicModule, data: MosaicData, given: Mapping[str, Any]
) -> OptimizerSpec:
    """Settings of the optimiser: the user's arguments, and how fast features learn.

    Features that learn faster shorten a fit (decisions, "Features learn faster than networks"), and
    where encoders start from anchors their decoders catch up (decisions, "Features learn faster in
    fits from anchors, too"), genes of few cells faster still (decisions, "Genes of few aligned
    cells"). Regions, of which a cell shows few, overfit sooner than they teach encoders anything:
    the sooner, the fewer counts there are of one (decisions, "Regions of few counts").

    Raises
    ------
    RequestError
        If ``feature_rate`` names a modality that the model does not have.
    """
    genes = FEATURE_RATE
    if len(module.aligned):
        genes = float(np.clip(ALIGNED_GENE_RATE / math.sqrt(data.n_cells), genes, MOST_GENE_RATE))
    rates = {}
    for name, each in module.decoders.items():
        if isinstance(each.likelihood, RateLikelihood):
            rates[name] = _region_rate(data.modalities[name])
        else:
            rates[name] = genes if each.likelihood.uses_library_size else FEATURE_RATE
    check_named("feature_rate", given.get("feature_rate"), module.modalities)
    return OptimizerSpec(**{"feature_rate": rates, **given})


def _region_rate(regions: ModalityData) -> float:
    """Rate at which embeddings of regions learn, by the counts there are of the average region."""
    total = 0.0 if regions.depth is None else float(regions.depth.sum(dtype=np.float64))
    counts = total / max(regions.n_features, 1)
    return float(np.clip((counts / ENOUGH_COUNTS) ** 2, LOWEST_REGION_RATE, 1.0))
