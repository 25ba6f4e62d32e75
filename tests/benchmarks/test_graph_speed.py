"""Time and memory of a graph of 25,000 genes and 200,000 peaks (no time is asserted)."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from tests.graph_helpers import named

from mosaicvi.graph import GeneBody, Window, from_coordinates

N_GENES, N_PEAKS = 25_000, 200_000


@pytest.fixture(scope="module")
def genome():
    """Genes of 20 chromosomes of 130 Mb, and peaks of which a fifth lie at promoters."""
    rng = np.random.default_rng(0)
    start = rng.integers(10_000, 130_000_000, N_GENES)
    genes = pd.DataFrame(
        {
            "chrom": [f"chr{i}" for i in rng.integers(1, 21, N_GENES)],
            "start": start,
            "end": start + rng.lognormal(9.5, 1.3, N_GENES).astype(int) + 200,
            "strand": rng.choice(["+", "-"], N_GENES),
            "gene": [f"G{i}" for i in range(N_GENES)],
        }
    )
    at = genes.sample(N_PEAKS, replace=True, random_state=0)
    site = np.where(at["strand"] == "+", at["start"], at["end"]) + rng.integers(-500, 500, N_PEAKS)
    low = np.where(rng.random(N_PEAKS) < 0.2, site, rng.integers(10_000, 130_000_000, N_PEAKS))
    names = [f"{chrom}:{x}-{x + 500}" for chrom, x in zip(at["chrom"], low, strict=True)]
    return genes, named({"rna": list(genes["gene"]), "atac": list(dict.fromkeys(names))})


@pytest.mark.parametrize("rule", [GeneBody(), Window(100_000)])
def test_from_coordinates(benchmark, genome, rule):
    genes, mdata = genome
    graph = benchmark.pedantic(
        from_coordinates, (mdata,), {"annotation": genes, "rule": rule}, rounds=3
    )
    tracemalloc.start()
    from_coordinates(mdata, annotation=genes, rule=rule)
    benchmark.extra_info |= {
        "n_edges": graph.n_edges,
        "peak_MiB": round(tracemalloc.get_traced_memory()[1] / 2**20),
    }
    tracemalloc.stop()
