r"""Noise that cells alike have in common.

A posterior says how wide a cell's place is, not whether cells beside each other are misplaced
alike; and networks, which are point estimates, err for all cells of a kind together. Draws that are
independent from cell to cell average such errors out. So a part of the normal noise of a draw is a
smooth function of the place, the same for all cells,

.. math:: \epsilon_i = \sqrt{1 - \rho}\, \epsilon_i^{own} + \sqrt{\rho}\, f(\mu_i), \qquad
    f \sim \mathrm{GP}\big(0, \exp(-\lVert \mu - \mu' \rVert^2 / 2 \ell^2)\big),

with :math:`\mu_i` the cell's posterior mean and f written in random Fourier features (Rahimi &
Recht 2007). Each draw of a cell is distributed as without it, exactly: only draws of several cells
belong together. As the mean of f over n draws is taken out, latent noise of a cell is correlated by
:math:`-\rho / (n - 1)` from draw to draw. One draw alone shares nothing: nothing could tell what is
shared from the mean.

Where an answer is carried over from like cells (:mod:`~mosaicvi.model._counterparts`), cells of one
kind lie amiss together too; there such a function is added to the places that are drawn.
"""

from __future__ import annotations

import math
from copy import copy
from typing import TYPE_CHECKING

import torch

from mosaicvi._noise import CellNoise

if TYPE_CHECKING:
    from torch import Tensor

SHARE = 0.5
"""Of the variance of a draw's noise that is shared by cells in one place."""

REACH = 0.3
"""Square of the length over which it is shared, per latent dimension (the prior has variance 1)."""

N_FREQUENCIES = 128
"""Random frequencies, each with a sine and a cosine."""


class SharedNoise:
    """The shared part of the noise of some draws, and what it makes of cells' own.

    Parameters
    ----------
    seed
        Seed of the answer.
    n_samples
        Draws.
    n_latent
        Latent dimensions.
    reach
        Square of the length over which it is shared, per latent dimension.
    purpose
        Name of the noise: that of another is independent of it.
    """

    def __init__(
        self,
        seed: int,
        n_samples: int,
        n_latent: int,
        *,
        reach: float = REACH,
        purpose: str = "latent/shared",
    ) -> None:
        def normal(name: str, *shape: int) -> Tensor:
            noise = CellNoise(seed, [name], purpose=purpose)
            return noise.normal(shape[0], 1, math.prod(shape[1:])).view(shape)

        length = math.sqrt(reach * n_latent)
        self._frequencies = normal("frequencies", n_latent, N_FREQUENCIES) / length
        weights = normal("weights", n_samples, 2 * N_FREQUENCIES, n_latent)
        # Their mean over draws is taken out, and their variance kept: what cells share does not
        # average out over cells, so that means of few draws would be off for whole clusters.
        scale = math.sqrt(n_samples / max(n_samples - 1, 1))
        self._weights = (weights - weights.mean(0)) * scale
        self._share = SHARE if n_samples > 1 else 0.0

    def along(self, directions: Tensor) -> SharedNoise:
        """The same noise, multiplied with some directions.

        Parameters
        ----------
        directions
            Shape ``(n_latent, n_latent)``; the noise of a place then has the covariance
            ``directions.T @ directions``.
        """
        other = copy(self)
        other._weights = self._weights @ directions.to(self._weights)
        return other

    def mixed(self, own: Tensor, places: Tensor) -> Tensor:
        """Noise of draws of which a part is shared.

        Parameters
        ----------
        own
            Standard normal noise of each cell, ``(n_samples, n_cells, n_latent)``.
        places
            Posterior means, ``(n_cells, n_latent)``.

        Returns
        -------
        Standard normal noise, shaped and placed as ``own``.
        """
        shared = self.field(places.to(own))
        return math.sqrt(1.0 - self._share) * own + math.sqrt(self._share) * shared

    def field(self, places: Tensor) -> Tensor:
        """The shared part, standard normal noise; zero if there is one draw alone.

        Parameters
        ----------
        places
            Posterior means, ``(n_cells, n_latent)``.

        Returns
        -------
        Shape ``(n_samples, n_cells, n_latent)``.
        """
        phases = places @ self._frequencies.to(places.device)
        # Sine and cosine of a frequency: their squares add up to one in every place.
        features = torch.cat([phases.cos(), phases.sin()], -1) / math.sqrt(N_FREQUENCIES)
        return features @ self._weights.to(places.device)
