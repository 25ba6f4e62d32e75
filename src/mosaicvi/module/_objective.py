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
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mosaicvi.alignment import infonce
from mosaicvi.fusion import GaussianMixture, kl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.data._pairs import PairBatch
    from mosaicvi.module._mosaic_module import Experts, MosaicModule
    from mosaicvi.nn._feature_sample import FeatureSample


MIN_CROSS_CELLS = 8
"""Cells on which a cross term is evaluated at least, however wide the modality."""


@dataclass(frozen=True)
class ObjectiveSpec:
    """Weights and schedules of the loss terms.

    Attributes
    ----------
    kl_weight
        Weight of ``kl``. Below one the fit gives predictive draws, not a Bayesian posterior.
    cross_weight, consistency_weight, contrastive_weight, alignment_weight
        Weights of the terms of the same name at the end of their warm-up.
    graph_weight
        Weight of ``graph``.
    n_cross_samples
        Draws K of the cross term.
    cross_features
        A modality that decodes more features evaluates its cross term on a random share of cells,
        this number over the features that it decodes.
    decoded_features
        Features of a modality that a training step decodes at most, or modality to that number; of
        a modality with more, a step estimates the likelihood from a sample
        (:mod:`~mosaicvi.nn._feature_sample`). None: all.
    modality_weights
        Modality to the weight of its reconstruction and cross terms.
    warmup
        Fraction of training over which ``kl``, ``cross``, ``consistency`` and ``contrastive`` rise
        linearly to their weights.
    temperature_range
        Bounds of the learnt InfoNCE temperature.
    n_train_cells
        Cells of the training split, which divide the ``prior`` term.
    """

    kl_weight: float = 0.5
    cross_weight: float = 1.0
    consistency_weight: float = 0.1
    contrastive_weight: float = 0.1
    alignment_weight: float = 10.0
    graph_weight: float = 10.0
    n_cross_samples: int = 5
    cross_features: int = 500
    decoded_features: int | Mapping[str, int] | None = None
    modality_weights: Mapping[str, float] = field(default_factory=dict)
    warmup: float = 0.1
    temperature_range: tuple[float, float] = (0.05, 1.0)
    n_train_cells: int = 1

    def at(self, progress: float) -> dict[str, float]:
        """Weights of the scheduled terms when a fraction ``progress`` of training is done."""
        rise = 1.0 if self.warmup <= 0 else min(1.0, progress / self.warmup)
        return {
            "kl": self.kl_weight * rise,
            "cross": self.cross_weight * rise,
            "consistency": self.consistency_weight * rise,
            "contrastive": self.contrastive_weight * rise,
            "alignment": self.alignment_weight * rise,
            "graph": self.graph_weight,
            "prior": 1.0,
        }


@dataclass(frozen=True)
class Losses:
    """Loss terms of one minibatch.

    Attributes
    ----------
    terms
        Name to unweighted value, in nats per cell that the term concerns, scalars.
    total
        Weighted sum that training descends, a scalar.
    score
        The same without modalities that have no trust: what epochs are compared by.
    """

    terms: dict[str, Tensor]
    total: Tensor
    score: Tensor


def random_evidence(present: Tensor, target: int) -> Tensor:
    """Draw, for each cell, a non-empty subset of its modalities other than the target, uniformly.

    Parameters
    ----------
    present
        Bool ``(n_modalities, n_cells)``.
    target
        Number of the modality that the subset must not hold.

    Returns
    -------
    Bool of the same shape; cells with nothing but the target get the empty subset.
    """
    others = present.clone()
    others[target] = False
    # A number from 1 to 2^n - 1 whose bits are the cell's n other modalities: never none.
    n_subsets = 2.0 ** others.sum(0) - 1
    uniform = torch.rand(n_subsets.shape, device=present.device)
    number = 1 + torch.minimum((uniform * n_subsets).floor(), n_subsets - 1).long()
    bit = (others.long().cumsum(0) - 1).clamp_min(0)
    return others & ((number >> bit) & 1).bool()


def draw(posterior: GaussianMixture, n_samples: int | None = None) -> Tensor:
    """Reparametrised draws, shape ``(n_cells, n_latent)`` or ``(n_samples, n_cells, n_latent)``."""
    leading = () if n_samples is None else (n_samples,)
    like = posterior.means[0]
    noise = torch.randn((*leading, *like.shape), device=like.device)
    if posterior.n_components == 1:
        return posterior.rsample(noise)
    return posterior.rsample(noise, torch.rand((*leading, like.shape[0]), device=like.device))


