"""What a third modality costs or brings: ``python -m tests.benchmarks.third_modality --seed 1``.

Genes of ``pbmc10k_cite`` are dealt to two modalities, at random, as if two assays had measured
them, and protein, which a quarter of the cells lack, is predicted there. Prints as JSON how well,
by the modalities that a fit saw and those that an answer was asked from. ``--share`` of the genes
are in the second modality, and ``--kept`` of their counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from mudata import MuData

import mosaicvi
from mosaicvi import metrics

if TYPE_CHECKING:
    from anndata import AnnData

TARGET = "protein"
FITS = {
    "first": (("first",),),
    "second": (("second",),),
    "both": (("first", "second"), ("first",), ("second",)),
}
"""Source modalities of a fit -> those that answers are asked from."""


def main() -> None:
    """Fit and score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-cells", type=int, default=4000)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--kept", type=float, default=0.2)
    parser.add_argument("--fits", default="first,second,both")
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--plan", type=json.loads, default={}, help="plan_kwargs of train")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    sources, protein, hidden = tables(asked.n_cells, asked.share, asked.kept, asked.seed)
    truth = np.log1p(protein[hidden].X.toarray())
    for fitted in asked.fits.split(","):
        names = sources if fitted == "both" else (fitted,)
        modalities = {name: sources[name].copy() for name in names}
        modalities[TARGET] = protein[~hidden].copy()
        mdata = MuData(modalities)
        mdata.obs["batch"] = "one"
        likelihoods = {**dict.fromkeys(names, "zinb"), TARGET: "nb_mixture"}
        mosaicvi.MosaicVI.setup_mudata(mdata, modalities=likelihoods, batch_key="batch")
        model = mosaicvi.MosaicVI(mdata, seed=asked.seed)
        model.train(enable_progress_bar=False, plan_kwargs=asked.plan)
        cells = mdata.obs_names.get_indexer(protein.obs_names[hidden])
        for evidence in FITS[fitted]:
            wanted = {
                "from_modalities": list(evidence),
                "indices": cells,
                "n_samples": asked.draws,
                "seed": 0,
            }
            draws = np.log1p(model.posterior_predictive_sample(TARGET, **wanted))
            mean = model.impute(TARGET, **wanted, quantiles=(), scale="log1p").X
            found = {**vars(asked), "fits": fitted, "from": evidence, **scores(draws, mean, truth)}
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()


def tables(
    n_cells: int, share: float, kept: float, seed: int
) -> tuple[dict[str, AnnData], AnnData, np.ndarray]:
    """Two modalities of genes, the proteins, and which cells lack these."""
    given = mosaicvi.datasets.pbmc10k_cite()
    rng = np.random.default_rng(seed)
    names = given.obs_names[rng.permutation(given.n_obs)[:n_cells]]
    rna, protein = (given[name][names].copy() for name in ("rna", TARGET))
    for table in (rna, protein):
        table.X, table.obs = sp.csr_matrix(table.X).astype(np.float32), pd.DataFrame(index=names)
    genes = rng.permutation(rna.n_vars)
    n_first = round((1 - share) * rna.n_vars)
    first, second = (rna[:, np.sort(part)].copy() for part in np.split(genes, [n_first]))
    second.X.data = rng.binomial(second.X.data.astype(int), kept).astype(np.float32)
    second.X.eliminate_zeros()
    return {"first": first, "second": second}, protein, np.arange(n_cells) < n_cells // 4


def scores(draws: np.ndarray, mean: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Of one answer, on log1p."""
    low, high = np.quantile(draws, (0.1, 0.9), axis=0)
    found = {
        "crps": np.mean(metrics.crps_from_samples(draws, truth)),
        "pearson": np.mean(metrics.pearson(np.asarray(mean), truth)),
        "rmse": np.mean(metrics.rmse(np.asarray(mean), truth)),
        "within_80": np.mean((truth >= low) & (truth <= high)),
    }
    return {key: round(float(value), 4) for key, value in found.items()}


if __name__ == "__main__":
    main()
