"""Log depth as encoders read it, and what is told of batches sequenced to another depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaicvi._settings import logger
from mosaicvi.nn._familiar_depth import familiar_depth, other_depths

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mosaicvi.data._mosaic_data import ModalityData


def read_depth(depth: np.ndarray, modality: ModalityData, levels: Tensor) -> np.ndarray:
    """Standardised log depths of a modality's rows as those that training knows, ``(n_rows,)``.

    Parameters
    ----------
    depth
        As they are, shape ``(n_rows,)``.
    modality
        The modality.
    levels
        What is known of training's cells (:func:`~mosaicvi.nn._familiar_depth.depth_levels`).
    """
    batch = modality.cell_batch_names[modality.cells]
    shifts = other_depths(depth, batch, levels)
    for name, shift in shifts.items():
        logger.info(
            "%r: cells of batch %r have far %s counts than those of any batch that the model was "
            "trained on, and are taken as sequenced to another depth. (If they are of one type "
            "alone, ask about their whole batch.)",
            modality.name,
            name,
            "fewer" if shift > 0 else "more",
        )
    return familiar_depth(depth, batch, levels, shifts)
