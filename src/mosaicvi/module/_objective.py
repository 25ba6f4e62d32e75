r"""Every loss term of MosaicVI: its name, scale, weight and schedule, in one place.

All terms are in nats per cell. For a minibatch of cells c with observed modalities O(c)::

    reconstruction/m   -E_{q(z|x_O)} log p(x_m | z)
    kl                 KL(q(z|x_O) || N(0, I))
    cross/m            -log 1/K sum_k p(x_m | z_k),  z_k ~ q(z|x_S),  S random in O without m
    consistency        KL(q(z|x_O) || q(z|x_S))
    contrastive        InfoNCE on the unimodal posterior means of true pairs
    alignment          InfoNCE on the unimodal posterior means of anchor pairs
    graph              edges of the feature graph against drawn pairs, in nats per edge
    prior              negative log prior of hierarchical parameters, divided by training cells

A modality that is no evidence about the others (trust 0) has a reconstruction term alone, whose
gradient stops at the latent draw wherever another modality speaks, and which does not count when
epochs are compared: a fit with it is, to the last bit, the fit without it beside a decoder.

The cross term is an importance-weighted bound with the narrower evidence as the proposal (Burda et
al. 2016): with one draw it would reward a posterior without width, with several it trains
``p(x_m | x_S)`` itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mosaicvi._types import sent
from mosaicvi.fusion import kl
from mosaicvi.module import _contrast
from mosaicvi.module._evidence import draw
from mosaicvi.module._objective_spec import Losses, ObjectiveSpec
from mosaicvi.module._step_features import StepFeatures
from mosaicvi.module._told import tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.data._pairs import PairBatch
    from mosaicvi.module._mosaic_module import Experts, MosaicModule
    from mosaicvi.module._told import Told
    from mosaicvi.nn._feature_sample import FeatureSample


MIN_CROSS_CELLS = 8
"""Cells on which a cross term is evaluated at least, however wide the modality."""


@dataclass(frozen=True)
class Hidden:
    """What a modality's cells lose where it is hidden: the cross term, cell by cell.

    Attributes
    ----------
    nats
        Of the cells on which it was evaluated, ``(n_evaluated,)``.
    rows
        Which of the modality's cells of the minibatch those are, int64 ``(n_evaluated,)``.
    n_shared
        Cells that they were drawn from.
    """

    nats: Tensor
    rows: Tensor
    n_shared: int

    @property
    def scaled(self) -> Tensor:
        """Nats that sum to what all shared cells are expected to lose, ``(n_evaluated,)``."""
        return self.nats * (self.n_shared / len(self.nats))


class Objective:
    """Computes the loss terms of a minibatch.

    Parameters
    ----------
    spec
        Weights and schedules.
    """

    def __init__(self, spec: ObjectiveSpec) -> None:
        self.spec = spec
        self.step_features = StepFeatures(spec.decoded_features)

    def __call__(
        self,
        module: MosaicModule,
        batch: MultiBatch,
        *,
        progress: float = 1.0,
        guidance: Sequence[PairBatch] | None = None,
    ) -> Losses:
        """Loss terms at a fraction ``progress`` of training; 1 gives end-of-schedule weights.

        Without ``guidance``, pairs of anchors, the term that aligns modalities by them is left out.
        """
        linked = module.feature_embeddings()
        weights = self.spec.at(progress)
        experts = module.experts(batch)
        told = tell(module, batch, experts, self.spec)
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=batch.indices.device)
        # What modalities without trust add, apart, so that it changes no sum of the others.
        aside = torch.zeros((), device=batch.indices.device)
        # What each cell adds, in validation: how sure the comparison of two epochs is.
        by_cell = None if module.training else torch.zeros(batch.n_cells, device=total.device)
        z = draw(told.joint)
        samples = self.step_features.draw(module, batch)
        for name in batch.modalities:
            muted = name in module.muted
            seen = self._seen(module, experts, z, name) if muted else z
            own, hidden = self._decoded(
                module, batch, name, seen, told, linked.get(name), samples[name]
            )
            terms[f"reconstruction/{name}"] = own.mean()
            own_weight = self.spec.own_weights.get(name, self._weight(name))
            term = own_weight * own.sum() / batch.n_cells
            if muted:
                aside = aside + term
            else:
                total = total + term
            if hidden is not None:
                terms[f"cross/{name}"] = hidden.nats.mean()
                share = self._weight(name) * told.hidden[name].float().mean()
                total = total + weights["cross"] * share * terms[f"cross/{name}"]
            if by_cell is not None and not muted:
                places = batch.modalities[name].positions
                by_cell[places] += own_weight * own
                if hidden is not None:
                    each = self._weight(name) * weights["cross"] * hidden.scaled
                    by_cell[places[hidden.rows]] += each
        divergence = told.joint.kl_to_prior()
        terms["kl"] = divergence.mean()
        total = total + weights["kl"] * terms["kl"]
        if by_cell is not None:
            by_cell += weights["kl"] * divergence
        if told.several is not None:
            total = total + self._paired(module, batch, told, terms, weights)
        if guidance and self.spec.alignment_weight > 0:
            terms["alignment"] = _contrast.of_anchors(module, guidance, self.spec.temperature_range)
            total = total + weights["alignment"] * terms["alignment"]
        if module.graph is not None:
            terms["graph"] = module.graph.edge_loss(torch.cat(list(linked.values())))
            total = total + weights["graph"] * terms["graph"]
        prior, shared, own_priors = self._priors(module)
        terms["prior"] = prior / self.spec.n_train_cells
        for name in module.muted:
            aside = aside + weights["prior"] * own_priors.pop(name) / self.spec.n_train_cells
        weighted = torch.stack(list(own_priors.values())).sum() + shared
        total = total + weights["prior"] * weighted / self.spec.n_train_cells
        return Losses(terms, total + aside, total, by_cell)

    def _decoded(
        self,
        module: MosaicModule,
        batch: MultiBatch,
        name: str,
        z: Tensor,
        told: Told,
        linked: Tensor | None,
        sample: FeatureSample | None,
    ) -> tuple[Tensor, Hidden | None]:
        """Nats of a modality's cells, and its cross term, from one pass of its decoder.

        The cross term is evaluated over a random share of the cells if the modality is wide: it
        costs K decodings a cell; the share keeps that near the cost of the cells' own
        reconstruction, and leaves the expectation as it is.
        """
        part = batch.modalities[name]
        points = z[part.positions]
        if name not in told.partial or self.spec.cross_weight <= 0:
            return -module.score(name, points, batch, linked=linked, sample=sample), None
        chosen = np.flatnonzero(told.shared[name][part.places])
        n_shared = len(chosen)
        budget = max(MIN_CROSS_CELLS, round(n_shared * self.share(module, name, sample)))
        if budget < n_shared:
            chosen = chosen[torch.randperm(len(chosen))[:budget].sort().values.numpy()]
        rows = sent(chosen, z.device)
        n_own, n_samples = len(points), self.spec.n_cross_samples
        draws = draw(told.partial[name].take(part.positions[rows]), n_samples)
        every = torch.arange(n_own, device=rows.device)
        nats = -module.score(
            name,
            torch.cat([points, draws.flatten(0, 1)]),
            batch,
            torch.cat([every, rows.repeat(n_samples)]),
            linked=linked,
            sample=sample,
        )
        log_prob = -nats[n_own:].view(n_samples, len(chosen))
        cross = math.log(n_samples) - torch.logsumexp(log_prob, 0)
        return nats[:n_own], Hidden(cross, rows, n_shared)

    def _priors(self, module: MosaicModule) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Negative log priors: of everything, of what is shared, and of each modality's own.

        A modality whose likelihood counts w-fold has its parameters' prior count w-fold too; in
        the first number none is weighted.
        """
        priors = {name: module.negative_log_prior(name) for name in module.modalities}
        shared = torch.zeros((), device=module.device)
        if module.graph is not None:
            shared = module.graph.negative_log_prior()
        everything = torch.stack(list(priors.values())).sum() + shared
        own = {name: self._weight(name) * value for name, value in priors.items()}
        return everything, shared, own

    @staticmethod
    def _seen(module: MosaicModule, experts: Experts, z: Tensor, name: str) -> Tensor:
        """Latent draws whose gradient stops where a modality without trust is not alone."""
        alone = experts.heard[module.modalities.index(name)].unsqueeze(-1)
        return torch.where(alone, z, z.detach())

    def _weight(self, name: str) -> float:
        return self.spec.modality_weights.get(name, 1.0)

    def _paired(
        self,
        module: MosaicModule,
        batch: MultiBatch,
        told: Told,
        terms: dict[str, Tensor],
        weights: Mapping[str, float],
    ) -> Tensor:
        """Terms that compare posteriors of cells with several modalities."""
        total = torch.zeros((), device=batch.indices.device)
        if told.several is None:
            return total
        share = told.several.float().mean()
        if told.partial and self.spec.consistency_weight > 0:
            divergences = [
                kl(told.joint, partial)[sent(np.flatnonzero(told.shared[name]), total.device)]
                for name, partial in told.partial.items()
            ]
            terms["consistency"] = torch.cat(divergences).mean()
            total = total + weights["consistency"] * share * terms["consistency"]
        if self.spec.contrastive_weight > 0:
            terms["contrastive"] = _contrast.of_pairs(
                module, batch, told, self.spec.temperature_range
            )
            total = total + weights["contrastive"] * share * terms["contrastive"]
        return total

    def share(self, module: MosaicModule, name: str, sample: FeatureSample | None = None) -> float:
        """Share of a modality's cells on which its cross term is evaluated in a step."""
        n_features = int(module.decoders[name].measured.shape[1])
        n_decoded = n_features if sample is None else max(len(sample.features), 1)
        return min(1.0, self.spec.cross_features / n_decoded)
