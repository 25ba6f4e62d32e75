"""The factor comparison: simulated data whose factors are known."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi import datasets
from mosaicvi.bm._cells import bare_tables
from mosaicvi.bm._factor_input import FactorAnswer, FactorInput
from mosaicvi.bm._input import REPORT, prediction_path
from mosaicvi.bm._load import combine
from mosaicvi.datasets import SimulatedModality
from mosaicvi.factor._stability import match

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mudata import MuData

Drawn = tuple["MuData", dict[str, str], np.ndarray, np.ndarray, np.ndarray]
"""Data, likelihoods, factors ``(n_cells, n_factors)``, activity, log depth ``(n_cells,)``."""

COUNT_ACTIVITY = {"rna": (0, 1, 2, 4), "atac": (0, 1, 3, 5)}
"""Two factors act in both modalities, two in either alone."""


def draw_counts(n_cells: int, missing: float, seed: int) -> Drawn:
    """Genes and peaks from the package's own generator, with sparse embeddings."""
    rna = replace(
        SimulatedModality.rna(400, likelihood="nb"),
        factors=COUNT_ACTIVITY["rna"], density=0.4, depth_sd=0.6, signal_sd=1.2,
        depth=1500.0, abundance=(0.0, 1.2),
    )  # fmt: skip
    atac = replace(
        SimulatedModality.atac(400, linked_to=None),
        factors=COUNT_ACTIVITY["atac"], density=0.4, depth_sd=0.6, signal_sd=1.2,
    )  # fmt: skip
    patterns = {"rna+atac": 1 - missing, "rna": missing / 2, "atac": missing / 2}
    patterns = {name: share for name, share in patterns.items() if share > 0}
    mdata = datasets.simulate(
        n_cells, {"rna": rna, "atac": atac}, patterns=patterns, batches=1,
        n_latent=6, n_types=0, seed=seed,
    )  # fmt: skip
    activity = np.stack([np.isin(range(6), COUNT_ACTIVITY[name]) for name in mdata.mod], axis=1)
    depth = np.log(mdata.obs["truth_library_rna"].to_numpy())
    likelihoods = {"rna": "nb", "atac": "poisson"}
    bare = combine(bare_tables(mdata, likelihoods), mdata.obs[[]])
    z = np.asarray(mdata.obsm["truth_z"])[mdata.obs_names.get_indexer(bare.obs_names)]
    return bare, likelihoods, z, activity, depth


def draw_mofa(n_cells: int, missing: float, seed: int) -> Drawn:
    """Continuous values from mofapy2's own generator: three views, four factors."""
    from anndata import AnnData
    from mofapy2.simulate.simulate_mofa import simulate_data

    names = ("view1", "view2", "view3")
    drawn = simulate_data(
        N=n_cells, seed=seed, views=list(names), D=[500, 200, 500], K=4,
        lscales=[0.0] * 4, scales=[0.0] * 4,
    )  # fmt: skip
    cells = np.array([f"cell{number:05d}" for number in range(n_cells)])
    rng = np.random.default_rng(seed)
    lacking = rng.choice(n_cells, round(missing * n_cells), replace=False)
    parts = {}
    for name, (values,) in zip(names, drawn["data"], strict=True):
        keep = np.ones(n_cells, dtype=bool)
        if name == names[-1]:
            keep[lacking] = False
        adata = AnnData(values[keep].astype(np.float32))
        adata.obs_names = cells[keep]
        adata.var_names = [f"{name}-{number}" for number in range(adata.n_vars)]
        parts[name] = adata
    import pandas as pd

    mdata = combine(parts, pd.DataFrame(index=pd.Index(cells)))
    # An inactive factor has weights of standard deviation 1 / sqrt(1000), half of them zero.
    activity = np.stack([np.sqrt((w**2).mean(0)) > 0.1 for w in drawn["W"]], axis=1)
    z = drawn["Z"][0][[int(cell[4:]) for cell in mdata.obs_names.astype(str)]]
    return mdata, dict.fromkeys(names, "normal"), z, activity, np.zeros(0)


