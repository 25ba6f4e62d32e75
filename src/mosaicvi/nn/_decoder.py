"""Decoder of one modality: a residual trunk and linear heads on feature embeddings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mosaicvi._types import Bool, Float, Inexact, Int, Values
from mosaicvi.likelihoods._base import FeatureStart, Likelihood, Product
from mosaicvi.nn._batch_offsets import BatchOffsets
from mosaicvi.nn._feature_sample import FeatureSample, inclusion
from mosaicvi.nn._measured import Measured, Remembered
from mosaicvi.nn._named_modules import NamedModules
from mosaicvi.nn._penalties import half_squares
from mosaicvi.nn._trunk import DecoderSpec, Trunk

LOADING_SPREAD = 0.5
"""Prior standard deviation of a head's loading around where it starts."""

FEW_BATCHES = 32
"""Up to so many batches, training adds their offsets within the product with the embeddings."""


class Decoder(nn.Module):
    """Heads of one modality's likelihood, as functions of the latent space and the batch.

    ``head[c, f] = r(z_c) . v_f + bias_f + offset_{s(c), f} + covariates_c . w_f``

    With a feature graph, ``v_f`` is the head's own embedding plus ``loading_f`` times the embedding
    that the graph ties to other modalities'. In a factor model it is the feature's weights, times
    ``loading_f`` in heads other than the mean's.

    Parameters
    ----------
    likelihood
        Declares the heads and the feature parameters.
    start
        Initial biases and feature parameters.
    measured
        Which batch measured which feature, bool ``(n_batches, n_features)``.
    spec
        Shape of the decoder.
    """

    measured: Tensor

    def __init__(
        self,
        likelihood: Likelihood,
        start: FeatureStart,
        measured: Bool[Tensor, "batches features"],
        spec: DecoderSpec,
    ) -> None:
        super().__init__()
        n_batches, n_features = measured.shape
        self.likelihood, self.spec = likelihood, spec
        # Starting values are copied: parameters that share an array would move together.
        self.trunk = Trunk(spec)
        self.embeddings = nn.ParameterDict()
        self.biases = nn.ParameterDict()
        self.loadings = nn.ParameterDict()
        self.offsets: NamedModules[BatchOffsets] = NamedModules()
        for head in likelihood.heads:
            if spec.own:
                start_at = torch.randn(n_features, spec.n_latent) * 0.05
                self.embeddings[head.name] = nn.Parameter(start_at)
            self.biases[head.name] = nn.Parameter(
                torch.tensor(start.heads[head.name], dtype=torch.float32)
            )
            if spec.linked and (spec.own or not head.bilinear):
                self.loadings[head.name] = nn.Parameter(torch.full((n_features,), head.loading))
            if head.batch_bias:
                self.offsets[head.name] = BatchOffsets(
                    n_batches,
                    n_features,
                    measured=measured,
                    prior_scale=spec.batch_prior_scale,
                    prior_weight=spec.batch_prior_weight,
                )
        self.feature_parameters = nn.ParameterDict(
            {
                name: nn.Parameter(torch.tensor(start.parameters[name], dtype=torch.float32))
                for name in likelihood.feature_parameters
            }
        )
        n_covariates = sum(spec.n_categories) + spec.n_continuous
        self.covariates = (
            nn.Parameter(torch.zeros(n_covariates, n_features)) if n_covariates else None
        )
        self.register_buffer("measured", measured.bool())
        self._known = Remembered(Measured.of)

    @property
    def mean_head(self) -> str:
        """Name of the bilinear mean head."""
        return self.likelihood.heads[0].name

    def batch_offsets(
        self, batch: Int[Tensor, " cells"], features: Int[Tensor, " sampled"] | None = None
    ) -> dict[str, Float[Tensor, "cells sampled"]]:
        """Offsets of each batch-dependent head for some cells, ``(n_cells, n_features)``.

        Code -1 (a batch unknown to this modality) stands at the mean over batches: zero. A single
        batch is its own mean, and has none.
        """
        offsets = {}
        for name, each in self.offsets.items():
            if each.n_batches == 1:
                continue
            padded = nn.functional.pad(each.table(features), (0, 0, 1, 0))
            offsets[name] = nn.functional.embedding(batch + 1, padded)
        return offsets

    def batch_columns(
        self, batch: Int[Tensor, " cells"], features: Int[Tensor, " sampled"] | None = None
    ) -> dict[str, tuple[Float[Tensor, "cells batches"], Float[Tensor, "sampled batches"]]]:
        """What :meth:`batch_offsets` are the product of: indicators of batches, and their offsets.

        Beside ``(n_cells, n_features)`` entries a few columns more in a product cost little, and
        looking offsets up and adding them costs more than the product.
        """
        columns = {}
        for name, each in self.offsets.items():
            if each.n_batches > 1:
                table = each.table(features)
                codes = torch.arange(each.n_batches, device=batch.device)
                indicator = (batch.unsqueeze(-1) == codes).to(table.dtype)
                columns[name] = (indicator, table.T)
        return columns

    def panel(self, batch: Int[Tensor, " cells"]) -> Bool[Tensor, "cells features"] | None:
        """Features that the cells' batches measure, bool; None when all are measured."""
        table = self.panels()
        if table is None:
            return None
        known = (batch >= 0).unsqueeze(-1)
        return torch.where(known, table[batch.clamp_min(0)], True)

    def panels(self) -> Bool[Tensor, "batches features"] | None:
        """Panel of each batch, bool ``(n_batches, n_features)``; None when all are complete.

        A batch that trained without the modality has no panel of its own: should new cells of it
        bring the modality, all features count.
        """
        return self._known(self.measured).panels

    def head_embeddings(
        self, head: str, linked: Float[Tensor, "*draws features latent"] | None
    ) -> Float[Tensor, "*draws features latent"]:
        """Embeddings that a head reads, shape ``(n_features, n_latent)``, or one a draw."""
        if linked is None or (self.spec.own and head not in self.loadings):
            own: Tensor = self.embeddings[head]
            return own
        tied: Tensor = linked
        if head in self.loadings:
            tied = self.loadings[head].unsqueeze(-1) * linked
        return self.embeddings[head] + tied if self.spec.own else tied

    def forward(
        self,
        z: Float[Tensor, "*draws cells latent"],
        offsets: Mapping[str, Float[Tensor, "*#draws #cells features"]],
        covariates: Float[Tensor, "cells covariates"] | None = None,
        linked: Float[Tensor, "*#draws features latent"] | None = None,
        features: Int[Tensor, " sampled"] | None = None,
        columns: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> dict[str, Float[Tensor, "*draws cells sampled"]]:
        """Emit every head.

        Parameters
        ----------
        z
            Shape ``(..., n_cells, n_latent)``.
        offsets
            Batch-dependent head to offsets, broadcastable to ``(..., n_cells, n_features)``.
        covariates
            Design matrix of covariates, shape ``(n_cells, n_covariates)``.
        linked
            Embeddings from outside, shape ``(n_features, n_latent)``, or one set a draw,
            ``(n_draws, n_features, n_latent)``.
        features
            Numbers of the features to emit, to which ``offsets`` belong; None: all.
        columns
            Head to further inputs, ``(n_cells, n)``, and their weights, ``(n_features, n)``.
        """
        trunk = self.trunk(z)
        heads = {}
        for head in self.likelihood.heads:
            value = self._product(head.name, trunk, linked, features, columns).dense()
            if head.name in offsets:
                value = value + offsets[head.name]
            if head.bilinear and self.covariates is not None and covariates is not None:
                slopes: Tensor = self.covariates
                value = value + covariates @ (slopes if features is None else slopes[:, features])
            heads[head.name] = value
        return heads

    def _product(
        self,
        head: str,
        trunk: Float[Tensor, "*draws cells latent"],
        linked: Float[Tensor, "*#draws features latent"] | None,
        features: Int[Tensor, " sampled"] | None,
        columns: Mapping[str, tuple[Float[Tensor, "..."], Float[Tensor, "..."]]] | None,
    ) -> Product:
        """Inputs, embeddings and bias of a head, with offsets in ``columns``, no covariates."""
        weights, bias = self.head_embeddings(head, linked), self.biases[head]
        if features is not None:
            weights, bias = weights.index_select(-2, features), bias[features]
        if not columns or head not in columns:
            return Product(trunk, weights, bias)
        inputs, extra = columns[head]
        inputs = inputs.expand(*trunk.shape[:-1], inputs.shape[-1])
        # The bias as one more column: added alone, it is two more passes over all entries.
        ones = inputs.new_ones(1).expand(*trunk.shape[:-1], 1)
        weights = torch.cat([weights, extra, bias.unsqueeze(-1)], -1)
        return Product(torch.cat([trunk, inputs, ones], -1), weights, None)

    def distribution(
        self,
        z: Float[Tensor, "*draws cells latent"],
        batch: Int[Tensor, " cells"],
        library_size: Float[Tensor, "*#draws #cells"] | None,
        *,
        offsets: Mapping[str, Float[Tensor, "*#draws #cells features"]] | None = None,
        covariates: Float[Tensor, "cells covariates"] | None = None,
        panel: Bool[Tensor, "cells features"] | None = None,
        linked: Float[Tensor, "*#draws features latent"] | None = None,
    ) -> dict[str, Float[Tensor, "*#entries"]]:
        """Distribution parameters of cells at ``z`` in ``batch``.

        Parameters
        ----------
        z
            Shape ``(..., n_cells, n_latent)``.
        batch
            Codes, shape ``(n_cells,)``; -1 for a batch unknown to this modality.
        library_size
            Broadcastable to ``(..., n_cells)``.
        offsets
            Offsets to use instead of the fitted ones, as drawn for a batch never measured.
        covariates
            Design matrix, shape ``(n_cells, n_covariates)``.
        panel
            Measured features, bool ``(n_cells, n_features)``.
        linked
            Embeddings from outside, shape ``(n_features, n_latent)``, or one set a draw,
            ``(n_draws, n_features, n_latent)``.
        """
        used = self.batch_offsets(batch) if offsets is None else offsets
        return self.likelihood.parameters(
            self(z, used, covariates, linked),
            dict(self.feature_parameters.items()),
            library_size=library_size,
            panel=panel,
        )

    def log_prob(
        self,
        values: Inexact[Values, "cells features"],
        z: Float[Tensor, "*draws cells latent"],
        batch: Int[Tensor, " cells"],
        library_size: Float[Tensor, "*#draws #cells"] | None,
        *,
        covariates: Float[Tensor, "cells covariates"] | None = None,
        panel: Bool[Tensor, "cells features"] | None = None,
        linked: Float[Tensor, "*#draws features latent"] | None = None,
        observed: Bool[Tensor, "cells features"] | None = None,
        sample: FeatureSample | None = None,
    ) -> Float[Tensor, "*draws cells"]:
        """Log-probability of cells' values at ``z``, shape ``(..., n_cells)``, in nats.

        Parameters are those of :meth:`distribution` and of
        :meth:`~mosaicvi.likelihoods.Likelihood.log_prob`; with ``sample`` it is estimated from some
        of the features, which are all that ``values``, sparse counts then, hold.
        """
        features = None if sample is None else sample.features
        few = len(self.measured) <= FEW_BATCHES and (linked is None or linked.dim() == 2)
        offsets = {} if few else self.batch_offsets(batch, features)
        columns = self.batch_columns(batch, features) if few else None
        parameters = dict(self.feature_parameters.items())
        if features is not None:
            panel = None if panel is None else panel[:, features]
            observed = None if observed is None else observed[:, features]
            parameters = {name: each[features] for name, each in parameters.items()}
        size = None if sample is None else sample.weights
        if few and panel is None and observed is None and self._bare and z.dim() == 2:
            product = self._product(self.mean_head, self.trunk(z), linked, features, columns)
            value = self.likelihood.log_prob_of_product(
                values, product, parameters, library_size=library_size, weights=size
            )
            if value is not None:
                return value
            heads = {self.mean_head: product.dense()}
        else:
            heads = self(z, offsets, covariates, linked, features, columns)
        return self.likelihood.log_prob_of_heads(
            values,
            heads,
            parameters,
            library_size=library_size,
            panel=panel,
            observed=observed,
            weights=size,
        )

    @property
    def _bare(self) -> bool:
        """Whether a single head without covariates is all that there is."""
        return len(self.likelihood.heads) == 1 and self.covariates is None

    def inclusion(self, n_sampled: int) -> Float[Tensor, " features"] | None:
        """Probability of each feature to be decoded in a step; None where all are."""
        n_features = int(self.measured.shape[1])
        if not self.likelihood.takes_samples or n_sampled >= n_features:
            return None
        with torch.no_grad():
            probability: Tensor = inclusion(self.biases[self.mean_head], n_sampled)
        return probability

    def negative_log_prior(self) -> Float[Tensor, ""]:
        """Negative log prior of embeddings, batch offsets and covariates, in nats, a scalar."""
        total: Tensor = self.biases[self.mean_head].new_zeros(())
        if self.spec.own:
            halves = torch.stack([half_squares(each) for each in self.embeddings.values()])
            total = halves.sum() / self.spec.embedding_prior_scale**2
        for offsets in self.offsets.values():
            if offsets.n_batches > 1:
                total = total + offsets.negative_log_prior()
        for head in self.likelihood.heads:
            if head.name in self.loadings:
                shift = self.loadings[head.name] - head.loading
                total = total + 0.5 * (shift / LOADING_SPREAD).square().sum()
        if self.covariates is not None:
            total = total + 0.5 * self.covariates.square().sum()
        return total
