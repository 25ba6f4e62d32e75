"""Which features of each modality a training step decodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mosaicvi.nn._feature_sample import draw_features

if TYPE_CHECKING:
    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.module._mosaic_module import MosaicModule
    from mosaicvi.nn._feature_sample import FeatureSample

INCLUSION_STEPS = 25
"""Steps for which features are sampled with the same probabilities."""


class StepFeatures:
    """Draws the features of each step.

    Parameters
    ----------
    limit
        Features of a modality that a step decodes at most, or modality to that number; None: all.
    """

    def __init__(self, limit: int | Mapping[str, int] | None) -> None:
        self._limit = limit
        self._n_steps = 0
        self._inclusion: dict[str, Tensor | None] = {}

    def draw(self, module: MosaicModule, batch: MultiBatch) -> dict[str, FeatureSample | None]:
        """Features that this step decodes, None: all; validation decodes all."""
        limit = self._limit
        samples: dict[str, FeatureSample | None] = dict.fromkeys(batch.modalities)
        if limit is None or not module.training:
            return samples
        # Any probabilities leave the estimated sum over features unbiased (not its softmax's
        # normaliser, a logarithm); those of the features' shares are the best, and hardly move.
        if self._n_steps % INCLUSION_STEPS == 0:
            self._inclusion = {}
        self._n_steps += 1
        for name in batch.modalities:
            most = limit.get(name) if isinstance(limit, Mapping) else int(limit)
            if most is None:
                continue
            if name not in self._inclusion:
                self._inclusion[name] = module.decoders[name].inclusion(most)
            probability = self._inclusion[name]
            if probability is None:
                continue
            devices = [probability.device] if probability.device.type == "cuda" else []
            # A modality without trust takes no random number from the others.
            with torch.random.fork_rng(devices=devices, enabled=name in module.muted):
                uniform = torch.rand((), device=probability.device)
            samples[name] = draw_features(probability, uniform)
        return samples
