"""What the modalities of a minibatch tell of its cells: the posteriors that loss terms compare."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi.module._evidence import random_evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.fusion import GaussianMixture
    from mosaicvi.module._mosaic_module import Experts, MosaicModule
    from mosaicvi.module._objective_spec import ObjectiveSpec


@dataclass(frozen=True)
class Told:
    """What the modalities of a minibatch tell of its cells, together and apart.

    Attributes
    ----------
    joint
        Posterior from everything.
    several
        Cells of which several modalities are heard, bool ``(n_cells,)``; None: there are none.
    hidden
        Modality to the cells that it shares with others, where terms hide it, bool ``(n_cells,)``.
    shared
        The same where Python runs: how large a step's parts are depends on it, and reading it from
        an accelerator would wait for that.
    partial
        Modality to the posterior from a random subset of the others.
    alone
        Modality to the posterior from it alone.
    """

    joint: GaussianMixture
    several: Tensor | None = None
    hidden: Mapping[str, Tensor] = field(default_factory=dict)
    shared: Mapping[str, np.ndarray] = field(default_factory=dict)
    partial: Mapping[str, GaussianMixture] = field(default_factory=dict)
    alone: Mapping[str, GaussianMixture] = field(default_factory=dict)


def tell(module: MosaicModule, batch: MultiBatch, experts: Experts, spec: ObjectiveSpec) -> Told:
    """Posteriors that the terms need, fused in one call: on a small minibatch calls cost."""
    heard = module.heard_on_host(batch)
    shared = heard & (heard.sum(0) >= 2)
    numbers = np.flatnonzero(shared.any(1)).tolist()
    if not numbers:
        return Told(module.posterior(experts))
    several = experts.heard.sum(0) >= 2
    alone = {n: module.subset_of([module.modalities[n]]) for n in numbers}
    subsets: list[Tensor | None] = [None]
    partial_at: dict[int, int] = {}
    alone_at: dict[int, int] = {}
    if spec.contrastive_weight > 0:
        for number in numbers:
            alone_at[number] = len(subsets)
            subsets.append(alone[number])
    if spec.consistency_weight > 0 or spec.cross_weight > 0:
        for number in numbers:
            others = [each for each in alone_at if each != number]
            if len(numbers) == 2 and others:
                # Of two that share cells, the other one is all the evidence there can be.
                partial_at[number] = alone_at[others[0]]
                continue
            partial_at[number] = len(subsets)
            subsets.append(random_evidence(experts.heard, number))
    fused = module.posteriors(experts, subsets)
    names = module.modalities
    return Told(
        fused[0],
        several,
        {names[number]: experts.heard[number] & several for number in numbers},
        {names[number]: shared[number] for number in numbers},
        {names[number]: fused[place] for number, place in partial_at.items()},
        {names[number]: fused[place] for number, place in alone_at.items()},
    )
