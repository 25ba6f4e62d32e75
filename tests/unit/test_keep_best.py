"""When a fit stops early, and which weights it keeps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mosaicvi.train._callbacks import KeepBest
from mosaicvi.train._plan import VALIDATION_TOTAL


def played(values: list[float], patience: int | None) -> tuple[KeepBest, int]:
    """Show a callback a fit's validation passes, until it stops; and how many it saw."""
    module = torch.nn.Linear(1, 1, bias=False)
    keep = KeepBest(module, patience)
    trainer = SimpleNamespace(
        callback_metrics={}, sanity_checking=False, current_epoch=0, should_stop=False
    )
    for epoch, value in enumerate(values):
        with torch.no_grad():
            module.weight.fill_(epoch)
        trainer.current_epoch = epoch
        trainer.callback_metrics = {VALIDATION_TOTAL: torch.tensor(value)}
        keep.on_validation_end(trainer, module)  # type: ignore[arg-type]
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
