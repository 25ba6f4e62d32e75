"""Cells that trained earlier fits of the same weights, which no later fit holds out."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import MosaicviWarning
from mosaicvi.model._cells import name_keys

if TYPE_CHECKING:
    from mosaicvi.data import MosaicData
    from mosaicvi.model._kept import KeptModel

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


def trained_keys(model: KeptModel) -> np.ndarray:
    """Keys of the cells that trained the weights a fit goes on from, int64 ``(n_cells,)``.

    Those of a fit to another MuData, or of a model that was saved since, are among them.
    """
    return np.asarray(model._known_split().get("train", np.zeros(0, dtype=np.int64)))


def held_out(data: MosaicData, parts: Parts, earlier: np.ndarray) -> Parts:
    """A split whose validation and test cells trained no earlier fit.

    Weights go on from that fit: its cells in the validation part would be called held out in every
    figure about unseen cells.

    Parameters
    ----------
    data
        Registered data.
    parts
        Training, validation and test cells.
    earlier
        Keys of the cells of earlier fits.
    """
    if not len(earlier):
        return parts
    seen = np.isin(name_keys(data.obs_names), earlier)
    training, validation, test = (own if n == 0 else own[~seen[own]] for n, own in enumerate(parts))
    n_lost = len(parts[1]) - len(validation)
    if n_lost:
        warnings.warn(
            f"{n_lost} of {len(parts[1])} validation cells trained an earlier fit, whose weights "
            "this one goes on from, and are not held out"
            + (
                ". "
                if len(validation)
                else ": none is left, nothing stops training early, and there are no figures of "
                "unseen cells. "
            )
            + "Remedy: train a new model with this split, or leave train_size and indices as they "
            "were in the earlier fit.",
            MosaicviWarning,
            stacklevel=3,
        )
    return training, validation, test


def remember(model: KeptModel, earlier: np.ndarray) -> None:
    """Count the cells of earlier fits among the model's training cells, in files too."""
    known = model._known_split()
    if not len(np.setdiff1d(earlier, known["train"])):
        return
    # By keys, as some may be of another MuData than the attached one.
    known["train"] = np.union1d(known["train"], earlier)
    model.split_keys = known
    keys = name_keys(model.adata_manager.data.obs_names)
    model.train_indices_ = np.flatnonzero(np.isin(keys, known["train"]))
