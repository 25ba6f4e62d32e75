r"""Generative story and guide of FactorVI, in Pyro.

For cell c of group g with observed modalities O(c), modality m, feature f, factor k::

    z_ck ~ N(0, s_gk^2)
    w_mfk ~ share_mk N(0, slab_mk) + (1 - share_mk) delta_0        (spike and slab, ARD)
    mean head_cmf = w_mf . z_c + bias_mf + offset_{m, s, f}         (nn.Decoder)
    x_cm ~ likelihood_m(heads, library size)                        (likelihoods)

    q(z_c | x_S) = N(z; product of the prior and the linear experts of S)
    q(w) = spike and slab

Parameters are those of this module; Pyro's parameter store is never touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyro
import torch
from pyro import poutine
from torch import Tensor

from mosaicvi.factor._exact_expert import exact_expert
from mosaicvi.factor._spike_slab import CellPosterior, CellPrior
from mosaicvi.fusion import FullGaussian
from mosaicvi.module import MultimodalModule
from mosaicvi.nn._named_modules import NamedModules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mosaicvi.data._batch import ModalityBatch, MultiBatch
    from mosaicvi.factor._expert import LinearExpert
    from mosaicvi.factor._weights import SparseWeights
    from mosaicvi.nn._decoder import Decoder
    from mosaicvi.nn._projection import Projection


@dataclass(frozen=True)
class FactorExperts:
    """What each modality says about the factors of a minibatch.

    Attributes
    ----------
    precisions
        Shape ``(n_modalities, n_cells, n_factors, n_factors)``, zero where absent.
    pulls
        Shape ``(n_modalities, n_cells, n_factors)``, zero where absent.
    prior_variance
        Shape ``(n_cells, n_factors)``.
    present
        Which cells hold which modality, bool ``(n_modalities, n_cells)``.
    """

    precisions: Tensor
    pulls: Tensor
    prior_variance: Tensor
    present: Tensor


class FactorModule(MultimodalModule):
    """Experts, weights and decoders of all modalities.

    Parameters
    ----------
    projections
        Modality to its frozen projection.
    experts
        Modality to its expert, in the order of the modalities.
    weights
        Modality to its weights.
    decoders
        Modality to its decoder, whose heads read the weights.
    n_groups
        Groups of cells, each with a scale a factor.
    n_categories
        Levels of each categorical covariate.
    """

    group_variance: Tensor
    group_cells: Tensor

    def __init__(
        self,
        projections: Mapping[str, Projection],
        experts: Mapping[str, LinearExpert],
        weights: Mapping[str, SparseWeights],
        decoders: Mapping[str, Decoder],
        *,
        n_groups: int = 0,
        n_categories: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.modalities = tuple(experts)
        self.projections: NamedModules[Projection] = NamedModules(projections)
        self.recognition: NamedModules[LinearExpert] = NamedModules(experts)
        self.weights: NamedModules[SparseWeights] = NamedModules(weights)
        self.decoders: NamedModules[Decoder] = NamedModules(decoders)
        self.n_categories = tuple(n_categories)
        self.n_latent = int(next(iter(weights.values())).loc.shape[1])
        self.register_buffer("group_variance", torch.ones(max(n_groups, 1), self.n_latent))
        self.register_buffer("group_cells", torch.zeros(max(n_groups, 1), 1), persistent=False)

    def prior_variance(self, batch: MultiBatch) -> Tensor:
        """Prior variance of the factors of each cell, ``(n_cells, n_factors)``."""
        if batch.groups is None:
            return self.group_variance.new_ones(batch.n_cells, self.n_latent)
        known = (batch.groups >= 0).unsqueeze(-1)
        return torch.where(known, self.group_variance[batch.groups.clamp_min(0)], 1.0)

    def experts(self, batch: MultiBatch) -> FactorExperts:
        """Run each expert on the rows that have its modality."""
        n, k, device = batch.n_cells, self.n_latent, batch.indices.device
        precisions, pulls, present = [], [], []
        design = self.design(batch)
        for name in self.modalities:
            precision = torch.zeros(n, k, k, device=device)
            pull = torch.zeros(n, k, device=device)
            has = torch.zeros(n, dtype=torch.bool, device=device)
            part = batch.modalities.get(name)
            if part is not None:
                own, own_pull = self._expert(name, part, design)
                precision = precision.index_copy(0, part.positions, own)
                pull = pull.index_copy(0, part.positions, own_pull)
                has[part.positions] = True
            precisions.append(precision)
            pulls.append(pull)
            present.append(has)
        return FactorExperts(
            torch.stack(precisions),
            torch.stack(pulls),
            self.prior_variance(batch),
            torch.stack(present),
        )

    def _expert(
        self, name: str, part: ModalityBatch, design: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Natural parameters of the rows of a modality; in closed form where there is one."""
        decoder = self.decoders[name]
        if decoder.likelihood.is_normal:
            covariates = None if design is None else design[part.positions]
            return exact_expert(part, decoder, self.weights[name], covariates)
        own: tuple[Tensor, Tensor] = self.recognition[name](part.encoder_input, part.batch)
        return own

    @property
    def reads_values(self) -> bool:
        """Whether experts read values, not only their projections."""
        return any(self.decoders[name].likelihood.is_normal for name in self.modalities)

    def posterior(self, experts: FactorExperts, subset: Tensor | None = None) -> FullGaussian:
        """Product of the prior and the experts of a subset of the observed modalities."""
        used = (experts.present if subset is None else experts.present & subset).float()
        precision = torch.einsum("mc,mcij->cij", used, experts.precisions)
        pull = torch.einsum("mc,mci->ci", used, experts.pulls)
        return FullGaussian(precision + torch.diag_embed(1 / experts.prior_variance), pull)

    def feature_embeddings(self) -> dict[str, Tensor]:
        """Posterior mean of the weights, modality to ``(n_features, n_factors)``."""
        return {name: weights.mean() for name, weights in self.weights.items()}

    def draw_feature_embeddings(self, n_samples: int, seed: int) -> dict[str, Tensor]:
        """Posterior draws of the weights, modality to ``(n_samples, n_features, n_factors)``."""
        return {
            name: weights.draw(n_samples, seed, f"weights/{name}")
            for name, weights in self.weights.items()
        }

    def model(self, batch: MultiBatch, n_cells: int) -> None:
        """Generative story; nats per cell of a data set of ``n_cells``."""
        drawn = {}
        with poutine.scale(scale=1 / n_cells):
            for name, weights in self.weights.items():
                drawn[name] = pyro.sample(f"weights/{name}", weights.prior().to_event(2))
                pyro.factor(f"prior/{name}", -self.negative_log_prior(name))
        with poutine.scale(scale=1 / batch.n_cells), pyro.plate("cells", batch.n_cells):
            z = pyro.sample("z", CellPrior(self.prior_variance(batch)))
        with poutine.scale(scale=1 / batch.n_cells):
            for name in batch.modalities:
                linked = self.weights[name].shaped(drawn[name])
                log_prob = self.reconstruct(name, z, batch, linked=linked)
                pyro.factor(f"reconstruction/{name}", log_prob.sum())

    def guide(self, batch: MultiBatch, n_cells: int) -> None:
        """Variational posterior."""
        with poutine.scale(scale=1 / n_cells):
            for name, weights in self.weights.items():
                pyro.sample(f"weights/{name}", weights.posterior().to_event(2))
        joint = self.posterior(self.experts(batch))
        with poutine.scale(scale=1 / batch.n_cells), pyro.plate("cells", batch.n_cells):
            pyro.sample("z", CellPosterior(joint))

    @torch.no_grad()
    def update(self, batch: MultiBatch, n_cells: int, *, groups: bool) -> None:
        """Move everything that has a closed-form optimum for ``n_cells`` a step towards it."""
        for weights in self.weights.values():
            weights.update()
        if groups and batch.groups is not None and len(self.group_variance) > 1:
            joint = self.posterior(self.experts(batch))
            square = joint.mean.square() + joint.variance
            self._update_groups(batch.groups, square, batch.n_cells / n_cells)

    def _update_groups(self, groups: Tensor, square: Tensor, share: float) -> None:
        n_groups = len(self.group_variance)
        one_hot = torch.nn.functional.one_hot(groups.clamp_min(0), n_groups).float()
        one_hot = one_hot * (groups >= 0).unsqueeze(-1)
        count = one_hot.sum(0).unsqueeze(-1)
        # Ten cells' worth of a common scale in an epoch: a group of one cell says nothing.
        common = 10.0 * share
        sums = one_hot.T @ square
        overall = sums.sum(0) / count.sum().clamp_min(1)
        found = (sums / overall.clamp_min(1e-9) + common) / (count + common)
        usual = torch.where(self.group_cells > 0, self.group_cells.lerp(count, 0.05), count)
        self.group_cells.copy_(usual)
        # Each cell counts alike: a minibatch moves a group by how many of its cells it holds.
        step = 0.05 * (count + common) / (usual + common)
        self.group_variance.lerp_(found, step.clamp_max(1.0))
        mean = (self.group_variance * usual).sum(0) / usual.sum().clamp_min(1e-9)
        self.group_variance.div_(torch.where(mean > 0, mean, 1.0))

    @torch.no_grad()
    def turn(self, signs: Tensor) -> None:
        """Turn the sign of some factors, of shape ``(n_factors,)``: nothing else changes.

        Save that non-negative weights of a turned factor end at zero.
        """
        for name in self.modalities:
            weights = self.weights[name]
            # A clipped weight would come up on the other side, where none was.
            weights.loc.copy_(torch.where(signs < 0, weights.shaped(weights.loc), weights.loc))
            weights.loc.mul_(signs)
            self.recognition[name].loadings.mul_(signs)

    def keep(self, order: Tensor) -> None:
        """Keep some factors, in an order."""
        for name in self.modalities:
            self.weights[name].keep(order)
            self.recognition[name].keep(order)
        self.group_variance = self.group_variance[:, order].clone()
        self.n_latent = len(order)

    def become(self, other: FactorModule) -> None:
        """Become another network of the same modalities and no more factors, in place."""
        if other.n_latent < self.n_latent:
            self.keep(torch.arange(other.n_latent, device=self.device))
        self.load_state_dict(other.state_dict())
