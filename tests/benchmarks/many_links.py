"""Many links, and what labels are worth: ``python -m tests.benchmarks.many_links GENES PEAKS``.

RNA of some cells of ``snareseq_cortex`` and accessibility of others, of the commonest regions and
the genes linked to them. Prints as JSON how far links that are left out in turn agree
(``get_link_agreement``), its mean over its standard error, and how many cells
``tl.transfer_labels`` answers after a fit at defaults, how sure it is of these and how many are
right; beside it the share of the most frequent label.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from typing import TYPE_CHECKING

import numpy as np
from mudata import MuData

from mosaicvi import MosaicVI, datasets, graph, tl

if TYPE_CHECKING:
    from mosaicvi.graph import FeatureGraph

LABEL = "type"


def parts(genes: int, peaks: int, n_cells: int, seed: int) -> tuple[MuData, FeatureGraph]:
    """RNA and accessibility of ``n_cells`` cells each, set up, with types, and their links."""
    mdata = datasets.snareseq_cortex()
    cells = np.random.default_rng(seed).permutation(mdata.n_obs)[: 2 * n_cells]
    rna = mdata["rna"][cells[:n_cells]].copy()
    atac = mdata["atac"][cells[n_cells:]].copy()
    open_in = np.asarray((atac.X > 0).sum(0)).ravel()
    atac = atac[:, np.sort(np.argsort(-open_in)[:peaks])].copy()
    links = mdata.uns["links"]
    links = links[links["target"].isin(atac.var_names)]
    seen_in = np.asarray((rna.X > 0).sum(0)).ravel()
    first = np.lexsort((-seen_in, ~rna.var_names.isin(links["source"])))
    rna = rna[:, np.sort(first[:genes])].copy()
    for table in (rna, atac):
        for key, column in ((LABEL, "cell_type"), ("batch", "batch")):
            table.obs[key] = mdata.obs[column].reindex(table.obs_names).astype(str)
    joined = MuData({"rna": rna, "atac": atac})
    MosaicVI.setup_mudata(
        joined, {"rna": "nb", "atac": "poisson"}, batch_key={"rna": "batch", "atac": "batch"}
    )
    columns = {key: key for key in ("source", "target", "weight", "sign")}
    known = links[links["source"].isin(rna.var_names)]
    return joined, graph.from_table(joined, known, "rna", "atac", **columns)


def main() -> None:
    """Fit one subset of genes and regions and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("genes", type=int)
    parser.add_argument("peaks", type=int)
    parser.add_argument("--n-cells", type=int, default=1500, help="of each modality")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    joined, known = parts(given.genes, given.peaks, given.n_cells, given.seed)
    atac = joined["atac"]
    model = MosaicVI(joined, graph=known, seed=given.seed)
    agreed = model.get_link_agreement()["correlation"].dropna()
    model.train(enable_progress_bar=False)
    tl.transfer_labels(model, LABEL, source="rna", target="atac")
    said = joined.obs.loc[atac.obs_names]
    label = said[f"mosaicvi_{LABEL}"].astype(object)
    answered = label.notna().to_numpy()
    right = label.to_numpy() == atac.obs[LABEL].to_numpy()
    sure = said[f"mosaicvi_{LABEL}_probability"].to_numpy()
    found = {
        "links": len(agreed),
        "agreement": agreed.mean(),
        "standard_errors": agreed.mean() / agreed.sem(),
        "answered": answered.mean(),
        "probability": sure[answered].mean() if answered.any() else None,
        "right": right[answered].mean() if answered.any() else None,
        "most_frequent": atac.obs[LABEL].value_counts(normalize=True).iloc[0],
    }
    rounded = {k: v if v is None else round(float(v), 4) for k, v in found.items()}
    sys.stdout.write(json.dumps({**vars(given), **rounded}) + "\n")


if __name__ == "__main__":
    main()
