"""Defaults of a fit and how they follow from the data."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mosaicvi._errors import RequestError, check_whole
from mosaicvi.data._splitter import split_cells
from mosaicvi.model._construct import modality_weights
from mosaicvi.model._reliability import reliability
from mosaicvi.model._requests import check_named
from mosaicvi.module._objective_spec import ObjectiveSpec
from mosaicvi.train._plan import OptimizerSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mosaicvi.data import MosaicData, MultiDataset
    from mosaicvi.module._mosaic_module import MosaicModule

EPOCH_SCALE = 1600.0
"""A default fit takes this number over the square root of training cells, in epochs."""

EPOCH_RANGE = (8, 200)
"""Bounds of the default number of epochs."""

ANCHORED_SCALE = 600.0
ANCHORED_RANGE = (4, 60)
"""The same of a fit whose modalities are aligned by anchors."""

MANY_CELLS = 5000
"""From so many training cells on, steps of a fit without anchors decode a sample of features."""

SAMPLED_FEATURES, SAMPLED_SHARE = 1000, 0.25
"""They decode so many, and at least this share of a modality's."""

SAMPLED_CROSS_FEATURES = 250
"""``cross_features`` where they do."""

SAMPLING = {"decoded_features", "cross_features"}
"""Arguments of the user's that leave these defaults aside."""

WEIGHT_ALPHA = 0.8
"""Exponent of the modality weights; see :func:`~mosaicvi.model._construct.modality_weights`."""

MOST_WEIGHT = 15.0
"""No modality weighs more: two proteins beside 4,000 genes would weigh 50, and be learnt by heart
(decisions, "Two or three proteins do not weigh fifty")."""

RELIABILITY_RANGE = (0.4, 0.6)
"""Share of a modality's projection that is not counting noise, from which its reconstruction has a
part of its weight, and all of it."""

CONTINUOUS_POWER = 0.5
"""Power of its weight that the reconstruction of continuous values has."""

PATIENCE_FRACTION = 0.3
"""Early stopping waits this fraction of the schedule for an improvement."""

STANDARD_NORMAL_NATS = 0.5 * math.log(2 * math.pi * math.e)
"""Entropy of a standard normal value."""

N_PROBE_CELLS = 1024
"""Cells on which the nats of each modality are measured before training."""

MIN_PROBE_CELLS = 32
"""A modality that fewer of these hold is measured on cells drawn from its own."""


def check_epochs(max_epochs: Any) -> None:
    """Refuse a fit without an epoch, after which a model would answer with noise.

    Raises
    ------
    RequestError
        If there is none, or not a whole number.
    """
    if max_epochs is None:
        return
    check_whole(
        max_epochs,
        "max_epochs",
        other="; or None, the default",
        remedy="leave train() out for a model that is not to be fitted; a model that was loaded "
        "needs none",
    )


def default_epochs(n_cells: int, *, anchored: bool = False) -> int:
    """Epochs of a default fit.

    More cells need more steps but fewer passes: few cells overfit when steps are fixed, many cells
    need no repeats. A fit that starts from anchors is aligned before it begins, and longer training
    only moves modalities apart again (decisions, "Alignment from anchors").
    """
    scale, bounds = (ANCHORED_SCALE, ANCHORED_RANGE) if anchored else (EPOCH_SCALE, EPOCH_RANGE)
    return int(np.clip(round(scale / np.sqrt(max(n_cells, 1))), *bounds))


@torch.no_grad()
def start_nats(
    module: MosaicModule, dataset: MultiDataset, indices: np.ndarray
) -> dict[str, float]:
    """Nats per cell of each modality before training, where every cell is the average cell.

    A density's nats depend on the units of its values, and may be negative: continuous modalities
    count as if their values were standardised. One sample of cells tells of all modalities, but of
    one that next to none of them holds.
    """
    sample = _probe_cells(indices)
    nats = _nats(module, dataset, sample)
    for name, modality in dataset.data.modalities.items():
        own = indices[modality.rows[indices] >= 0]
        n_probed = int((modality.rows[sample] >= 0).sum())
        if n_probed < min(len(own), MIN_PROBE_CELLS):
            nats[name] = _nats(module, dataset, _probe_cells(own))[name]
    return nats


def _probe_cells(cells: np.ndarray) -> np.ndarray:
    """The cells, or a sample of :data:`N_PROBE_CELLS`."""
    if len(cells) <= N_PROBE_CELLS:
        return cells
    return np.sort(np.random.default_rng(0).choice(cells, N_PROBE_CELLS, replace=False))


def _nats(module: MosaicModule, dataset: MultiDataset, cells: np.ndarray) -> dict[str, float]:
    """Nats per cell of the modalities that some cells hold."""
    batch = dataset.fetch(cells).to(module.device)
    z = torch.zeros(batch.n_cells, module.n_latent, device=module.device)
    nats = {}
    for name, part in batch.modalities.items():
        if module.decoders[name].likelihood.is_count:
            nats[name] = float(-module.reconstruct(name, z, batch).mean())
        else:
            share = 1.0 if part.observed is None else float(part.observed.float().mean())
            nats[name] = STANDARD_NORMAL_NATS * share * part.values.shape[1]
    return nats


