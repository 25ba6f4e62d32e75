"""Protein of cells that have RNA alone: ``python -m tests.benchmarks.carried_over --help``.

Some cells of a data set keep RNA and protein, half of the others RNA, half protein. Prints as JSON,
for the protein of those with RNA alone, the CRPS and Pearson correlation of log1p and the share
that 80 % intervals hold: of the default answers (``now``), of counterparts alone on the scale of
the third cell and without doubt, of each cell's own posterior (``as_trained``), and of the protein
of any cell; with ``--nearest 10,40``, of counterparts without doubt on the scale of these cells.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import replace

import mudata
import numpy as np
import scipy.sparse as sp

from mosaicvi import MosaicVI, datasets, graph, metrics
from mosaicvi.model._counterparts import Apart

N_DRAWS = 100
LIKELIHOODS = {"rna": "zinb", "protein": "nb_mixture"}


def dense(values: object) -> np.ndarray:
    """As a log1p array, ``(n_cells, n_proteins)``."""
    return np.log1p(values.toarray() if sp.issparse(values) else np.asarray(values))


def scores(draws: np.ndarray, truth: np.ndarray) -> list[float]:
    """Means over proteins of CRPS, Pearson correlation and what 80 % intervals hold."""
    pit = metrics.randomised_pit(draws, truth)
    found = (
        metrics.crps_from_samples(draws, truth).mean(),
        np.nanmean(metrics.pearson(draws.mean(0), truth)),
        metrics.coverage(pit, (0.8,))[0].mean(),
    )
    return [round(float(each), 4) for each in found]


def main() -> None:
    """Fit once, and answer in several ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=("pbmc10k_cite", "pbmc_mosaic"))
    parser.add_argument("--cells", type=int, default=3000, help="cells with both that are drawn")
    parser.add_argument("--pairs", type=float, default=0.0, help="share that keeps both")
    parser.add_argument("--proteins", type=int, default=None, help="proteins drawn; default: all")
    parser.add_argument("--no-graph", action="store_true", help="pairs alone")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nearest", default="", help="cells whose distances are to be the scale")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    rng = np.random.default_rng((given.seed, given.proteins or 0))
    whole = getattr(datasets, given.data)()
    rna, protein = whole["rna"], whole["protein"]
    cells = rna.obs_names.intersection(protein.obs_names)
    cells = cells[rng.permutation(len(cells))[: given.cells]]
    pairs, rest = np.split(cells, [round(given.pairs * len(cells))])
    kept = np.arange(protein.n_vars)
    if given.proteins is not None:
        kept = np.sort(rng.choice(protein.n_vars, given.proteins, replace=False))
    parts = {
        "rna": rna[np.concatenate([pairs, rest[::2]])].copy(),
        "protein": protein[np.concatenate([pairs, rest[1::2]]), kept].copy(),
    }
    mdata = mudata.MuData(parts)
    mdata.obs["batch"] = (
        whole.obs["batch"].reindex(mdata.obs_names).astype(str) if "batch" in whole.obs else "0"
    )
    MosaicVI.setup_mudata(mdata, LIKELIHOODS, batch_key="batch")
    links = None if given.no_graph else graph.from_names(mdata, "rna", "protein")
    model = MosaicVI(mdata, graph=links, seed=given.seed)
    n_epochs = model.train(given.epochs, enable_progress_bar=False).n_epochs
    truth = dense(protein[rest[::2]].X)[:, kept]
    counterparts = model.counterparts
    undoubted = {
        name: replace(each, apart={other: Apart() for other in each.apart})
        for name, each in counterparts.items()
    }
    found = {}
    answers = {"now": counterparts, "counterparts": undoubted, "as_trained": {}}
    for k in filter(None, given.nearest.split(",")):
        answers[f"nearest_{k}"] = {
            name: replace(
                each, apart={other: Apart(spread=int(k) / len(each.places)) for other in each.apart}
            )
            for name, each in counterparts.items()
        }
    for name, model.counterparts in answers.items():
        draws = model.posterior_predictive_sample(
            "protein",
            ["rna"],
            indices=mdata.obs_names.get_indexer(rest[::2]),
            n_samples=N_DRAWS,
        )
        found[name] = scores(np.log1p(draws), truth)
    any_cell = dense(parts["protein"].X)
    found["any_cell"] = scores(
        any_cell[rng.integers(len(any_cell), size=(N_DRAWS, len(truth)))], truth
    )
    arguments = {name: value for name, value in vars(given).items() if name != "nearest"}
    row = {**arguments, "n_pairs": len(pairs), "n_epochs": n_epochs, **found}
    if links is not None and len(model.module.aligned):
        table = model.get_link_agreement()
        row |= {"links": len(table), "agreement": round(float(table["correlation"].mean()), 3)}
    sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
