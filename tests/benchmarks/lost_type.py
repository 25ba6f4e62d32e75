"""A type without the answer in training: ``python -m tests.benchmarks.lost_type TYPE --seed 0``.

Cells of ``pbmc_mosaic`` with both assays; protein is taken from four in ten and from all cells of
the type (or of several, ``CD8 T,NK``). Prints as JSON how ``tl.imputation_support`` tells these
from the other cells without protein (AUROC), which share of either has less than .05, and what
90 % intervals hold of the values of either, and of cells with less and with more than that.
``--query``: cells without protein are left out of training, too. ``--batch``: so are all cells of a
batch, which are the only ones asked about; without a type none is lost, and a share of .05 below
.05 would be right.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings

import numpy as np
import scipy.sparse as sp
from mudata import MuData

from mosaicvi import MosaicVI, datasets, metrics, tl

LEAST = 0.05


def main() -> None:
    """Fit once and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="?", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--query", action="store_true")
    parser.add_argument("--batch", help="the batch that is asked about, with --query")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    mdata = datasets.pbmc_mosaic()
    names = mdata["rna"].obs_names.intersection(mdata["protein"].obs_names)
    rng = np.random.default_rng(given.seed)
    names = names[rng.permutation(len(names))]
    types = mdata.obs["cell_type"].reindex(names).astype(str).to_numpy()
    lost = np.isin(types, given.types.split(","))
    hidden = lost | (rng.random(len(names)) < 0.4)
    asked = hidden
    if given.batch:
        asked = mdata.obs["batch"].reindex(names).astype(str).to_numpy() == given.batch
        hidden = lost | asked
    rna = mdata["rna"][names[~hidden] if given.query else names].copy()
    training = MuData({"rna": rna, "protein": mdata["protein"][names[~hidden]].copy()})
    MosaicVI.setup_mudata(training, {"rna": "zinb", "protein": "nb_mixture"})
    model = MosaicVI(training, seed=given.seed)
    model.train(enable_progress_bar=False)
    lost, asked = lost[asked], names[asked]
    cells = MuData({"rna": mdata["rna"][asked].copy()})
    tl.imputation_support(model, "protein", adata=cells)
    support = cells.obs.loc[asked, "mosaicvi_support_protein"].to_numpy()
    draws = np.log1p(
        model.posterior_predictive_sample("protein", ["rna"], adata=cells, n_samples=100)
    )
    draws = draws[:, cells.obs_names.get_indexer(asked)]
    truth = mdata["protein"][asked].X
    truth = np.log1p(truth.toarray() if sp.issparse(truth) else truth)
    pit = metrics.randomised_pit(draws, truth.astype(draws.dtype))
    held = (pit >= LEAST) & (pit <= 1 - LEAST)
    low = support < LEAST
    found = {
        "lost": int(lost.sum()),
        "others": int((~lost).sum()),
        "auroc": metrics.auc(-support, lost) if lost.any() else np.nan,
        "low_lost": low[lost].mean(),
        "low_others": low[~lost].mean(),
        "held_lost": held[lost].mean(),
        "held_others": held[~lost].mean(),
        "held_low": held[low].mean(),
        "held_rest": held[~low].mean(),
    }
    rounded = {
        key: round(float(value), 4) if np.isfinite(value) else None for key, value in found.items()
    }
    sys.stdout.write(json.dumps({**vars(given), **rounded}) + "\n")


if __name__ == "__main__":
    main()
