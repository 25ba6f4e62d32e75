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
    "counterparts",
    "split_keys",
    "_model_summary_string",
)
"""What a fit sets anew; nothing of it but the network's weights may be changed in place."""


@contextmanager
def whole_change(model: KeptModel) -> Iterator[None]:
    """Put a model back to what it was if what is done to it fails, or is interrupted.

    What a fit leaves is set one after the other, as names of factors and their weights, or the
    network and the counterparts of cells in its latent space; in between, the model would answer
    nothing, or something else, and be saved as such.
    """
    before = {name: getattr(model, name) for name in STATE}
    weights = {name: each.detach().clone() for name, each in model.module.state_dict().items()}
    try:
        yield
    except BaseException:
        for name, value in before.items():
            setattr(model, name, value)
        model.module.load_state_dict(weights)
        raise
