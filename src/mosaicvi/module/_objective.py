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
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mosaicvi._types import sent
from mosaicvi.alignment import infonce
from mosaicvi.fusion import kl
from mosaicvi.module._evidence import draw, random_evidence
from mosaicvi.module._objective_spec import Losses, ObjectiveSpec
from mosaicvi.nn._feature_sample import draw_features

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.data._pairs import PairBatch
    from mosaicvi.fusion import GaussianMixture
    from mosaicvi.module._mosaic_module import Experts, MosaicModule
    from mosaicvi.nn._feature_sample import FeatureSample


INCLUSION_STEPS = 25
"""Steps for which features are sampled with the same probabilities."""

MIN_CROSS_CELLS = 8
"""Cells on which a cross term is evaluated at least, however wide the modality."""


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
        self._n_steps = 0
        self._inclusion: dict[str, Tensor | None] = {}

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
        told = self._told(module, batch, experts)
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=batch.indices.device)
        # What modalities without trust add, apart, so that it changes no sum of the others.
        aside = torch.zeros((), device=batch.indices.device)
        # What each cell adds, in validation: how sure the comparison of two epochs is.
        by_cell = None if module.training else torch.zeros(batch.n_cells, device=total.device)
        z = draw(told.joint)
        samples = self._samples(module, batch)
        for name in batch.modalities:
            muted = name in module.muted
            seen = self._seen(module, experts, z, name) if muted else z
            own, hidden = self._decoded(
                module, batch, name, seen, told, linked.get(name), samples[name]
            )
            terms[f"reconstruction/{name}"] = own.mean()
            term = self._weight(name) * own.sum() / batch.n_cells
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
                by_cell[places] += self._weight(name) * own
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
            terms["alignment"] = self._anchored(module, guidance)
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

    def _told(self, module: MosaicModule, batch: MultiBatch, experts: Experts) -> Told:
        """Posteriors that the terms need, fused in one call: on a small minibatch calls cost."""
        heard = module.heard_on_host(batch)
        shared = heard & (heard.sum(0) >= 2)
        numbers = np.flatnonzero(shared.any(1)).tolist()
        if not numbers:
            return Told(module.posterior(experts))
        spec = self.spec
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
            terms["contrastive"] = self._contrastive(module, batch, told)
            total = total + weights["contrastive"] * share * terms["contrastive"]
        return total

    def share(self, module: MosaicModule, name: str, sample: FeatureSample | None = None) -> float:
        """Share of a modality's cells on which its cross term is evaluated in a step."""
        n_features = int(module.decoders[name].measured.shape[1])
        n_decoded = n_features if sample is None else max(len(sample.features), 1)
        return min(1.0, self.spec.cross_features / n_decoded)

    def _samples(self, module: MosaicModule, batch: MultiBatch) -> dict[str, FeatureSample | None]:
        """Features that this step decodes; validation decodes all."""
        limit = self.spec.decoded_features
        samples: dict[str, FeatureSample | None] = dict.fromkeys(batch.modalities)
        if limit is None or not module.training:
            return samples
        # Any probabilities leave the estimate unbiased; those of the features' shares are the best,
        # and shares hardly move.
        if self._n_steps % INCLUSION_STEPS == 0:
            self._inclusion = {}
        self._n_steps += 1
        for name in batch.modalities:
            most = limit if isinstance(limit, int) else limit.get(name)
            if most is None:
                continue
            if name not in self._inclusion:
                self._inclusion[name] = module.decoders[name].inclusion(most)
            probability = self._inclusion[name]
            if probability is not None:
                uniform = torch.rand((), device=probability.device)
                samples[name] = draw_features(probability, uniform)
        return samples

    def _contrastive(
        self,
        module: MosaicModule,
        batch: MultiBatch,
        told: Told,
    ) -> Tensor:
        """InfoNCE over every pair of modalities, averaged over pairs of cells."""
        temperature = module.log_temperature.exp().clamp(*self.spec.temperature_range)
        heads = {name: module.contrastive_head(each.mean) for name, each in told.alone.items()}
        losses = []
        for left, right in combinations(heads, 2):
            both = np.flatnonzero(told.shared[left] & told.shared[right])
            if len(both) < 2:
                continue
            cells = sent(both, batch.indices.device)
            groups = self._groups(batch, left)[cells]
            sides = heads[left][cells], heads[right][cells]
            losses.append(infonce(*sides, temperature=temperature, groups=groups).mean())
        if not losses:
            return torch.zeros((), device=batch.indices.device)
        return torch.stack(losses).mean()

    def _anchored(self, module: MosaicModule, pairs: Sequence[PairBatch]) -> Tensor:
        """InfoNCE of anchor pairs, averaged over pairs of modalities."""
        temperature = module.log_temperature.exp().clamp(*self.spec.temperature_range)
        losses = []
        for drawn in pairs:
            sides = [
                module.unimodal(name, inputs).mean
                for name, inputs in zip(drawn.modalities, drawn.inputs, strict=True)
            ]
            losses.append(infonce(sides[0], sides[1], temperature=temperature).mean())
        return torch.stack(losses).mean()

    @staticmethod
    def _groups(batch: MultiBatch, name: str) -> Tensor:
        part = batch.modalities[name]
        groups = torch.full((batch.n_cells,), -1, dtype=torch.int64, device=batch.indices.device)
        groups[part.positions] = part.batch
        return groups
