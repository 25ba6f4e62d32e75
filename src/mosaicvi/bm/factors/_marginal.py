"""No factor at all."""

from __future__ import annotations

import numpy as np

from mosaicvi.bm._factor_input import FactorAnswer, FactorInput
from mosaicvi.bm._method import BaseMethod


class Marginal(BaseMethod[FactorInput, FactorAnswer]):
    """Feature means (of counts: the shares of all cells together)."""

    name = "marginal"
    kind = "trivial"

    def fit(self) -> None:
        """Take means."""
        self._means = {
            name: np.asarray(part.X.mean(0)).ravel() for name, part in self.task.mdata.mod.items()
        }

    def predict(self) -> dict[str, FactorAnswer]:
        """The same for every cell, and one factor that says nothing."""
        mdata, wanted = self.task.mdata, self.task.wanted
        return {
            "": FactorAnswer(
                np.zeros((mdata.n_obs, 1)),
                np.zeros((1, len(mdata.mod)), dtype=bool),
                {name: np.zeros((part.n_vars, 1), np.float32) for name, part in mdata.mod.items()},
                {name: np.tile(self._means[name], (len(wanted[name]), 1)) for name in wanted},
            )
        }
