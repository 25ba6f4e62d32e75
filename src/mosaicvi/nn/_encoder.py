"""Encoder of one modality: a small MLP that emits a Gaussian expert."""

from __future__ import annotations

from torch import Tensor, nn

from mosaicvi._types import Float
from mosaicvi.nn._dropout import Dropout

LOG_PRECISION_RANGE = (-6.0, 8.0)
"""Bounds on an expert's log precision: never a point mass, never without any say."""


class Encoder(nn.Module):
    """Map the frozen projection of a cell to a Gaussian expert on the latent space.

    Encoders see no batch: a cell of a batch that training never saw is embedded like any other.

    Parameters
    ----------
    n_inputs
        Width of the frozen projection.
    n_latent
        Dimensions of the latent space.
    n_hidden
        Width of hidden layers.
    n_layers
        Number of hidden layers.
    dropout
        Dropout rate of hidden layers.
    """

    def __init__(
        self, n_inputs: int, n_latent: int, *, n_hidden: int, n_layers: int, dropout: float
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = n_inputs
        for _ in range(n_layers):
            layers += [
                nn.Linear(width, n_hidden),
                nn.LayerNorm(n_hidden),
                nn.GELU(),
                Dropout(dropout),
            ]
            width = n_hidden
        self.body = nn.Sequential(*layers)
        self.location = nn.Linear(width, n_latent)
        self.log_precision = nn.Linear(width, n_latent)

    def forward(
        self, inputs: Float[Tensor, "cells inputs"]
    ) -> tuple[Float[Tensor, "cells latent"], Float[Tensor, "cells latent"]]:
        """Return the expert's mean and variance, each ``(n_cells, n_latent)``."""
        hidden = self.body(inputs)
        log_precision = self.log_precision(hidden).clamp(*LOG_PRECISION_RANGE)
        return self.location(hidden), (-log_precision).exp()
