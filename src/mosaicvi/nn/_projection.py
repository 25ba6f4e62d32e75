"""Frozen linear projection from encoded values to the input of an encoder.

A trained first layer over thousands of genes overfits a few thousand cells and dominates the cost
of a step. The projection is therefore computed once, from the training cells (truncated SVD of
centred values; Halko et al. 2011, SIAM Review 53), and never trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import LinearOperator, svds
from sklearn.decomposition import PCA
from torch import Tensor, nn

from mosaicvi._types import Bool, Float, Float32, Int, Matrix, Real, SparseCounts, Values, as_dense
from mosaicvi.nn._block_svd import leading_components
from mosaicvi.nn._familiar_depth import nothing_known

SMALL_PANEL = 64
"""Panels of at most this many features skip the projection: each feature is an input."""

PROJECTED_CELLS = 8192
"""Cells projected at a time."""

MAX_FIT_CELLS = 50_000
"""More training cells than this are subsampled for the singular value decomposition."""

SAME = 1e-6
"""Spread, as a share of values' size, up to which they are constant but for rounding; its square
is the least size, since the unit of continuous values may be any."""

MANY_VALUES = 8_000_000
"""From so many stored values on, the decomposition reads them in blocks of vectors: a matrix that
no longer fits the processor's caches is read at the speed of memory, once a vector."""


class Projection(nn.Module):
    """Centre, project and scale the encoded values of one modality, and append log depth.

    ``x -> [ ((x - center) * measured) @ components / scale, (log1p(depth) - a) / b ]``

    Features that a cell's batch did not measure contribute nothing, as if they sat at the centre.

    Parameters
    ----------
    center
        Mean of encoded training values, shape ``(n_features,)``.
    components
        Shape ``(n_features, n_components)``; None for a panel that skips the projection.
    scale
        Divisor of each output, shape ``(n_components,)``.
    depth
        Mean and standard deviation of ``log1p(depth)`` of the training cells; None: no depth input.
    n_batches
        Batches of the training cells.

    Attributes
    ----------
    levels
        Standardised log depths of the training cells
        (:func:`~mosaicvi.nn._familiar_depth.depth_levels`), which other cells' are held against;
        infinite where depth says something whatever it is.
    """

    center: Tensor
    components: Tensor
    scale: Tensor
    depth: Tensor
    levels: Tensor

    def __init__(
        self,
        center: Float[np.ndarray, " features"],
        components: Float[np.ndarray, "features components"] | None,
        scale: Float[np.ndarray, " components"],
        depth: tuple[float, float] | None,
        n_batches: int = 1,
    ) -> None:
        super().__init__()
        empty = np.zeros((0, 0), dtype=np.float32)
        self.register_buffer("center", torch.as_tensor(center, dtype=torch.float32))
        self.register_buffer(
            "components",
            torch.as_tensor(empty if components is None else components, dtype=torch.float32),
        )
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))
        self.register_buffer("depth", torch.tensor(depth or (), dtype=torch.float32))
        self.register_buffer("levels", nothing_known(n_batches))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Files of earlier versions hold no levels."""
        state_dict.setdefault(f"{prefix}levels", torch.full_like(self.levels, torch.inf))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def n_inputs(self) -> int:
        """Number of outputs, which are the encoder's inputs."""
        return int(self.scale.shape[0]) + int(self.depth.shape[0] > 0)

    def forward(
        self,
        values: Float[Values, "cells features"],
        depth: Float[Tensor, " cells"],
        measured: Bool[Tensor, "cells features"] | None = None,
    ) -> Float32[Tensor, "cells inputs"]:
        """Project encoded values.

        Parameters
        ----------
        values
            Encoded values, shape ``(n_cells, n_features)``; NaN counts as the centre.
        depth
            Counts a cell, shape ``(n_cells,)``.
        measured
            Bool ``(n_cells, n_features)``; None when every feature is measured.

        Returns
        -------
        Shape ``(n_cells, n_inputs)``, float32.
        """
        if not isinstance(values, SparseCounts) or self.components.shape[1] == 0:
            centred = as_dense(values) - self.center
            centred = torch.nan_to_num(centred, nan=0.0)
            if measured is not None:
                centred = centred * measured
            projected = centred if self.components.shape[1] == 0 else centred @ self.components
        else:
            projected = values.times(self.components)
            if measured is None:
                projected = projected - self.center @ self.components
            else:
                projected = projected - (measured * self.center) @ self.components
        projected = projected / self.scale
        if self.depth.shape[0] == 0:
            return projected
        log_depth = (torch.log1p(depth) - self.depth[0]) / self.depth[1]
        return torch.cat([projected, log_depth.unsqueeze(-1)], -1)


