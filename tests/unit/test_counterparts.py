"""Latent draws of cells that hold the answer's modality, near a cell that does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mosaicvi.model._counterparts import (
    MAX_CELLS,
    MOVED,
    N_LOCAL,
    N_NEAREST,
    Apart,
    Counterparts,
    nearest,
    spread_of,
)


def of(places: np.ndarray, **apart: Apart) -> Counterparts:
    return Counterparts(places.astype(np.float32), apart)


def still(n_samples: int, n_asked: int, n_latent: int = 2) -> torch.Tensor:
    """Nothing that cells share."""
    return torch.zeros(n_samples, n_asked, n_latent)


def noise(n_samples: int, n_asked: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n_samples, n_asked, generator=torch.Generator().manual_seed(seed))


def test_chances_fall_with_the_squared_distance_on_the_scale_of_the_place() -> None:
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(40, 2))
    # The place of the third cell, or with a spread of a cell farther away, of those that there are.
    spreads = torch.tensor([0.0, 0.05, 0.25, 1.0])
    drawn = of(cells).draw(
        torch.zeros(4, 2), noise(60_000, 4), torch.zeros(4), spreads, still(60_000, 4)
    )
    squared = (cells**2).sum(1)
    for each, n_local in zip(drawn.numpy().swapaxes(0, 1), (N_LOCAL, N_LOCAL, 10, 40), strict=True):
        expected = np.exp(-squared / np.sort(squared)[n_local - 1])
        expected /= expected.sum()
        same = (each[:, None] == cells.astype(np.float32)[None]).all(2)
        assert (same.sum(1) == 1).all()
        np.testing.assert_allclose(same.mean(0), expected, atol=0.006)


def test_a_rare_kind_is_not_outvoted_by_the_many_around_it() -> None:
    """Six cells of a kind at the place, 4,000 others some way off."""
    rng = np.random.default_rng(1)
    rare = 0.1 * rng.normal(size=(6, 5))
    others = 3.0 + 0.1 * rng.normal(size=(MAX_CELLS, 5))
    table = of(np.concatenate([rare, others]))
    none = torch.zeros(1)
    drawn = table.draw(torch.zeros(1, 5), noise(2000, 1), none, none, still(2000, 1, 5))
    assert (drawn[:, 0].norm(dim=-1) < 2).all()


def test_answers_do_not_depend_on_which_cells_are_asked_together() -> None:
    rng = np.random.default_rng(2)
    table = of(rng.normal(size=(500, 20)))
    asked = torch.as_tensor(rng.normal(size=(60, 20)).astype(np.float32))
    uniform, doubt, spread = noise(7, 60), torch.linspace(0, 1, 60), torch.linspace(0, 0.1, 60)
    shared = torch.as_tensor(rng.normal(size=(7, 60, 20)).astype(np.float32))
    together = table.draw(asked, uniform, doubt, spread, shared)
    for cells in (slice(3, 4), slice(20, 57)):
        given = uniform[:, cells], doubt[cells], spread[cells], shared[:, cells]
        alone = table.draw(asked[cells], *given)
        np.testing.assert_array_equal(alone, together[:, cells])


def test_fewer_cells_than_are_asked_for_and_cells_in_one_place() -> None:
    for cells in (np.ones((1, 3)), np.zeros((4, 3)), np.ones((3 * N_NEAREST, 3))):
        doubt, spread = torch.tensor([[0.0, 0.3], [0.0, 1.0]])
        drawn = of(cells).draw(torch.zeros(2, 3), noise(9, 2), doubt, spread, still(9, 2, 3))
        np.testing.assert_array_equal(drawn, np.broadcast_to(cells[0], (9, 2, 3)))


def test_nearest_are_those_of_plain_distances() -> None:
    rng = np.random.default_rng(3)
    places, cells = rng.normal(size=(9, 4)), rng.normal(size=(30, 4))
    distance = np.linalg.norm(places[:, None] - cells[None], axis=2)
    squared, found = nearest(torch.as_tensor(places), torch.as_tensor(cells), 5)
    np.testing.assert_array_equal(found, np.argsort(distance, axis=1)[:, :5])
    np.testing.assert_allclose(squared, np.sort(distance**2, axis=1)[:, :5])
    assert nearest(torch.as_tensor(places), torch.as_tensor(cells), 99)[1].shape == (9, 30)


def test_doubt_is_the_share_of_draws_that_are_of_any_cell() -> None:
    table = of(np.concatenate([np.zeros((50, 2)), np.full((150, 2), 9.0)]))
    doubt = torch.tensor([0.0, 0.2, 1.0])
    uniform = noise(20_000, 3)
    drawn = table.draw(torch.zeros(3, 2), uniform, doubt, torch.zeros(3), still(20_000, 3))
    away = (drawn[..., 0] > 1).float().mean(0)
    np.testing.assert_allclose(away, [0.0, 0.15, 0.75], atol=0.01)


def carried(
    table: Counterparts, held: dict[str, torch.Tensor], n_samples: int = 20_000
) -> torch.Tensor:
    """Draws of cells at 0, whose own posteriors are at -1."""
    n_cells = len(next(iter(held.values())))
    own = torch.full((n_samples, n_cells, 2), -1.0)
    given = noise(n_samples, n_cells), still(n_samples, n_cells)
    return table.carried_over(own, torch.zeros(n_cells, 2), held, *given)


def test_answers_are_carried_over_if_all_evidence_shares_few_cells_with_them() -> None:
    table = of(np.zeros((30, 2)), rna=Apart(), atac=Apart(share=0.5))
    rna, atac = torch.tensor([True, True, False, False]), torch.tensor([False, True, True, False])
    drawn = carried(table, {"rna": rna, "atac": atac})
    assert set(drawn.unique().tolist()) == {-1.0, 0.0}
    own = (drawn[..., 0] == -1).float().mean(0)
    np.testing.assert_allclose(own, [0.0, 0.5, 0.5, 1.0], atol=0.01)
    # Evidence of which training has seen cells together with the answer, or the answer itself.
    for other in ("morphology", "protein"):
        held = {"rna": rna, other: torch.tensor([True, False, False, False])}
        own = (carried(table, held)[..., 0] == -1).float().mean(0)
        assert own.tolist() == [1, 0, 1, 1]


def test_doubt_makes_a_share_of_the_counterparts_any_cell() -> None:
    places = np.concatenate([np.zeros((100, 2)), np.full((300, 2), 9.0)])
    table = of(places, rna=Apart(share=0.6, doubt=1.0), atac=Apart(share=0.6, doubt=0.5))
    rna, atac = torch.tensor([True, True]), torch.tensor([False, True])
    drawn = carried(table, {"rna": rna, "atac": atac})[..., 0]
    for value, expected in ((-1.0, (0.4, 0.4)), (9.0, (0.6 * 0.3 * 0.75, 0.6 * 0.15 * 0.75))):
        np.testing.assert_allclose((drawn == value).float().mean(0), expected, atol=0.01)


def test_the_surest_evidence_says_how_wide_a_place_is() -> None:
    """Of ten cells near the place and ninety farther away a tenth is drawn, or more."""
    places = np.concatenate([np.full((10, 2), 0.1), np.full((90, 2), 1.0)])
    table = of(places, rna=Apart(spread=0.5), atac=Apart())
    rna, atac = torch.tensor([True, True]), torch.tensor([False, True])
    near = (carried(table, {"rna": rna, "atac": atac})[..., 0] < 0.5).float().mean(0)
    np.testing.assert_allclose(near, [10 / (10 + 90 * np.exp(-0.99)), 1.0], atol=0.01)


def test_the_fewer_links_the_wider_places_are() -> None:
    """With many the scale is that of the third cell, with five of a twentieth of them."""
    assert spread_of(1) == spread_of(5) == 0.05
    assert spread_of(10) == pytest.approx(0.05 / 8)
    assert spread_of(31) * MAX_CELLS < N_LOCAL


def test_places_of_cells_alike_are_moved_together_on_the_scale_of_the_place() -> None:
    """By what they share alone: what cells draw by themselves averages out over many."""
    rng = np.random.default_rng(4)
    cells = rng.normal(size=(50, 8))
    scale = np.sort(np.linalg.norm(cells, axis=1))[N_LOCAL - 1]
    shared = torch.as_tensor(rng.normal(size=(40, 1, 8)).astype(np.float32)).expand(40, 2000, 8)
    drawn = of(cells).draw(
        torch.zeros(2000, 8), noise(40, 2000), torch.zeros(2000), torch.zeros(2000), shared
    )
    means = drawn.mean(1)
    expected = MOVED * scale / np.sqrt(8) * shared[:, 0]
    np.testing.assert_allclose(means - means.mean(0), expected - expected.mean(0), atol=0.12)


def test_places_are_moved_where_cells_alike_differ() -> None:
    """Not where kinds differ, nor in dimensions in which no cells do."""
    rng = np.random.default_rng(5)
    cells = np.zeros((600, 8))
    cells[:, 0] = 20.0 * (np.arange(600) % 3)
    cells[:, 1:3] = rng.normal(size=(600, 2)) @ [[1.0, 0.5], [0.0, 1.0]]
    directions = of(cells).directions
    assert float(directions.square().sum()) == pytest.approx(8, rel=1e-4)
    moved = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0)) @ directions
    assert float(moved[:, [0, *range(3, 8)]].abs().max()) < 1e-3
    apart = cells[:, None, 1:3] - cells[None, :, 1:3]
    squared = np.square(cells[:, None] - cells[None]).sum(2)
    third = np.argsort(squared, axis=1)[:, N_LOCAL]
    differences = apart[np.arange(600), third]
    expected = differences.T @ differences
    expected *= 8 / np.trace(expected)
    np.testing.assert_allclose(directions.T[1:3] @ directions[:, 1:3], expected, rtol=1e-3)


@pytest.mark.parametrize("cells", [np.ones((1, 3)), np.zeros((50, 3))])
def test_cells_that_do_not_differ_have_no_directions(cells: np.ndarray) -> None:
    np.testing.assert_array_equal(of(cells).directions, np.eye(3))