class Objective:
    """Computes the loss terms of a minibatch.

    Parameters
    ----------
    spec
        Weights and schedules.
    """

    def __init__(self, spec: ObjectiveSpec) -> None:
        self.spec = spec

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
        joint = module.posterior(experts)
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=batch.indices.device)
        # What modalities without trust add, apart, so that it changes no sum of the others.
        aside = torch.zeros((), device=batch.indices.device)
        z = draw(joint)
        samples = self._samples(module, batch)
        for name in batch.modalities:
            muted = name in module.muted
            seen = self._seen(module, experts, z, name) if muted else z
            nats = -module.reconstruct(
                name, seen, batch, None, linked=linked.get(name), sample=samples[name]
            )
            terms[f"reconstruction/{name}"] = nats.mean()
            term = self._weight(name) * nats.sum() / batch.n_cells
            if muted:
                aside = aside + term
            else:
                total = total + term
        terms["kl"] = joint.kl_to_prior().mean()
        total = total + weights["kl"] * terms["kl"]
        if (experts.heard.sum(0) >= 2).any():
            total = total + self._paired(
                module, batch, experts, joint, linked, samples, terms, weights
            )
        if guidance and self.spec.alignment_weight > 0:
            terms["alignment"] = self._anchored(module, guidance)
            total = total + weights["alignment"] * terms["alignment"]
        if module.graph is not None:
            terms["graph"] = module.graph.edge_loss(torch.cat(list(linked.values())))
            total = total + weights["graph"] * terms["graph"]
        # A modality whose likelihood counts w-fold has its parameters' prior count w-fold too.
        priors = {name: module.negative_log_prior(name) for name in module.modalities}
        shared = torch.zeros((), device=total.device)
        if module.graph is not None:
            shared = module.graph.negative_log_prior()
        terms["prior"] = (
            torch.stack(list(priors.values())).sum() + shared
        ) / self.spec.n_train_cells
        own = {name: self._weight(name) * value for name, value in priors.items()}
        for name in module.muted:
            aside = aside + weights["prior"] * own.pop(name) / self.spec.n_train_cells
        weighted = torch.stack(list(own.values())).sum() + shared
        total = total + weights["prior"] * weighted / self.spec.n_train_cells
        return Losses(terms, total + aside, total)

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
        experts: Experts,
        joint: GaussianMixture,
        linked: Mapping[str, Tensor],
        samples: Mapping[str, FeatureSample | None],
        terms: dict[str, Tensor],
        weights: Mapping[str, float],
    ) -> Tensor:
        """Terms that need cells with several modalities."""
        total = torch.zeros((), device=batch.indices.device)
        divergences = []
        several = experts.heard.sum(0) >= 2
        for number, name in enumerate(module.modalities):
            hidden = experts.heard[number] & several
            if not hidden.any():
                continue
            partial = module.posterior(experts, random_evidence(experts.heard, number))
            if self.spec.consistency_weight > 0:
                divergences.append(kl(joint, partial)[hidden])
            if self.spec.cross_weight > 0:
                nats = self._cross(
                    module, batch, name, partial, hidden, linked.get(name), samples[name]
                )
                terms[f"cross/{name}"] = nats
                share = self._weight(name) * hidden.float().mean()
                total = total + weights["cross"] * share * nats
        if divergences:
            terms["consistency"] = torch.cat(divergences).mean()
            share = several.float().mean()
            total = total + weights["consistency"] * share * terms["consistency"]
        if self.spec.contrastive_weight > 0:
            terms["contrastive"] = self._contrastive(module, batch, experts)
            share = several.float().mean()
            total = total + weights["contrastive"] * share * terms["contrastive"]
        return total

    def _cross(
        self,
        module: MosaicModule,
        batch: MultiBatch,
        name: str,
        partial: GaussianMixture,
        hidden: Tensor,
        linked: Tensor | None,
        sample: FeatureSample | None,
    ) -> Tensor:
        """Mean cross term of one hidden modality, over a random share of its cells if it is wide.

        A wide modality costs K decodings a cell; the share keeps that near the cost of its own
        reconstruction, and leaves the expectation as it is.
        """
        rows = torch.nonzero(hidden[batch.modalities[name].positions]).squeeze(-1)
        budget = max(MIN_CROSS_CELLS, round(len(rows) * self.share(module, name, sample)))
        if budget < len(rows):
            rows = rows[torch.randperm(len(rows), device=rows.device)[:budget].sort().values]
        n_samples = self.spec.n_cross_samples
        chosen = batch.modalities[name].positions[rows]
        z = torch.zeros((n_samples, batch.n_cells, module.n_latent), device=hidden.device)
        z[:, chosen] = draw(partial.take(chosen), n_samples)
        log_prob = module.reconstruct(name, z, batch, rows, linked=linked, sample=sample)
        return (math.log(n_samples) - torch.logsumexp(log_prob, 0)).mean()

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
        for name in batch.modalities:
            most = limit if isinstance(limit, int) else limit.get(name)
            if most is not None:
                samples[name] = module.decoders[name].sample_features(most)
        return samples

    def _contrastive(self, module: MosaicModule, batch: MultiBatch, experts: Experts) -> Tensor:
        """InfoNCE over every pair of modalities, averaged over pairs of cells."""
        temperature = module.log_temperature.exp().clamp(*self.spec.temperature_range)
        losses = []
        for left in range(len(module.modalities)):
            for right in range(left + 1, len(module.modalities)):
                both = experts.heard[left] & experts.heard[right]
                if int(both.sum()) < 2:
                    continue
                groups = self._groups(batch, module.modalities[left])[both]
                sides = [
                    module.contrastive_head(module.posterior(experts, mask).mean[both])
                    for mask in (
                        module.subset_of([module.modalities[left]]),
                        module.subset_of([module.modalities[right]]),
                    )
                ]
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
