"""What barcodes that coincide by chance do to an atlas of unpaired assays.

RNA of one half of the cells of ``pbmc10k_cite``, protein of the other; some protein cells get the
name of an RNA cell. Written: the correlation (log1p, mean over proteins) of protein imputed from
RNA with what was measured, from those names alone and by ``tl.build_atlas``, without and with such
names.

    python -m tests.benchmarks.chance_names --names 11 --cells 3000
"""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import TYPE_CHECKING

import numpy as np
from mudata import MuData

from mosaicvi import MosaicVI, datasets, metrics, tl
from mosaicvi._errors import MosaicviWarning

if TYPE_CHECKING:
    from anndata import AnnData

LIKELIHOODS = {"rna": "zinb", "protein": "nb_mixture"}
TRAINING = {"enable_progress_bar": False}


def halves(n_cells: int, n_names: int, seed: int) -> tuple[AnnData, AnnData, np.ndarray]:
    """RNA of one half, protein of the other, and the measured protein of the first."""
    data = datasets.pbmc10k_cite()
    rows = np.random.default_rng(seed).permutation(data.n_obs)[:n_cells]
    first, second = np.sort(rows[: n_cells // 2]), np.sort(rows[n_cells // 2 :])
    rna, protein = data["rna"][first].copy(), data["protein"][second].copy()
    protein.obs_names = [*rna.obs_names[:n_names], *protein.obs_names[n_names:]]
    counts = data["protein"][first].X
    return rna, protein, np.log1p(np.asarray(getattr(counts, "todense", lambda: counts)()))


def correlation(model: MosaicVI, mdata: MuData, rna: AnnData, truth: np.ndarray) -> float:
    """Mean correlation over proteins, in cells whose name no protein cell has."""
    rows = mdata.obs_names.get_indexer(rna.obs_names)
    imputed = model.impute("protein", ["rna"], n_samples=25, indices=rows)
    alone = ~imputed.obs["measured"].to_numpy(dtype=bool)
    found = metrics.pearson(imputed.layers["log1p_mean"][alone], truth[alone])
    return float(np.nanmean(found))


def main() -> None:
    """Write a line a way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=11)
    parser.add_argument("--cells", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore", MosaicviWarning)
    for n_names in (0, given.names):
        rna, protein, truth = halves(given.cells, n_names, given.seed)
        mdata, model = tl.build_atlas(
            {"rna": rna, "protein": protein}, seed=given.seed, train_kwargs=TRAINING
        )
        found = correlation(model, mdata, rna, truth)
        sys.stdout.write(f"{n_names:4d} names, build_atlas: {found:.3f}\n")
    mdata = MuData({"rna": rna, "protein": protein})
    MosaicVI.setup_mudata(mdata, LIKELIHOODS)
    model = MosaicVI(mdata, seed=given.seed)
    model.train(**TRAINING)
    found = correlation(model, mdata, rna, truth)
    sys.stdout.write(f"{n_names:4d} names alone: {found:.3f}\n")


if __name__ == "__main__":
    main()
