"""The contract of a method of the imputation comparison."""

from __future__ import annotations

from mosaicvi.bm._input import ImputationInput, Prediction
from mosaicvi.bm._method import BaseMethod


class Method(BaseMethod[ImputationInput, Prediction]):
    """One way to impute.

    Parameters
    ----------
    task
        What the method may see.
    """

    def __init__(self, task: ImputationInput) -> None:
        super().__init__(task)
        if task.ceiling:
            self.kind = "ceiling"
