"""How far apart modalities place cells of one kind."""

from __future__ import annotations

import numpy as np
import torch

from mosaicvi.model._disagreement import N_NEAREST, Disagreement, _join, draw_shifts, nearest


def two_places(
    n_anchors: int = 3 * N_NEAREST, spread: tuple[float, float] = (0.1, 2.0)
) -> Disagreement:
    """Anchors at 0 and at 10, whose shifts differ little at the one and much at the other."""
    rng = np.random.default_rng(0)
    here = np.arange(2 * n_anchors) < n_anchors
    place = np.where(here[:, None], 0.0, 10.0) + 0.01 * rng.normal(size=(2 * n_anchors, 3))
    scale = np.where(here, *spread)[:, None]
    shift = 5.0 + scale * rng.normal(size=(2 * n_anchors, 3))
    return Disagreement(place.astype(np.float32), shift.astype(np.float32))


def test_a_cell_takes_the_spread_of_anchors_near_it_and_not_their_mean() -> None:
    table = two_places()
    mean = torch.tensor([[0.0, 0, 0], [10.0, 10, 10]])
    uniform = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0))
    drawn = table.draw(mean, uniform)
    assert drawn.shape == (4000, 2, 3)
    np.testing.assert_allclose(drawn.std(0)[0], 0.1, rtol=0.35)
    np.testing.assert_allclose(drawn.std(0)[1], 2.0, rtol=0.35)
    assert (drawn.mean(0).abs() < torch.tensor([[0.02], [0.2]])).all()


def test_answers_do_not_depend_on_which_cells_are_asked_together() -> None:
    rng = np.random.default_rng(1)
    table = Disagreement(*(rng.normal(size=(500, 20)).astype(np.float32) for _ in range(2)))
    mean = torch.as_tensor(rng.normal(size=(60, 20)).astype(np.float32))
    uniform = torch.as_tensor(rng.random((7, 60)).astype(np.float32))
    together = table.draw(mean, uniform)
    for cells in (slice(3, 4), slice(20, 57)):
        alone = table.draw(mean[cells], uniform[:, cells])
        np.testing.assert_array_equal(alone, together[:, cells])


def test_nearest_are_those_of_plain_distances() -> None:
    rng = np.random.default_rng(2)
    queries, references = rng.normal(size=(9, 4)), rng.normal(size=(30, 4))
    distance = np.linalg.norm(queries[:, None] - references[None], axis=2)
    found = nearest(torch.as_tensor(queries), torch.as_tensor(references), 5)
    np.testing.assert_array_equal(found, np.argsort(distance, axis=1)[:, :5])
    assert nearest(torch.as_tensor(queries), torch.as_tensor(references), 99).shape == (9, 30)


def test_only_evidence_that_shares_no_cell_with_the_answer_is_widened() -> None:
    table = {("rna", "protein"): two_places(), ("atac", "protein"): two_places(spread=(3.0, 3.0))}
    mean, uniform = torch.zeros(4, 3), torch.rand(50, 4)
    rna, atac = torch.tensor([True, True, False, False]), torch.tensor([False, True, True, False])
    drawn = draw_shifts(table, {"rna": rna, "atac": atac}, "protein", mean, uniform)
    spread = drawn.std(0).mean(-1)
    assert 0 < spread[0] < 0.5  # from RNA
    assert 0 < spread[1] < 0.5  # both: as from the first
    assert spread[2] > 1.0
    assert spread[3] == 0  # no evidence
    # Evidence of which training has seen cells together with the answer, or the answer itself.
    for other in ("morphology", "protein"):
        held = {"rna": rna, other: torch.tensor([True, False, False, False])}
        spread = draw_shifts(table, held, "protein", mean, uniform).std(0).mean(-1)
        assert spread[0] == 0
        assert spread[1] > 0
    assert draw_shifts({}, {"rna": rna}, "protein", mean, uniform).shape == ()


def test_modalities_without_anchors_are_compared_through_others() -> None:
    rng = np.random.default_rng(3)
    a, c = (rng.normal(size=(400, 2)).astype(np.float32) for _ in range(2))
    one, two = np.float32([1, 0]), np.float32([0, 2])
    found = {
        ("a", "b"): Disagreement(a, np.tile(one, (400, 1))),
        ("b", "c"): Disagreement(c, np.tile(two, (400, 1))),
        ("c", "d"): Disagreement(c, np.tile(two, (400, 1))),
    }
    _join(found, ("a", "b", "c", "d"), np.random.default_rng(0))
    assert set(found) == {(x, y) for x in "abcd" for y in "abcd" if x < y}
    np.testing.assert_allclose(found["a", "c"].shift, np.tile(one + two, (400, 1)))
    np.testing.assert_allclose(found["a", "d"].shift, np.tile(one + 2 * two, (400, 1)))
    np.testing.assert_array_equal(found["a", "d"].place, a)
