"""Expert of a modality with normal likelihood: what its values say, in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mosaicvi._types import as_dense
from mosaicvi.factor._head_slope import shown_entries

if TYPE_CHECKING:
    from mosaicvi.data._batch import ModalityBatch
    from mosaicvi.factor._weights import SparseWeights
    from mosaicvi.nn._decoder import Decoder


@torch.no_grad()
def exact_expert(
    part: ModalityBatch, decoder: Decoder, weights: SparseWeights, covariates: Tensor | None
) -> tuple[Tensor, Tensor]:
    r"""Natural parameters of the factors of cells, given the weights' posterior.

    With :math:`y_f` the value in the feature's scale, less bias, batch offset and covariates, and
    :math:`\sigma_f` its standard deviation in that scale,

    .. math::
        \Lambda_c = \sum_{f \in O(c)} E[w_f w_f^\top] / \sigma_f^2, \qquad
        h_c = \sum_{f \in O(c)} E[w_f] y_{cf} / \sigma_f^2,

    which maximises the bound over all :math:`q(z)` (Bishop 1999); missing values are left out of
    the sums. No gradient flows: at a maximum there is none.

    Parameters
    ----------
    part
        Rows of the modality, with values.
    decoder, weights
        Of the modality.
    covariates
        Design matrix of these rows, ``(n_cells, n_covariates)``.

    Returns
    -------
    Precision ``(n_cells, n_factors, n_factors)`` and pull ``(n_cells, n_factors)``.
    """
    posterior, mean = weights.posterior(), weights.mean()
    n_factors = mean.shape[1]
    residual, shown = standard_residuals(part, decoder, covariates)
    precision = (-2 * decoder.feature_parameters["log_sd"]).exp()
    second = torch.einsum("fi,fj->fij", mean, mean)
    second = second + torch.diag_embed(posterior.variance.clamp_min(0))
    weighted = (second * precision.view(-1, 1, 1)).flatten(1)
    if shown is None:
        gram = weighted.sum(0).expand(len(residual), -1)
    else:
        residual = residual.masked_fill(~shown, 0.0)
        gram = shown.to(weighted) @ weighted
    pull = residual @ (mean * precision.unsqueeze(-1))
    return gram.reshape(-1, n_factors, n_factors), pull


def standard_residuals(
    part: ModalityBatch, decoder: Decoder, covariates: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Values in the scale of their features, without what is there without factors.

    Returns
    -------
    Shape ``(n_cells, n_features)``, NaN where missing, and which are shown; None: all.
    """
    values = part.values
    dense = as_dense(values)
    offsets = decoder.batch_offsets(part.batch)
    nothing = dense.new_zeros(len(dense), decoder.spec.n_latent)
    empty = dense.new_zeros(dense.shape[1], decoder.spec.n_latent)
    base = decoder(nothing, offsets, covariates, empty)[decoder.mean_head]
    scale = decoder.feature_parameters["log_scale"]
    return dense * (-scale).exp() - base, shown_entries(decoder, part)
