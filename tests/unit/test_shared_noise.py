"""Noise that cells alike have in common."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mosaicvi._noise import CellNoise
from mosaicvi.model._shared_noise import REACH, SHARE, SharedNoise

N_DRAWS, N_LATENT = 2000, 4


def _mixed(places: torch.Tensor, seed: int = 0) -> np.ndarray:
    names = [str(number) for number in range(len(places))]
    own = CellNoise(seed, names, purpose="latent").normal(N_DRAWS, len(places), N_LATENT)
    return SharedNoise(seed, N_DRAWS, N_LATENT).mixed(own, places).numpy()


def test_noise_of_a_cell_stays_standard_normal() -> None:
    """Whatever its place: so that answers for single cells are distributed as before."""
    drawn = _mixed(torch.tensor([[0.0] * 4, [9.0, -3.0, 0.5, 1.0], [0.1, 0.0, 0.0, 0.2]]))
    for cell in range(3):
        assert stats.kstest(drawn[:, cell].ravel(), "norm").pvalue > 0.001


@pytest.mark.parametrize("distance", [0.0, 0.5, 1.0, 2.0, 6.0])
def test_cells_share_noise_as_they_are_near(distance: float) -> None:
    """Correlations are those of the kernel, averaged over fields."""
    places = torch.zeros(2, N_LATENT)
    places[1, 1] = distance
    found = np.mean([np.mean(np.prod(_mixed(places, seed), axis=1)) for seed in range(10)])
    expected = SHARE * math.exp(-(distance**2) / (2 * REACH * N_LATENT))
    assert found == pytest.approx(expected, abs=0.03)


def test_latent_dimensions_and_draws_are_independent() -> None:
    drawn = _mixed(torch.zeros(1, N_LATENT))[:, 0]
    off = np.corrcoef(drawn.T) - np.eye(N_LATENT)
    assert np.abs(off).max() < 0.1
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.1


def test_noise_of_a_place_is_the_same_beside_other_cells() -> None:
    places = torch.randn(5, N_LATENT, generator=torch.Generator().manual_seed(0))
    shared = SharedNoise(3, 7, N_LATENT)
    own = torch.zeros(7, 5, N_LATENT)
    some = shared.mixed(own[:, :2], places[[4, 1]])
    np.testing.assert_allclose(some, shared.mixed(own, places)[:, [4, 1]], atol=1e-5)


def test_means_over_draws_are_not_off_for_cells_alike() -> None:
    """What is shared adds up to nothing, and one draw shares nothing."""
    places = torch.randn(5, N_LATENT, generator=torch.Generator().manual_seed(0))
    few = SharedNoise(3, 5, N_LATENT).mixed(torch.zeros(5, 5, N_LATENT), places)
    np.testing.assert_allclose(few.mean(0), 0.0, atol=1e-6)
    assert few.std() > 0.3
    own = torch.ones(1, 5, N_LATENT)
    np.testing.assert_array_equal(SharedNoise(3, 1, N_LATENT).mixed(own, places), own)


def test_few_draws_have_the_variance_of_many() -> None:
    """Over seeds, since draws are few."""
    places = torch.zeros(1, N_LATENT)
    own = torch.zeros(3, 1, N_LATENT)
    drawn = [SharedNoise(seed, 3, N_LATENT).mixed(own, places) for seed in range(400)]
    assert float(torch.stack(drawn).square().mean()) == pytest.approx(SHARE, rel=0.06)


def test_noise_along_directions_has_their_covariance() -> None:
    directions = torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.0]))
    plain, places = SharedNoise(3, N_DRAWS, N_LATENT), torch.zeros(1, N_LATENT)
    drawn = plain.along(directions).field(places)
    np.testing.assert_allclose(drawn, plain.field(places) @ directions, atol=1e-5)
    assert float(drawn[..., 3].abs().max()) == 0
