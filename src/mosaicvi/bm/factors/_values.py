"""Values as methods for real numbers take them, and rates from what they predict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData

from mosaicvi.bm._factor_input import FactorAnswer
from mosaicvi.bm._load import quiet_mudata
from mosaicvi.bm.factors import ACTIVE

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


def real_mudata(task: FactorInput, dtype: type[np.floating] = np.float64) -> MuData:
    """All modalities as :func:`real_values`, cells that lack one as such."""
    parts = {
        name: AnnData(
            real_values(task, name).astype(dtype), part.obs[[]].copy(), part.var[[]].copy()
        )
        for name, part in task.mdata.mod.items()
    }
    with quiet_mudata():
        return MuData(parts)


def linear_answer(
    task: FactorInput,
    factors: np.ndarray,
    weights: dict[str, np.ndarray],
    explained: np.ndarray,
) -> FactorAnswer:
    """Answer of a linear model: factors that act somewhere, and predictions by all of them.

    Parameters
    ----------
    task
        The task.
    factors
        Of all cells, ``(n_cells, n_factors)``.
    weights
        Modality -> ``(n_features, n_factors)``, on the scale of :func:`real_values`.
    explained
        Share of each modality's variance that a factor explains, ``(n_factors, n_modalities)``.
    """
    active = explained >= ACTIVE
    kept = active.any(1) if active.any() else np.ones(len(active), dtype=bool)
    return FactorAnswer(
        factors[:, kept],
        active[kept],
        {name: table[:, kept] for name, table in weights.items()},
        predicted(task, factors, weights),
    )


def original_values(task: FactorInput, modality: str, values: np.ndarray) -> np.ndarray:
    """Counts up to a factor a cell, from values on the scale of :func:`real_values`."""
    return values if task.likelihoods[modality] == "normal" else np.expm1(values)


def predicted(
    task: FactorInput, factors: np.ndarray, weights: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Values of the wanted cells of a linear model with the training means as intercepts.

    Parameters
    ----------
    task
        The task.
    factors
        Of all cells, ``(n_cells, n_factors)``.
    weights
        Modality -> ``(n_features, n_factors)``, on the scale of :func:`real_values`.
    """
    return {
        name: original_values(
            task,
            name,
            factors[task.rows(name)] @ weights[name].T + real_values(task, name).mean(0),
        ).astype(np.float32)
        for name in task.wanted
    }