GENERATORS: dict[str, Callable[[int, float, int], Drawn]] = {
    "counts": draw_counts,
    "mofa": draw_mofa,
}


@dataclass(frozen=True)
class FactorTask:
    """One seed. See :class:`mosaicvi.bm.Task`."""

    public: FactorInput
    factors: np.ndarray
    activity: np.ndarray
    log_depth: np.ndarray

    def write_input(
        self, folder: Path, *, options: dict[str, Any], method: str = "", name: str = ""
    ) -> None:
        """Write the data and the settings."""
        del method, name
        replace(self.public, options=options).write(folder)

    def score(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Score each variant that the worker left."""
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return {
            variant: self.compare(FactorAnswer.read(prediction_path(folder, variant)))
            for variant in report["variants"]
        }

    def compare(self, answer: FactorAnswer) -> dict[str, Any]:
        """Match found and true factors by absolute correlation, one to one, best in sum.

        A true factor without a partner counts zero. Activity is exact where all true factors have
        partners of the same pattern, and no other factor was found.
        """
        found, truth = answer.factors, self.factors
        partner, best = match(truth, found)
        same = truth.shape[1] == found.shape[1] and bool(
            (answer.activity[partner] == self.activity).all()
        )
        depth = None
        if len(self.log_depth):
            depth = max(abs(float(np.corrcoef(f, self.log_depth)[0, 1])) for f in found.T)
        return {
            "matched_correlation": float(best.mean()),
            "worst_correlation": float(best.min()),
            "activity_exact": float(same),
            "n_factors": int(found.shape[1]),
            "depth_correlation": depth,
        }

    def describe(self) -> dict[str, Any]:
        """Numbers of cells, features and true factors."""
        mdata = self.public.mdata
        return {
            "n_cells": int(mdata.n_obs),
            "n_features": {name: int(part.n_vars) for name, part in mdata.mod.items()},
            "n_true_factors": int(self.factors.shape[1]),
            "reachable_correlation": self.reachable(),
        }

    def reachable(self) -> float:
        """What matched correlation comes to if all is known that the cells show.

        Mean correlation of true factors with themselves, where those of cells without any modality
        that a factor acts in are at their mean.
        """
        mdata = self.public.mdata
        has = np.stack([mdata.obs_names.isin(part.obs_names) for part in mdata.mod.values()], 1)
        found = []
        for factor, acts in zip(self.factors.T, self.activity, strict=True):
            shown = np.where(has[:, acts].any(1), factor, factor.mean())
            found.append(float(np.corrcoef(factor, shown)[0, 1]))
        return float(np.mean(found))


@dataclass(frozen=True)
class Factors:
    """Find the factors of simulated data.

    Parameters
    ----------
    generator
        ``"counts"`` (this package's) or ``"mofa"`` (mofapy2's).
    n_cells
        Cells; None: 1,000 for counts, 200 for mofapy2's.
    missing
        Share of cells that lack one modality.
    n_factors
        Factors that methods start with.
    """

    generator: str
    n_cells: int | None = None
    missing: float = 0.0
    n_factors: int = 10

    name = "factors"

    @property
    def setting(self) -> str:
        """Generator and share of missing modalities."""
        return f"{self.generator}, missing={self.missing:g}"

    def describe(self) -> dict[str, Any]:
        """Every setting; goes into the record."""
        return asdict(self)

    def task(self, seed: int) -> FactorTask:
        """Draw the data of a seed."""
        n_cells = self.n_cells or (200 if self.generator == "mofa" else 1000)
        mdata, likelihoods, z, activity, depth = GENERATORS[self.generator](
            n_cells, self.missing, seed
        )
        public = FactorInput(mdata, likelihoods, self.n_factors, seed)
        return FactorTask(public, z, activity, depth)
