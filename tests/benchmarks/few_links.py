"""Alignment by fewer and fewer links: ``python -m tests.benchmarks.few_links DATA PROTEINS SEED``.

Some proteins of ``pbmc_mosaic`` or ``sln_unpaired`` are drawn, and the others left out; no cell has
both modalities (of those of ``pbmc_mosaic`` that do, half keep RNA, half protein). Prints as
JSON how many features the graph links, how far those left out in turn agree
(``get_link_agreement``), how labels of RNA cells fit protein cells after a fit, and the share of
the most frequent label.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi import datasets, metrics, tl

if TYPE_CHECKING:
    from anndata import AnnData

MOST_CELLS = 2_500
"""Cells of each modality that are drawn of ``sln_unpaired``."""


def assays(name: str, n_proteins: int, rng: np.random.Generator) -> dict[str, AnnData]:
    """RNA and some proteins of cells of which none has both."""
    mdata = getattr(datasets, name)()
    both = {key: mdata[key].copy() for key in ("rna", "protein")}
    for key, table in both.items():
        table.obs["type"] = mdata.obs["cell_type"].reindex(table.obs_names).astype(str)
        if "is_type" in mdata.obs:
            both[key] = table[mdata.obs["is_type"].reindex(table.obs_names).to_numpy(bool)].copy()
    shared = both["rna"].obs_names.intersection(both["protein"].obs_names)
    halves = rng.permutation(len(shared)) % 2 == 0
    for key, leaves in (("rna", shared[halves]), ("protein", shared[~halves])):
        table = both[key][~both[key].obs_names.isin(leaves)]
        drawn = np.sort(rng.permutation(table.n_obs)[:MOST_CELLS])
        both[key] = table[drawn].copy()
    kept = np.sort(rng.choice(both["protein"].n_vars, n_proteins, replace=False))
    both["protein"] = both["protein"][:, kept].copy()
    return both


def main() -> None:
    """Fit one subset of proteins and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=("pbmc_mosaic", "sln_unpaired"))
    parser.add_argument("proteins", type=int)
    parser.add_argument("seed", type=int)
    given = parser.parse_args()
    both = assays(given.data, given.proteins, np.random.default_rng((given.seed, given.proteins)))
    mdata, model = tl.build_atlas(both, batch_key="batch", seed=given.seed)
    found = model.get_link_agreement()
    latents = {
        key: model.get_latent_representation(
            from_modalities=[key], indices=mdata.obs_names.get_indexer(table.obs_names)
        )
        for key, table in both.items()
    }
    types = {key: table.obs["type"].to_numpy(str) for key, table in both.items()}
    answer = metrics.label_transfer(
        latents["rna"], types["rna"], latents["protein"], types["protein"]
    )
    most = max(np.unique(types["protein"], return_counts=True)[1]) / len(types["protein"])
    result = {
        **vars(given),
        "links": len(found),
        "agreement": round(float(found["correlation"].mean()), 4),
        "accuracy": round(answer.accuracy.plain, 4),
        "balanced": round(answer.accuracy.balanced, 4),
        "most_frequent": round(float(most), 4),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
