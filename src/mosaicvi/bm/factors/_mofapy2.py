"""MOFA+ by mofapy2, as muon calls it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from anndata import AnnData
from mudata import MuData

from mosaicvi.bm._factor_input import FactorAnswer, FactorInput
from mosaicvi.bm._load import quiet_mudata
from mosaicvi.bm._method import BaseMethod
from mosaicvi.bm.factors import ACTIVE
from mosaicvi.bm.factors._values import real_values


class Mofapy2(BaseMethod[FactorInput, FactorAnswer]):
    """``muon.tl.mofa`` at its defaults; counts as log1p of shares, missing cells as such."""

    name = "mofapy2"
    packages = ("mofapy2", "muon")

    def fit(self) -> None:
        """Fit on real values."""
        import muon

        source = self.task.mdata
        parts = {}
        for name, part in source.mod.items():
            values = real_values(self.task, name)
            parts[name] = AnnData(values, part.obs[[]].copy(), part.var[[]].copy())
        with quiet_mudata():
            mdata = MuData(parts)
        with tempfile.TemporaryDirectory() as folder:
            muon.tl.mofa(
                mdata,
                n_factors=self.task.n_factors,
                use_obs="union",
                seed=self.task.seed + 1,
                outfile=str(Path(folder) / "mofa.hdf5"),
            )
        order = mdata.obs_names.get_indexer(source.obs_names)
        variance = mdata.uns["mofa"]["variance"]
        activity = np.stack([np.asarray(variance[name]) for name in source.mod], axis=1)
        active = activity >= 100 * ACTIVE
        kept = active.any(1)
        self._answer = FactorAnswer(np.asarray(mdata.obsm["X_mofa"])[order][:, kept], active[kept])

    def predict(self) -> dict[str, FactorAnswer]:
        """Factors that act somewhere."""
        return {"": self._answer}
