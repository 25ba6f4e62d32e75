"""MOFA+ by mofapy2, as muon calls it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mosaicvi.bm._factor_input import FactorAnswer, FactorInput
from mosaicvi.bm._method import BaseMethod
from mosaicvi.bm._worker import peak_memory
from mosaicvi.bm.factors import imported
from mosaicvi.bm.factors._values import linear_answer, real_mudata


class Mofapy2(BaseMethod[FactorInput, FactorAnswer]):
    """``muon.tl.mofa`` at its defaults; counts as log1p of shares, missing cells as such.

    Options go to ``muon.tl.mofa``.
    """

    name = "mofapy2"
    packages = ("mofapy2", "muon")

    def fit(self) -> None:
        """Fit on real values."""
        import muon

        imported("mofapy2")
        mdata = real_mudata(self.task)
        with tempfile.TemporaryDirectory() as folder:
            muon.tl.mofa(
                mdata,
                n_factors=self.task.n_factors,
                use_obs="union",
                seed=self.task.seed + 1,
                outfile=str(Path(folder) / "mofa.hdf5"),
                **self.task.options,
            )
        self._fitted, self._peak = mdata, peak_memory()

    def predict(self) -> dict[str, FactorAnswer]:
        """Factors that act somewhere; predictions are those of all factors."""
        mdata, source = self._fitted, self.task.mdata
        order = mdata.obs_names.get_indexer(source.obs_names)
        factors = np.asarray(mdata.obsm["X_mofa"])[order]
        stacked, weights, start = np.asarray(mdata.varm["LFs"]), {}, 0
        for name, part in mdata.mod.items():
            weights[name] = stacked[start : start + part.n_vars]
            start += part.n_vars
        variance = mdata.uns["mofa"]["variance"]
        shares = np.stack([np.asarray(variance[name]) for name in source.mod], axis=1) / 100
        return {"": linear_answer(self.task, factors, weights, shares)}

    def details(self) -> dict[str, Any]:
        """Largest memory of the fit."""
        return {"fit_peak_mib": self._peak}