def fit_projection(
    encoded: Float[Matrix, "cells features"],
    depth: Real[np.ndarray, " cells"] | None,
    *,
    n_components: int,
    seed: int,
    small_panel: int = SMALL_PANEL,
    weights: Float[np.ndarray, " features"] | None = None,
    panel: Bool[np.ndarray, "batches features"] | None = None,
    batch: Int[np.ndarray, " cells"] | None = None,
) -> Projection:
    """Fit the projection of one modality to its training cells.

    Parameters
    ----------
    encoded
        Encoded training values, shape ``(n_cells, n_features)``; NaN marks a missing value.
    depth
        Counts a cell, shape ``(n_cells,)``; None: no depth input.
    n_components
        Number of singular vectors; fewer where cells or features are fewer.
    seed
        Seed of the subsample and of the iteration's start.
    small_panel
        Panels of at most this many features skip the projection.
    weights
        Positive weights of encoded features in the decomposition, ``(n_features,)``; None: alike.
    panel
        Measured features of each batch, bool ``(n_batches, n_features)``; None when all are.
        Features that a batch did not measure sit at the mean of the cells that measured them.
    batch
        Batch code of each cell, shape ``(n_cells,)``; needed with ``panel``.
    """
    rows, codes = encoded, batch
    if encoded.shape[0] > MAX_FIT_CELLS:
        chosen = np.random.default_rng(seed).choice(encoded.shape[0], MAX_FIT_CELLS, replace=False)
        chosen = np.sort(chosen)
        rows, codes = encoded[chosen], None if batch is None else batch[chosen]
    depth_moments = None
    if depth is not None:
        log_depth = np.log1p(depth)
        depth_moments = (float(log_depth.mean()), float(max(log_depth.std(), 1e-3)))
    if rows.shape[1] <= small_panel:
        dense = rows if isinstance(rows, np.ndarray) else rows.toarray()
        center, spread = _moments(_hide(dense, panel, codes))
        constant = spread <= SAME * np.maximum(np.abs(center), SAME)
        return Projection(center, None, np.where(constant, 1.0, spread), depth_moments)
    if isinstance(rows, np.ndarray):
        rows = _hide(rows, panel, codes)
        rows = np.where(np.isnan(rows), _moments(rows)[0], rows)
    if rows.shape[0] < 2:
        center = np.asarray(rows.sum(0), dtype=np.float64).ravel()
        return Projection(center, np.zeros((rows.shape[1], 1)), np.ones(1), depth_moments)
    n_components = max(1, min(n_components, min(rows.shape) - 1))
    if weights is not None:
        rows = rows * weights if isinstance(rows, np.ndarray) else rows @ sp.diags(weights)
    if panel is not None and codes is not None and sp.issparse(rows):
        center, components, spread = _panel_svd(rows, panel, codes, n_components, seed)
    elif not isinstance(rows, np.ndarray) and rows.nnz > MANY_VALUES:
        one = np.zeros(rows.shape[0], dtype=np.int64)
        whole = np.ones((1, rows.shape[1]), dtype=bool)
        center, components, spread = _panel_svd(rows, whole, one, n_components, seed)
    else:
        pca = PCA(n_components, svd_solver="arpack", random_state=seed).fit(rows)
        center, components = pca.mean_, pca.components_
        spread = np.sqrt(np.maximum(pca.explained_variance_, 0.0))
    if weights is not None:
        # The projection reads encoded values as they are: the weights move into the components.
        center, components = center / weights, components * weights
    # One common scale keeps the spectrum: components of noise stay small for the encoder.
    level = float(spread[: min(8, len(spread))].mean())
    scale = np.full(n_components, level if level > SAME**2 else 1.0)
    return Projection(center, np.ascontiguousarray(components.T), scale, depth_moments)


