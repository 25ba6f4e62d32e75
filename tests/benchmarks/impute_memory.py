"""Memory of an imputation with 100 draws: ``python tests/benchmarks/impute_memory.py CELLS``.

224 proteins. Prints the resident set before and at its highest, beside what the answer takes.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import warnings

import anndata
import mudata
import numpy as np
import scipy.sparse as sp

import mosaicvi

N_GENES, N_PROTEINS, N_PAIRED = 200, 224, 3_000


def atlas(n_cells: int) -> mudata.MuData:
    """RNA of all cells, protein of the first few thousand."""
    rng = np.random.default_rng(0)
    names = np.array([f"cell{i:07d}" for i in range(n_cells)])
    rates = rng.gamma(0.5, size=(10, N_GENES + N_PROTEINS)) * np.where(
        np.arange(N_GENES + N_PROTEINS) < N_GENES, 1.0, 10.0
    )
    counts = rng.poisson(rates[rng.integers(10, size=n_cells)]).astype(np.float32)
    rna = anndata.AnnData(sp.csr_matrix(counts[:, :N_GENES]))
    protein = anndata.AnnData(sp.csr_matrix(counts[:N_PAIRED, N_GENES:]))
    rna.obs_names, protein.obs_names = names, names[:N_PAIRED]
    rna.var_names = [f"gene{i}" for i in range(N_GENES)]
    protein.var_names = [f"protein{i}" for i in range(N_PROTEINS)]
    return mudata.MuData({"rna": rna, "protein": protein})


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", type=int)
    parser.add_argument("--draws", type=int, default=100)
    given = parser.parse_args()
    mdata = atlas(given.cells)
    mosaicvi.MosaicVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    model = mosaicvi.MosaicVI(mdata)
    model.train(2, indices=np.arange(N_PAIRED), accelerator="cpu", enable_progress_bar=False)
    model.get_latent_representation()
    before, start, cpu = peak_mib(), time.perf_counter(), time.process_time()
    answer = model.impute("protein", from_modalities=["rna"], n_samples=given.draws)
    arrays = [answer.X, *(answer.layers[name] for name in answer.layers if name is not None)]
    row = {
        "n_cells": given.cells,
        "n_draws": given.draws,
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - cpu,
        "answer_mib": sum(array.nbytes for array in arrays) / 2**20,
        "before_mib": before,
        "peak_mib": peak_mib(),
    }
    sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