def split_plan_arguments(
    plan_kwargs: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort plan arguments into those of the objective and those of the optimiser.

    Raises
    ------
    RequestError
        If an argument is neither.
    """
    objective = {f.name for f in fields(ObjectiveSpec)} - {"n_train_cells"}
    optimizer = {f.name for f in fields(OptimizerSpec)}
    given = dict(plan_kwargs or {})
    unknown = sorted(set(given) - objective - optimizer)
    if unknown:
        raise RequestError(
            f"unknown arguments {unknown}",
            key="plan_kwargs",
            expected="some of " + ", ".join(sorted(objective | optimizer)),
        )
    return (
        {name: value for name, value in given.items() if name in objective},
        {name: value for name, value in given.items() if name in optimizer},
    )


def objective_spec(
    module: MosaicModule,
    dataset: MultiDataset,
    indices: np.ndarray,
    given: Mapping[str, Any],
    *,
    anchored: bool,
) -> ObjectiveSpec:
    """Objective of a fit: the user's arguments, and modality weights measured on the data.

    Weights that the user gives stand beside those measured for the other modalities.

    With many cells, a step decodes a sample of the features of counts, for less time and the same
    answers (decisions, "Many cells: a sample of features").
    Regions that are open or closed say too little each for that.

    Raises
    ------
    RequestError
        If ``decoded_features``, ``modality_weights`` or ``own_weights`` names a modality that the
        model does not have.
    """
    for key in ("decoded_features", "modality_weights", "own_weights"):
        check_named(key, given.get(key), module.modalities)
    sampled: dict[str, Any] = {}
    if len(indices) >= MANY_CELLS and not anchored and not SAMPLING & given.keys():
        widths = {
            name: int(decoder.measured.shape[1])
            for name, decoder in module.decoders.items()
            if decoder.likelihood.takes_samples and decoder.likelihood.largest is None
        }
        sampled = {
            "decoded_features": {
                name: max(SAMPLED_FEATURES, math.ceil(SAMPLED_SHARE * width))
                for name, width in widths.items()
            },
            "cross_features": SAMPLED_CROSS_FEATURES,
        }
    spec = ObjectiveSpec(n_train_cells=len(indices), **{**sampled, **given})
    if not set(module.modalities) - set(spec.modality_weights):
        return spec
    nats = start_nats(module, dataset, indices)
    balanced = modality_weights(nats, WEIGHT_ALPHA, module.trust)
    measured = {name: min(weight, MOST_WEIGHT) for name, weight in balanced.items()}
    # Of fits from anchors this was not measured.
    powers = {
        name: _reliable(module, dataset, indices, name)
        for name, weight in measured.items()
        if weight > 1 and not anchored and name not in {*spec.modality_weights, *module.muted}
    }
    own = {name: measured[name] ** power for name, power in powers.items() if power < 1}
    return replace(
        spec,
        modality_weights={**measured, **spec.modality_weights},
        own_weights={**own, **spec.own_weights},
    )


def _reliable(module: MosaicModule, dataset: MultiDataset, indices: np.ndarray, name: str) -> float:
    """How far a modality's reconstruction has its weight: 0 where counts are noise, mostly 1.

    A weight of ten asks encoders to tell the counts of a cell as exactly as if ten such cells had
    shown the same. That is worth having of an antibody panel, whose counts repeat; of counts that
    would not come out again it is learning by heart. What others predict keeps its weight.

    The noise of continuous values is learnt along, so that a weight of ten also makes it too narrow
    (decisions, "Continuous values have half of their weight for themselves").
    """
    modality = dataset.data.modalities[name]
    likelihood = module.decoders[name].likelihood
    if not likelihood.is_count and not likelihood.reads_coverage:
        return CONTINUOUS_POWER
    rows = modality.rows[indices]
    width = int(module.projections[name].scale.shape[0])
    found = reliability(modality, rows[rows >= 0], n_components=width)
    low, high = RELIABILITY_RANGE
    return float(np.clip((found - low) / (high - low), 0.0, 1.0))


def patience(epochs: int) -> int:
    """Validation passes without improvement after which a default fit stops."""
    return max(5, round(PATIENCE_FRACTION * epochs))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with torch seeded, and leave its global state as it was."""
    # Of several GPUs only the one in use: others would be woken by this.
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def split(
    data: MosaicData,
    indices: np.ndarray | None,
    train_size: float,
    validation_size: float | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test cells, drawn within each presence pattern.

    Parameters
    ----------
    data
        Registered data.
    indices
        Cells to split; None: all. Others are in no part.
    train_size, validation_size, seed
        As in :class:`~mosaicvi.data.MosaicDataModule`.
    """
    patterns = data.patterns
    if indices is not None:
        chosen = np.zeros(data.n_cells, dtype=bool)
        chosen[indices] = True
        patterns = np.where(chosen, patterns, 0)
    return split_cells(patterns, train_size, validation_size, seed)
