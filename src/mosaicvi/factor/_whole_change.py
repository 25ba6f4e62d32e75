"""Change a model altogether or not at all."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mosaicvi.model._kept import KeptModel

STATE = (
    "module",
    "module_spec",
    "train_indices_",
    "validation_indices_",
    "test_indices_",
    "history_",
    "fit_result",
    "is_trained_",
    "imputability",
    "library_pool",
    "split_keys",
    "_model_summary_string",
)
"""What a fit sets anew; nothing of it may be changed in place."""


@contextmanager
def whole_change(model: KeptModel) -> Iterator[None]:
    """Put a model back to what it was if what is done to it fails, or is interrupted.

    Names of factors and their weights are set one after the other; in between, the model would
    answer nothing, and be saved as one that cannot be loaded.
    """
    before = {name: getattr(model, name) for name in STATE}
    try:
        yield
    except BaseException:
        for name, value in before.items():
            setattr(model, name, value)
        raise
