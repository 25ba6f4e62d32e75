"""Generative story and inference of MosaicVI, nothing else.

For cell c with observed modalities O(c), modality m and batch s::

    z_c ~ N(0, I)
    heads_m = r_m(z_c) . v_m + bias_m + offset_{m, s}        (nn.Decoder)
    x_{c, m} ~ likelihood_m(heads_m, library size)           (likelihoods)

    q(z_c | x_S) = fuse({ expert_m(x_{c, m}) : m in S })      for any subset S of O(c)   (fusion)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mosaicvi.likelihoods._math import full_precision
from mosaicvi.module._multimodal import MultimodalModule
from mosaicvi.nn._named_modules import NamedModules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.fusion import Fusion, GaussianMixture
    from mosaicvi.nn._aligned_inputs import AlignedInputs
    from mosaicvi.nn._cross_predictor import CrossPredictor
    from mosaicvi.nn._decoder import Decoder
    from mosaicvi.nn._encoder import Encoder
    from mosaicvi.nn._graph_prior import FeatureGraphPrior
    from mosaicvi.nn._projection import Projection


@dataclass(frozen=True)
class Experts:
    """Gaussian experts of a minibatch, before fusion.

    Attributes
    ----------
    means, variances
        Shape ``(n_modalities, n_cells, n_latent)``; zeros and ones where a modality is absent.
    present
        Which cells hold which modality, bool ``(n_modalities, n_cells)``.
    heard
        Which experts count: those present, but for modalities without trust where another speaks.
    """

    means: Tensor
    variances: Tensor
    present: Tensor
    heard: Tensor


class MosaicModule(MultimodalModule):
    """Encoders, fusion and decoders of all modalities.

    Parameters
    ----------
    projections
        Modality to its frozen projection.
    predictors
        Modality to its frozen linear predictor of the other modalities.
    encoders
        Modality to its encoder, in the order of the modalities.
    decoders
        Modality to its decoder.
    fusion
        Rule that joins experts.
    n_latent
        Dimensions of the latent space.
    n_categories
        Levels of each categorical covariate, for the design matrix.
    aligned
        Modality to the inputs it shares with others, where modalities are aligned without pairs.
    shared_encoder
        Encoder of those shared inputs, the same for all modalities.
    graph
        Feature graph that ties the embeddings of different modalities.
    trust
        Modality to a number from 0 to 1 that scales its encoder's inputs; at 0 the modality is
        evidence only for cells that have no other. None: 1 for all.
    """

    def __init__(
        self,
        projections: Mapping[str, Projection],
        predictors: Mapping[str, CrossPredictor],
        encoders: Mapping[str, Encoder],
        decoders: Mapping[str, Decoder],
        *,
        fusion: Fusion,
        n_latent: int,
        n_categories: Sequence[int] = (),
        aligned: Mapping[str, AlignedInputs] | None = None,
        shared_encoder: Encoder | None = None,
        graph: FeatureGraphPrior | None = None,
        trust: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.modalities = tuple(encoders)
        self.projections: NamedModules[Projection] = NamedModules(projections)
        self.predictors: NamedModules[CrossPredictor] = NamedModules(predictors)
        self.encoders: NamedModules[Encoder] = NamedModules(encoders)
        self.decoders: NamedModules[Decoder] = NamedModules(decoders)
        self.aligned: NamedModules[AlignedInputs] = NamedModules(aligned or {})
        self.shared_encoder = shared_encoder
        self.graph = graph
        self.fusion = fusion
        self.n_latent, self.n_categories = n_latent, tuple(n_categories)
        self.trust = {name: 1.0 if trust is None else trust[name] for name in self.modalities}
        self.muted = tuple(name for name, value in self.trust.items() if value == 0)
        self.contrastive_head = nn.Sequential(
            nn.Linear(n_latent, 2 * n_latent), nn.GELU(), nn.Linear(2 * n_latent, n_latent)
        )
        self.log_temperature = nn.Parameter(torch.tensor(0.1).log())

    def muted_parameters(self) -> list[nn.Parameter]:
        """Parameters of the encoders and decoders of modalities without trust."""
        return [
            parameter
            for name in self.muted
            for part in (self.encoders[name], self.decoders[name])
            for parameter in part.parameters()
        ]

    def expert(self, name: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of one modality's expert, each ``(n_cells, n_latent)``.

        Where modalities are aligned by anchors, the encoder that all of them share says, from the
        inputs that they share, where a cell's posterior from this modality alone has its mean; what
        only one modality knows would place its cells apart. How sure it is, each modality's own
        encoder says. The expert is the one that has this posterior once the prior is heard: with
        the shared encoder's word for its own mean, the prior would draw cells of a less sure
        modality nearer to the centre, and tell modalities apart by that.
        """
        trust = self.trust[name]
        devices = [inputs.device] if inputs.device.type == "cuda" else []
        # Dropout of a modality without trust takes no random number from the others.
        with torch.random.fork_rng(devices=devices, enabled=self.training and name in self.muted):
            location, spread = self.encoders[name](inputs if trust == 1 else trust * inputs)
        if self.shared_encoder is not None:
            n_shared = self.aligned[name].n_directions
            mean, _ = self.shared_encoder(inputs[:, inputs.shape[1] - n_shared :])
            location = mean * (1 + spread)
        # Half precision is for networks: what experts say is fused, and drawn from, in full.
        return full_precision(location), full_precision(spread)

    def unimodal(self, name: str, inputs: Tensor) -> GaussianMixture:
        """Posterior from one modality's encoder inputs, ``(n_cells, n_inputs)``, alone."""
        mean, variance = self.expert(name, inputs)
        present = torch.ones((1, len(inputs)), dtype=torch.bool, device=inputs.device)
        return self.fusion(mean.unsqueeze(0), variance.unsqueeze(0), present)

    def feature_embeddings(self) -> dict[str, Tensor]:
        """Embeddings that the feature graph ties, modality to ``(n_features, n_latent)``."""
        if self.graph is None:
            return {}
        parts = self.graph.split(self.graph.embeddings())
        return dict(zip(self.modalities, parts, strict=True))

    def experts(self, batch: MultiBatch) -> Experts:
        """Run each encoder on the rows that have its modality."""
        shape = (batch.n_cells, self.n_latent)
        device = batch.indices.device
        means, variances, present = [], [], []
        for name in self.modalities:
            mean = torch.zeros(shape, device=device)
            variance = torch.ones(shape, device=device)
            has = torch.zeros(batch.n_cells, dtype=torch.bool, device=device)
            part = batch.modalities.get(name)
            if part is not None:
                location, spread = self.expert(name, part.encoder_input)
                mean = mean.index_copy(0, part.positions, location)
                variance = variance.index_copy(0, part.positions, spread)
                has[part.positions] = True
            means.append(mean)
            variances.append(variance)
            present.append(has)
        shown = torch.stack(present)
        return Experts(torch.stack(means), torch.stack(variances), shown, self.heard(shown))

    def heard(self, present: Tensor) -> Tensor:
        """Which of the present experts count, bool ``(n_modalities, n_cells)``."""
        if not self.muted:
            return present
        trusted = [[name not in self.muted] for name in self.modalities]
        speaks = present & torch.tensor(trusted, device=present.device)
        return torch.where(speaks.any(0), speaks, present)

    def heard_on_host(self, batch: MultiBatch) -> np.ndarray:
        """:meth:`heard` of a minibatch's modalities, as an array where Python runs."""
        present = torch.zeros(len(self.modalities), batch.n_cells, dtype=torch.bool)
        for number, name in enumerate(self.modalities):
            if name in batch.modalities:
                present[number, batch.modalities[name].places] = True
        heard: np.ndarray = self.heard(present).numpy()
        return heard

    def posterior(self, experts: Experts, subset: Tensor | None = None) -> GaussianMixture:
        """Fuse the experts of a subset of the observed modalities.

        Parameters
        ----------
        experts
            Experts of the minibatch.
        subset
            Bool, broadcastable to ``(n_modalities, n_cells)``; None: all observed modalities.
        """
        present = experts.heard if subset is None else self.heard(experts.present & subset)
        return self.fusion(experts.means, experts.variances, present)

    def posteriors(
        self, experts: Experts, subsets: Sequence[Tensor | None]
    ) -> list[GaussianMixture]:
        """:meth:`posterior` of several subsets, fused as if they were other cells' experts."""
        present = torch.cat(
            [
                experts.heard if each is None else self.heard(experts.present & each)
                for each in subsets
            ],
            1,
        )
        n = len(subsets)
        fused = self.fusion(
            experts.means.repeat(1, n, 1), experts.variances.repeat(1, n, 1), present
        )
        return fused.split(experts.means.shape[1])
