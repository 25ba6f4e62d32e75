"""Expert of a modality with normal likelihood: what its values say, in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mosaicvi._types import SparseCounts

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
    values = part.values
    dense = values.to_dense() if isinstance(values, SparseCounts) else values
    posterior = weights.posterior()
    mean = weights.mean()
    n_cells, n_factors = len(dense), mean.shape[1]
    nothing = mean.new_zeros(n_cells, n_factors)
    heads = decoder(nothing, decoder.batch_offsets(part.batch), covariates, mean)
    parameters = decoder.likelihood.parameters(heads, dict(decoder.feature_parameters.items()))
    scale = decoder.feature_parameters["log_scale"].exp()
    precision = (scale / parameters["sd"]).square().expand(mean.shape[0])
    residual = (dense - parameters["mean"]) / scale
    second = torch.einsum("fi,fj->fij", mean, mean)
    second = second + torch.diag_embed(posterior.variance.clamp_min(0))
    weighted = (second * precision.view(-1, 1, 1)).flatten(1)
    panel = decoder.panel(part.batch)
    shown = part.observed
    if panel is not None:
        shown = panel if shown is None else shown & panel
    if shown is None:
        gram = weighted.sum(0).expand(n_cells, -1)
    else:
        residual = residual.masked_fill(~shown, 0.0)
        gram = shown.to(weighted) @ weighted
    pull = residual @ (mean * precision.unsqueeze(-1))
    return gram.reshape(n_cells, n_factors, n_factors), pull