def _hide(
    dense: Float[np.ndarray, "cells features"],
    panel: Bool[np.ndarray, "batches features"] | None,
    codes: Int[np.ndarray, " cells"] | None,
) -> Float[np.ndarray, "cells features"]:
    """Put NaN where a cell's batch did not measure a feature."""
    return dense if panel is None or codes is None else np.where(panel[codes], dense, np.nan)


def _moments(
    dense: Float[np.ndarray, "cells features"],
) -> tuple[Float[np.ndarray, " features"], Float[np.ndarray, " features"]]:
    """Mean and standard deviation of each feature where it is known; zeros where it never is."""
    known = ~np.isnan(dense)
    count = np.maximum(known.sum(0), 1)
    center = np.where(known, dense, 0.0).sum(0, dtype=np.float64) / count
    squares = np.where(known, dense - center, 0.0) ** 2
    return center, np.sqrt(squares.sum(0) / count)


def _panel_svd(
    rows: Float[sp.csr_matrix, "cells features"],
    panel: Bool[np.ndarray, "batches features"],
    codes: Int[np.ndarray, " cells"],
    n_components: int,
    seed: int,
) -> tuple[
    Float[np.ndarray, " features"],
    Float[np.ndarray, "components features"],
    Float[np.ndarray, " components"],
]:
    """Mean, components and spread of sparse values whose unmeasured entries sit at the mean.

    The centred matrix ``rows - panel[codes] * center`` is never built.
    """
    cells = np.bincount(codes, minlength=len(panel))
    center = np.asarray(rows.sum(0), dtype=np.float64).ravel() / np.maximum(cells @ panel, 1)
    table = panel * center
    n_rows = len(codes)
    if rows.nnz > MANY_VALUES:
        components, singular = leading_components(rows, table, codes, n_components, seed)
        return center, components, np.maximum(singular / np.sqrt(max(n_rows - 1, 1)), 1e-6)
    one_hot = sp.csr_matrix(
        (np.ones(n_rows), (np.arange(n_rows), codes)), shape=(n_rows, len(panel))
    )
    centred = LinearOperator(
        rows.shape,
        matvec=lambda v: rows @ v.ravel() - one_hot @ (table @ v.ravel()),
        rmatvec=lambda u: rows.T @ u.ravel() - table.T @ (one_hot.T @ u.ravel()),
        dtype=np.float64,
    )
    start = np.random.default_rng(seed).normal(size=min(rows.shape))
    _, singular, components = svds(centred, k=n_components, v0=start)
    order = np.argsort(singular)[::-1]
    spread = np.maximum(singular[order] / np.sqrt(max(n_rows - 1, 1)), 1e-6)
    return center, components[order], spread


def project_in_chunks(
    n_rows: int,
    project: Callable[[slice], Float[Tensor, "taken inputs"]],
    *,
    chunk_size: int | None = None,
) -> Float[np.ndarray, "{n_rows} inputs"]:
    """Run ``project`` over slices of rows and stack the results, shape ``(n_rows, n_inputs)``."""
    chunk_size = PROJECTED_CELLS if chunk_size is None else chunk_size
    with torch.no_grad():
        parts = [
            project(slice(start, min(start + chunk_size, n_rows))).cpu().numpy()
            for start in range(0, max(n_rows, 1), chunk_size)
        ]
    return np.concatenate(parts, 0)
