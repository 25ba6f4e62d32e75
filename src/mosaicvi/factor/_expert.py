"""Expert of one modality: a linear Gaussian view of its frozen projection."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LOG_RANGE = (-8.0, 8.0)

N_HIDDEN = 32
"""Hidden units of the warp."""


class LinearExpert(nn.Module):
    r"""What a modality says about the factors of a cell.

    Its frozen projection :math:`y` is taken to be

    .. math:: y = c_s + B z + e, \qquad e \sim N(0, \operatorname{diag}(\psi) / \kappa_c),

    with the batch's centre :math:`c_s` and a precision :math:`\kappa_c = e^{a + b d_c}` that rises
    with the cell's standardised log depth. The expert's natural parameters are

    .. math:: \Lambda = \kappa_c B^\top \psi^{-1} B, \qquad h = \kappa_c B^\top \psi^{-1} (y - c_s).

    Experts of any subset of modalities add up to the exact posterior of that subset under this
    view: none has to be trained for a subset.

    Parameters
    ----------
    n_inputs
        Width of the projection without depth.
    n_factors
        Number of factors.
    n_batches
        Batches of the modality.
    has_depth
        Whether the last input is standardised log depth.
    warped
        Whether :math:`y` is first straightened by a small network that starts at zero: log counts
        bend where factors are large, and a bend that no expert knows becomes a factor of its own.
    """

    def __init__(
        self, n_inputs: int, n_factors: int, n_batches: int, *, has_depth: bool, warped: bool
    ) -> None:
        super().__init__()
        self.has_depth = has_depth
        self.loadings = nn.Parameter(torch.zeros(n_inputs, n_factors))
        self.log_noise = nn.Parameter(torch.zeros(n_inputs))
        self.centres = nn.Parameter(torch.zeros(n_batches, n_inputs))
        self.precision = nn.Parameter(torch.zeros(2))
        self.warp: nn.Sequential | None = None
        if warped:
            last = nn.Linear(N_HIDDEN, n_inputs)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.warp = nn.Sequential(nn.Linear(n_inputs, N_HIDDEN), nn.Tanh(), last)

    def forward(self, inputs: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Natural parameters of cells.

        Parameters
        ----------
        inputs
            Shape ``(n_cells, n_inputs)``, with log depth as a further column where there is one.
        batch
            Codes, shape ``(n_cells,)``; -1 stands at the mean of the centres.

        Returns
        -------
        Precision ``(n_cells, n_factors, n_factors)`` and pull ``(n_cells, n_factors)``.
        """
        width = self.loadings.shape[0]
        values = inputs[:, :width]
        if self.warp is not None:
            values = values + self.warp(values)
        log_precision = self.precision[0].expand(len(inputs))
        if self.has_depth:
            log_precision = log_precision + self.precision[1] * inputs[:, width].clamp(-4, 4)
        kappa = log_precision.clamp(*LOG_RANGE).exp()
        known = (batch >= 0).unsqueeze(-1)
        centre = torch.where(known, self.centres[batch.clamp_min(0)], self.centres.mean(0))
        weighted = self.loadings * (-self.log_noise.clamp(*LOG_RANGE)).exp().unsqueeze(-1)
        gram = weighted.T @ self.loadings
        pull = kappa.unsqueeze(-1) * ((values - centre) @ weighted)
        return kappa.view(-1, 1, 1) * gram, pull

    def keep(self, order: Tensor) -> None:
        """Keep some factors, in an order."""
        self.loadings = nn.Parameter(self.loadings.detach()[:, order].clone())
