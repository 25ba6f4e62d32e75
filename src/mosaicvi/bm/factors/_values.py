"""Values as methods for real numbers take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from mosaicvi.bm._factor_input import FactorInput


def real_values(task: FactorInput, modality: str) -> np.ndarray:
    """Values of the cells that have the modality: counts as log1p of shares of the median depth."""
    values = task.mdata.mod[modality].X
    dense = np.asarray(values.toarray() if sp.issparse(values) else values, dtype=np.float64)
    if task.likelihoods[modality] == "normal":
        return dense
    depth = dense.sum(1, keepdims=True)
    shares = dense / np.maximum(depth, 1) * np.median(depth)
    return np.asarray(np.log1p(shares))
