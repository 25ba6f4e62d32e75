"""When a fit stops early, and which weights it keeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from mosaicvi.train._callbacks import KeepBest
from mosaicvi.train._plan import VALIDATION_TOTAL

if TYPE_CHECKING:
    from collections.abc import Callable


def played(
    values: list[float],
    patience: int | None,
    cells: list[list[float]] | None = None,
    others: Callable[[bool], bool] = bool,
) -> tuple[KeepBest, int]:
    """Show a callback a fit's validation passes, until it stops; and how many it saw.

    With ``cells`` the plan also tells what each cell lost in each pass; ``others`` is what all
    processes of a distributed fit make of a decision of this one.
    """
    module = torch.nn.Linear(1, 1, bias=False)
    seen: list[list[float]] = []
    plan = SimpleNamespace(
        module=module, validated=lambda: torch.tensor(seen[-1]) if cells is not None else None
    )
    keep = KeepBest(plan, patience)  # type: ignore[arg-type]
    trainer = SimpleNamespace(
        callback_metrics={},
        sanity_checking=False,
        current_epoch=0,
        should_stop=False,
        strategy=SimpleNamespace(reduce_boolean_decision=others),
    )
    for epoch, value in enumerate(values):
        with torch.no_grad():
            module.weight.fill_(epoch)
        trainer.current_epoch = epoch
        trainer.callback_metrics = {VALIDATION_TOTAL: torch.tensor(value)}
        seen += [] if cells is None else [cells[epoch]]
        keep.on_validation_end(trainer, plan)  # type: ignore[arg-type]
        if trainer.should_stop:
            break
    keep.restore()
    assert float(module.weight) == keep.best_epoch
    return keep, epoch + 1


def test_a_fit_that_gets_worse_stops_and_keeps_its_best_weights() -> None:
    keep, n_epochs = played([5.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 3)
    assert (keep.stopped, keep.best_epoch, n_epochs) == (True, 1, 5)


def test_a_fit_that_recovers_from_the_peak_of_its_learning_rate_goes_on() -> None:
    """Worse at the peak, better with every pass after it, and best at its end."""
    values = [9.0, 4.0, 6.0, 7.0, *(6.9 - 0.3 * step for step in range(12))]
    keep, n_epochs = played(values, 3)
    assert (keep.stopped, keep.best_epoch, n_epochs) == (False, len(values) - 1, len(values))


def test_noise_without_progress_stops() -> None:
    values = [1.0, *([2.0, 1.9] * 10)]
    keep, n_epochs = played(values, 3)
    assert keep.stopped
    assert (keep.best_epoch, n_epochs) == (0, 6)


def test_an_objective_that_is_no_number_is_no_progress() -> None:
    keep, n_epochs = played([1.0, *[float("nan")] * 9], 3)
    assert (keep.stopped, keep.best_epoch, n_epochs) == (True, 0, 4)


@pytest.mark.parametrize("values", [[3.0, 4.0, 5.0, 6.0], [3.0, 3.0, 3.0, 3.0]])
def test_without_patience_it_never_stops(values: list[float]) -> None:
    keep, n_epochs = played(values, None)
    assert (keep.stopped, n_epochs) == (False, 4)


def passes(means: list[float], spread: float, n_cells: int) -> list[list[float]]:
    """Cells that differ by far, and whose change from pass to pass has a spread of its own."""
    rng = np.random.default_rng(0)
    level = rng.normal(0.0, 100.0, n_cells)
    noise = rng.normal(0.0, spread, (len(means), n_cells))
    noise -= noise.mean(1, keepdims=True)
    return (np.array(means)[:, None] + level - level.mean() + noise).tolist()


def test_a_pass_within_noise_of_the_best_is_kept_and_does_not_count_as_waiting() -> None:
    """A lucky third pass; cells change by 10 at random, so means of 50 differ by 2 at random."""
    means = [9.0, 5.0, 4.0, *[4.5] * 7]
    keep, n_epochs = played(means, 3, passes(means, 10.0, 50))
    assert (keep.stopped, keep.best_epoch, n_epochs) == (False, len(means) - 1, len(means))
    keep, n_epochs = played(means, 3)
    assert (keep.stopped, keep.best_epoch) == (True, 2)


def test_passes_that_are_clearly_worse_are_given_up_whatever_cells_differ_by() -> None:
    """Cells lie 100 apart, but all of them get worse alike: only a paired comparison sees it."""
    means = [9.0, 4.0, 4.5, 4.6, 4.7, 4.8]
    keep, n_epochs = played(means, 3, passes(means, 0.5, 50))
    assert (keep.stopped, keep.best_epoch, n_epochs) == (True, 1, 5)


def test_slow_loss_within_noise_of_each_pass_does_not_add_up() -> None:
    """Every pass is as good as the one before it, but the comparison is with the best."""
    means = [9.0, *(4.0 + 0.5 * step for step in range(12))]
    keep, _ = played(means, 3, passes(means, 10.0, 50))
    assert keep.stopped
    assert 1 <= keep.best_epoch <= 7


def test_a_single_cell_is_no_sample() -> None:
    keep, _ = played([1.0, 2.0], None, [[1.0], [2.0]])
    assert keep.best_epoch == 0


def test_processes_of_a_distributed_fit_decide_together() -> None:
    """What is as good on the cells of one may be clearly worse on those of another."""
    values = [1.0, 1.01, 1.02]
    cells = [[1.0, 1.0], [0.02, 2.0], [0.04, 2.0]]
    assert played(values, None, cells)[0].best_epoch == 2
    assert played(values, None, cells, others=lambda _: False)[0].best_epoch == 0
