"""What a likelihood is.

A likelihood is a stateless rule that turns what the decoder says into a distribution over the
values of one modality. It declares the decoder heads and the per-feature parameters it needs, so
the decoder never asks which likelihood it serves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mosaicvi._noise import CellNoise
from mosaicvi._types import Bool, Float, Float32, Inexact, Int, Matrix, Real, Values

Parameters = Mapping[str, Float[Tensor, "*#entries"]]
"""Distribution parameters by name, each broadcastable to ``(..., n_cells, n_features)``."""


@dataclass(frozen=True)
class Head:
    """One number a cell and feature that the decoder emits.

    Attributes
    ----------
    name
        Key of the head.
    batch_bias
        Whether the head's bias differs between batches (hierarchically shrunk).
    bilinear
        Whether the head is the mean head, which reads the shared feature embedding.
    loading
        Where the head's share of an embedding that a feature graph ties starts; learnt from there.
    """

    name: str
    batch_bias: bool = False
    bilinear: bool = False
    loading: float = 0.0


@dataclass(frozen=True)
class FeatureStart:
    """Where training starts for one modality, computed from its training cells.

    Attributes
    ----------
    heads
        Head name to initial bias, shape ``(n_features,)``.
    parameters
        Feature-parameter name to initial value (unconstrained scale), shape ``(n_features,)``.
    """

    heads: Mapping[str, Float[np.ndarray, " features"]]
    parameters: Mapping[str, Float[np.ndarray, " features"]]


class Product(NamedTuple):
    """A head that is ``inputs @ embeddings.T + bias``.

    Attributes
    ----------
    inputs
        Shape ``(..., n_cells, n)``.
    embeddings
        Shape ``(n_features, n)``, or one set a draw, ``(n_draws, n_features, n)``.
    bias
        Shape ``(n_features,)``; None: it is one of the columns.
    """

    inputs: Float[Tensor, "*draws cells inputs"]
    embeddings: Float[Tensor, "*#draws features inputs"]
    bias: Float[Tensor, " features"] | None

    def dense(self) -> Float[Tensor, "*draws cells features"]:
        """The head, written out, shape ``(..., n_cells, n_features)``."""
        if self.embeddings.dim() == 2:
            return torch.nn.functional.linear(*self)
        product = self.inputs @ self.embeddings.mT
        return product if self.bias is None else product + self.bias


class Likelihood(ABC):
    """One likelihood; see the table in ``likelihoods/__init__.py``."""

    name: ClassVar[str]
    label: ClassVar[str]
    """A phrase for messages, such as "zero-inflated negative binomial"."""
    is_count: ClassVar[bool]
    """Whether the values are counts; they then travel as :class:`~mosaicvi._types.SparseCounts`."""
    uses_library_size: ClassVar[bool]
    """Whether the mean is a composition (softmax over measured features) times library size."""
    largest: ClassVar[float | None] = None
    """Largest value that can arise; None: no bound."""
    positive: ClassVar[bool] = False
    """Whether values must be above zero."""
    units: ClassVar[tuple[float, float] | None] = None
    """Smallest and largest unit that values may have; None: any, or values have none."""
    reads_coverage: ClassVar[bool] = False
    """Whether values are counts out of counts, which travel as pairs (``_pairs.py``)."""
    takes_samples: ClassVar[bool] = False
    """Whether :meth:`log_prob_of_heads` can estimate a cell's density from a sample of features."""
    is_normal: ClassVar[bool] = False
    """Whether values are normal around a multiple of the head: linear models have closed forms."""
    heads: ClassVar[tuple[Head, ...]]
    """Decoder heads; the first is the bilinear mean head."""
    feature_parameters: ClassVar[tuple[str, ...]]
    """Per-feature parameters on an unconstrained scale, such as ``log_dispersion``."""

    @abstractmethod
    def encode(
        self,
        values: Float[Values, "cells features"],
        library_size: Float[Tensor, " cells"],
        *,
        target_sum: float,
    ) -> Float[Values, "cells features"]:
        """Transform values to what the encoder's projection reads.

        Parameters
        ----------
        values
            Shape ``(n_cells, n_features)``.
        library_size
            Shape ``(n_cells,)``, counts a cell; ignored where the likelihood has none.
        target_sum
            Counts a cell to which library-normalised transforms scale (a constant of the fit).

        Returns
        -------
        Same shape. Sparse in, sparse out where the transform keeps zeros at zero.
        """

    def feature_weights(
        self, values: Real[Matrix, "cells features"]
    ) -> Float32[np.ndarray, " features"] | None:
        """Weights of encoded features in the frozen projection, positive; None: all alike.

        Parameters
        ----------
        values
            Values of the training cells (not encoded), shape ``(n_cells, n_features)``.

        Returns
        -------
        Shape ``(n_features,)``, float32.
        """
        del values
        return None

    @abstractmethod
    def parameters(
        self,
        heads: Mapping[str, Float[Tensor, "*draws cells features"]],
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None,
        panel: Bool[Tensor, "cells features"] | None,
    ) -> dict[str, Float[Tensor, "*#entries"]]:
        """Turn decoder heads into distribution parameters.

        Parameters
        ----------
        heads
            Head name to tensor of shape ``(..., n_cells, n_features)``.
        feature_parameters
            Parameter name to tensor broadcastable to ``(n_cells, n_features)``.
        library_size
            Shape broadcastable to ``(..., n_cells)``; None where the likelihood has none.
        panel
            Measured features of each cell, bool ``(n_cells, n_features)``; None when all are. A
            softmax runs over measured features only.
        """

    @abstractmethod
    def log_prob(
        self,
        values: Float[Values, "cells features"],
        parameters: Parameters,
        *,
        observed: Bool[Tensor, "cells features"] | None = None,
    ) -> Float[Tensor, "*draws cells"]:
        """Log-probability of each cell, summed over observed features, in nats.

        Cost of ``lgamma`` and logarithms of counts grows with stored values only.

        Parameters
        ----------
        values
            Shape ``(n_cells, n_features)``.
        parameters
            Tensors of shape ``(..., n_cells, n_features)`` or broadcastable to it.
        observed
            Bool ``(n_cells, n_features)``; entries that are False add nothing. None: all observed.

        Returns
        -------
        Shape ``(..., n_cells)``.
        """

    def shown(self, values: Inexact[Matrix, "cells features"]) -> Float[Matrix, "cells features"]:
        """Values on the scale of :meth:`mean` and of draws, shape ``(n_cells, n_features)``."""
        return values

    def composition(
        self,
        parameters: Parameters,
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
    ) -> Float[Tensor, "*draws cells features"]:
        """Shares of the library by feature, ``(..., n_cells, n_features)``.

        From :meth:`parameters` at a library size of one, where there is one.
        """
        del feature_parameters
        return parameters["mean"]

    def complete_library(
        self,
        library_size: Float[Tensor, "*#draws #cells"],
        share: Float[Tensor, "*draws cells"],
        n_counted: Int[Tensor, "*#draws #cells"],
        n_features: int,
    ) -> Float[Tensor, "*draws cells"]:
        """Library size over all features, of one counted on some of them.

        Parameters
        ----------
        library_size
            As counted.
        share
            Of the cell's composition that these features hold, above zero.
        n_counted
            Number of these features.
        n_features
            Number of all.
        """
        del n_counted, n_features
        return library_size / share

    def deviance(
        self, values: Inexact[Tensor, "cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        r"""Deviance of each entry from its mean, ``(..., n_cells, n_features)``.

        Counts: Poisson, :math:`2 (x \log(x/\mu) - x + \mu)`, whatever the likelihood, so that
        likelihoods can be compared; real values: :math:`(x - \mu)^2`.
        """
        mean = self.mean(parameters)
        if not self.is_count:
            return (values - mean).square()
        mean = mean.clamp_min(1e-8)
        return 2 * (torch.xlogy(values, values / mean) - values + mean)

    def log_prob_of_heads(
        self,
        values: Inexact[Values, "cells features"],
        heads: Mapping[str, Float[Tensor, "*draws cells features"]],
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None,
        panel: Bool[Tensor, "cells features"] | None,
        observed: Bool[Tensor, "cells features"] | None = None,
        weights: Float[Tensor, " features"] | None = None,
    ) -> Float[Tensor, "*draws cells"]:
        """:meth:`log_prob` at :meth:`parameters`, which a likelihood may compute in one go.

        Training calls this. Shape ``(..., n_cells)``, in nats. A class that overrides this and is
        derived from with other :meth:`parameters` needs it overridden again. ``weights`` says for
        how many features each of a sample stands, shape ``(n_features,)``; it is given only where
        :attr:`takes_samples` is set.
        """
        del weights
        parameters = self.parameters(
            heads, feature_parameters, library_size=library_size, panel=panel
        )
        return self.log_prob(values, parameters, observed=observed)

    def log_prob_of_product(
        self,
        values: Inexact[Values, "cells features"],
        product: Product,
        feature_parameters: Mapping[str, Float[Tensor, "*#cells features"]],
        *,
        library_size: Float[Tensor, "*#draws #cells"] | None,
        weights: Float[Tensor, " features"] | None = None,
    ) -> Float[Tensor, " cells"] | None:
        """:meth:`log_prob_of_heads` of the only head, without ever writing all of it.

        Returns
        -------
        Shape ``(n_cells,)``, in nats; None where a likelihood cannot, or nothing is gained.
        """
        del values, product, feature_parameters, library_size, weights
        return None

    @abstractmethod
    def log_prob_entries(
        self, values: Float[Tensor, "*#draws cells features"], parameters: Parameters
    ) -> Float[Tensor, "*draws cells features"]:
        """Log-probability of each entry of dense values in nats, ``(..., n_cells, n_features)``."""

    @abstractmethod
    def mean(self, parameters: Parameters) -> Float[Tensor, "*draws cells features"]:
        """Mean of each entry, shape ``(..., n_cells, n_features)``."""

    @abstractmethod
    def sample(
        self, parameters: Parameters, noise: CellNoise
    ) -> Float[Tensor, "*draws cells features"]:
        """Draw each entry; noise belongs to the cells on axis -2 of the parameters."""

    @abstractmethod
    def start(
        self,
        values: Real[Matrix, "cells features"],
        library_size: Real[np.ndarray, " cells"],
        *,
        background: Float[np.ndarray, " features"] | None = None,
        panel: Bool[np.ndarray, "batches features"] | None = None,
        batch: Int[np.ndarray, " cells"] | None = None,
    ) -> FeatureStart:
        """Initial biases and feature parameters from training cells.

        Parameters
        ----------
        values
            Shape ``(n_cells, n_features)``; NaN marks a missing value of a continuous modality.
        library_size
            Shape ``(n_cells,)``.
        background
            Known log background level of each feature (isotype controls or empty droplets), shape
            ``(n_features,)``, NaN where unknown; None where nothing is known.
        panel
            Measured features of each batch, bool ``(n_batches, n_features)``; None when all are.
            A feature starts from the cells that measured it only. Needs ``batch``.
        batch
            Batch code of each cell, shape ``(n_cells,)``.
        """
