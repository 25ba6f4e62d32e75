"""Encoder inputs of modalities that are to be aligned: batch and depth out, shared scores in."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mosaicvi._types import Float, Float32, Int

LENGTH = 3.0
"""Length of each cell's shared scores."""

_COLUMNS = 256


class AlignedInputs(nn.Module):
    """Residuals of a frozen projection, and their scores on directions that modalities share.

    ``r = x - batch_effect[b] - depth * depth_effect``, ``s = (r - center) @ weights``,
    ``x -> [r, LENGTH * s / |s|]``

    where ``depth`` is the projection's last column, which is dropped: what only says how deeply a
    cell was sequenced, or where, is no property on which assays can be aligned. For the same reason
    scores keep their direction alone: noise draws the scores of a shallow cell, or of an assay that
    says little, towards the centre.

    Parameters
    ----------
    batch_effect
        Mean of each batch at mean depth, shape ``(n_batches, n_components)``; a batch that was not
        seen stands at the mean over cells, which is zero.
    depth_effect
        Slope on standardised log depth, shape ``(n_components,)``; None: no depth column.
    center
        Shape ``(n_components,)``.
    weights
        Shape ``(n_components, n_directions)``.
    """

    batch_effect: Tensor
    depth_effect: Tensor
    center: Tensor
    weights: Tensor

    def __init__(
        self,
        batch_effect: Float[np.ndarray, "batches components"],
        depth_effect: Float[np.ndarray, " components"] | None,
        center: Float[np.ndarray, " components"],
        weights: Float[np.ndarray, "components directions"],
    ) -> None:
        super().__init__()
        slope = np.zeros(0) if depth_effect is None else depth_effect
        for name, values in (
            ("batch_effect", batch_effect),
            ("depth_effect", slope),
            ("center", center),
            ("weights", weights),
        ):
            self.register_buffer(name, torch.as_tensor(np.array(values), dtype=torch.float32))

    @classmethod
    def blank(
        cls, n_batches: int, n_components: int, n_directions: int, *, has_depth: bool
    ) -> AlignedInputs:
        """Zeros of a shape, to be overwritten from a file."""
        return cls(
            np.zeros((n_batches, n_components)),
            np.zeros(n_components) if has_depth else None,
            np.zeros(n_components),
            np.zeros((n_components, n_directions)),
        )

    @property
    def n_directions(self) -> int:
        """Number of shared scores, the last outputs."""
        return int(self.weights.shape[1])

    @property
    def widths(self) -> tuple[int, int]:
        """Numbers of residuals and of shared scores."""
        return int(self.center.shape[0]), self.n_directions

    @property
    def n_outputs(self) -> int:
        """Number of outputs."""
        return sum(self.widths)

    def residuals(
        self, projected: Float[Tensor, "cells inputs"], batch: Int[Tensor, " cells"]
    ) -> Float[Tensor, "cells components"]:
        """Projection without batch and depth, ``(n_cells, n_components)``."""
        known = (batch >= 0).unsqueeze(-1)
        values = projected
        if self.depth_effect.shape[0]:
            values = projected[:, :-1] - projected[:, -1:] * self.depth_effect
        return values - torch.where(known, self.batch_effect[batch.clamp_min(0)], 0.0)

    def forward(
        self, projected: Float[Tensor, "cells inputs"], batch: Int[Tensor, " cells"]
    ) -> Float32[Tensor, "cells outputs"]:
        """Residuals and shared scores, ``(n_cells, n_components + n_directions)``.

        Parameters
        ----------
        projected
            Output of the frozen projection, log depth last, shape ``(n_cells, n_inputs)``.
        batch
            Batch codes, shape ``(n_cells,)``; -1 for a batch not seen.
        """
        rest = self.residuals(projected, batch)
        scores = nn.functional.normalize((rest - self.center) @ self.weights, dim=-1)
        return torch.cat([rest, LENGTH * scores], -1)


def fit_technical(
    projected: Float[np.ndarray, "cells inputs"],
    batch: Int[np.ndarray, " cells"],
    n_batches: int,
    *,
    has_depth: bool,
    groups: Int[np.ndarray, " cells"] | None = None,
) -> tuple[Float[np.ndarray, "batches components"], Float[np.ndarray, " components"] | None]:
    """Effects of batch and log depth on a projection, by least squares.

    Parameters
    ----------
    projected
        Projection, log depth last if it has one, shape ``(n_cells, n_inputs)``.
    batch
        Codes, shape ``(n_cells,)``; -1 for none.
    n_batches
        Number of batches.
    has_depth
        Whether the last column is log depth.
    groups
        Codes of groups of alike cells, shape ``(n_cells,)``: effects are then those within groups,
        and what groups differ by is left, however unevenly batches hold them. None: one group.

    Returns
    -------
    ``batch_effect`` and ``depth_effect`` of :class:`AlignedInputs`.
    """
    values = projected[:, :-1] if has_depth else projected
    table = np.zeros((n_batches, values.shape[1]))
    seen = np.unique(batch[batch >= 0])
    parts = [batch[:, None] == seen[None, :]]
    if groups is not None:
        parts.append(groups[:, None] == np.unique(groups)[None, :])
    if has_depth:
        parts.append(projected[:, -1:])
    design = np.concatenate(parts, axis=1, dtype=np.float64)
    # Thousands of values are read by runs of columns: a solver takes copies at double precision.
    runs = [values[:, start : start + _COLUMNS] for start in range(0, values.shape[1], _COLUMNS)]
    solved = [np.linalg.lstsq(design, run.astype(float), rcond=None)[0] for run in runs]
    effects = np.concatenate(solved, axis=1)
    table[seen] = effects[: len(seen)]
    if groups is not None:
        # Batches and groups share a constant, which is the groups'.
        share = np.bincount(batch[batch >= 0], minlength=n_batches) / max((batch >= 0).sum(), 1)
        table[seen] -= share @ table
    return table, (effects[-1] if has_depth else None)
