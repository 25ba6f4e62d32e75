"""Shape of a decoder, and its trunk."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mosaicvi._types import Float


@dataclass(frozen=True)
class DecoderSpec:
    """Shape of one decoder.

    Attributes
    ----------
    n_latent
        Dimensions of the latent space.
    n_hidden
        Width of the residual trunk's hidden layer.
    residual
        Whether the trunk has its small MLP; without it the decoder is bilinear.
    batch_prior_scale, batch_prior_weight
        Prior of the batch offsets, see :class:`~mosaicvi.nn._batch_offsets.BatchOffsets`.
    embedding_prior_scale
        Standard deviation of the Gaussian prior of each feature embedding's entries.
    linked
        Whether heads also read embeddings from outside: those that a feature graph ties between
        modalities, or the weights of a factor model.
    n_categories
        Levels of each categorical covariate.
    n_continuous
        Number of continuous covariates.
    own
        Whether heads have embeddings of their own. Without them (``linked`` then) the mean head
        reads the outer embeddings as they are, and the other heads times their loadings.
    """

    n_latent: int
    n_hidden: int
    residual: bool
    batch_prior_scale: float
    batch_prior_weight: float
    embedding_prior_scale: float
    linked: bool = False
    n_categories: tuple[int, ...] = ()
    n_continuous: int = 0
    own: bool = True


class Trunk(nn.Module):
    """``z + MLP(z)``, where the MLP starts at zero: training starts from the bilinear decoder."""

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        self.residual: nn.Module | None = None
        if spec.residual:
            last = nn.Linear(spec.n_hidden, spec.n_latent)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.residual = nn.Sequential(
                nn.Linear(spec.n_latent, spec.n_hidden),
                nn.LayerNorm(spec.n_hidden),
                nn.GELU(),
                last,
            )

    def forward(
        self, z: Float[Tensor, "*draws cells latent"]
    ) -> Float[Tensor, "*draws cells latent"]:
        """Shape in and out ``(..., n_cells, n_latent)``."""
        return z if self.residual is None else z + self.residual(z)
