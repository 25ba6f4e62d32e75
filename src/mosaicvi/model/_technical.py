"""What batch and depth explain of cells, where cell type does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from mosaicvi.nn._aligned_inputs import fit_technical

if TYPE_CHECKING:
    from mosaicvi.data._mosaic_data import ModalityData

Effects = tuple[np.ndarray, np.ndarray | None]

N_GROUPS = 15
"""Groups of alike cells within which batch and depth are judged."""

GROUP_CELLS = 20
"""Cells of a modality for each of its groups, at least."""

N_ROUNDS = 6
"""How often groups are sought again without what they left of batch and depth."""


@dataclass(frozen=True)
class Technical:
    """Effects of batch and depth on one modality.

    Attributes
    ----------
    effects
        ``batch_effect`` and ``depth_effect`` of
        :class:`~mosaicvi.nn._aligned_inputs.AlignedInputs`.
    residuals
        Projection without them, ``(n_modality_cells, n_components)``.
    groups
        Group of alike cells that each cell is in, ``(n_modality_cells,)``.
    """

    effects: Effects
    residuals: np.ndarray
    groups: np.ndarray

    def take_from(self, modality: ModalityData, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Other values of some rows without what batch and depth explain within the same groups.

        Parameters
        ----------
        modality
            The modality.
        values
            Shape ``(n_rows, n_values)``.
        rows
            Which rows of the modality these are.

        Returns
        -------
        Of the shape and type of ``values``, and nobody else's.
        """
        depth = modality.depth
        together = values
        if depth is not None:
            log_depth = np.log1p(depth[rows])
            scale = max(float(log_depth.std()), 1e-6)
            standard = (log_depth - log_depth.mean()) / scale
            together = np.column_stack([values, standard.astype(values.dtype)])
        of_batch, of_depth = _fit(modality, together, modality.batch[rows], self.groups[rows])
        of_batch = of_batch.astype(values.dtype)
        of_depth = None if of_depth is None else of_depth.astype(values.dtype)
        return _residuals(together, modality.batch[rows], of_batch, of_depth)


def explain_technical(modality: ModalityData, projected: np.ndarray, *, seed: int) -> Technical:
    """Effects of batch and depth within groups of alike cells.

    Batches that hold cell types in other shares, and types that are sequenced more deeply, are not
    mistaken for effects: groups (k-means) are sought in the residuals, effects estimated within
    groups, and both once more. It is the linear part of what Harmony does (Korsunsky et al. 2019).

    Parameters
    ----------
    modality
        The modality.
    projected
        Its frozen projection, log depth last where it has counts, ``(n_modality_cells, n_inputs)``.
    seed
        Seed of the groups.
    """
    groups = np.zeros(len(projected), dtype=np.int64)
    effects = _fit(modality, projected, modality.batch, None)
    residuals = _residuals(projected, modality.batch, *effects)
    n_groups = int(np.clip(len(projected) // GROUP_CELLS, 1, N_GROUPS))
    for _ in range(N_ROUNDS):
        search = MiniBatchKMeans(n_groups, random_state=seed, n_init=1)
        groups = np.asarray(search.fit_predict(residuals), dtype=np.int64)
        effects = _fit(modality, projected, modality.batch, groups)
        residuals = _residuals(projected, modality.batch, *effects)
    return Technical(effects, residuals, groups)


def _fit(
    modality: ModalityData, values: np.ndarray, batch: np.ndarray, groups: np.ndarray | None
) -> Effects:
    n_batches = max(len(modality.batch_categories), 1)
    has_depth = modality.depth is not None
    return fit_technical(values, batch, n_batches, has_depth=has_depth, groups=groups)


def _residuals(
    values: np.ndarray,
    batch: np.ndarray,
    batch_effect: np.ndarray,
    depth_effect: np.ndarray | None,
) -> np.ndarray:
    if depth_effect is not None:
        values = values[:, :-1] - values[:, -1:] * depth_effect
    shift = batch_effect[batch]
    shift[batch < 0] = 0.0
    return np.asarray(values - shift)
