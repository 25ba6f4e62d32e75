"""A fit of genes and accessible regions of the same cells: what its latent space tells of types.

Cells of ``snareseq_cortex``, paired. Written for each seed: the epoch kept and how many there were,
the validation objective, validation nats of each modality, how often 15 nearest neighbours know a
cell's type (five folds) in the joint latent space and from either modality, FOSCTTM of the
modalities' own embeddings; and the same of principal components of the genes (20) and of
latent semantic indexing of the regions (40), that no fit should fall behind.

    python -m tests.benchmarks.paired_regions --cells 6000 --seeds 1,2
    python -m tests.benchmarks.paired_regions --cells 6000 --plan '{"feature_rate": 4.0}'
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import scanpy as sc
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from mosaicvi import MosaicVI, datasets, metrics

if TYPE_CHECKING:
    from mudata import MuData


def some_cells(n_cells: int, seed: int) -> MuData:
    """A random part of the cells."""
    data = datasets.snareseq_cortex()
    rows = np.random.default_rng(seed).permutation(data.n_obs)[:n_cells]
    return data[np.sort(rows)].copy()


def known(points: np.ndarray, types: np.ndarray) -> str:
    """Share of cells whose type their neighbours know."""
    return f"{cross_val_score(KNeighborsClassifier(15), points, types, cv=5).mean():.3f}"


def trivial(data: MuData, types: np.ndarray) -> str:
    """Types from components of each modality."""
    genes = data["rna"].copy()
    sc.pp.normalize_total(genes, target_sum=1e4)
    sc.pp.log1p(genes)
    sc.pp.scale(genes, max_value=10)
    sc.pp.pca(genes, n_comps=20, random_state=0)
    indexed = TfidfTransformer().fit_transform(data["atac"].X)
    regions = TruncatedSVD(41, random_state=0).fit_transform(indexed)[:, 1:]
    return f"components: genes {known(genes.obsm['X_pca'], types)}, regions {known(regions, types)}"


def fitted(data: MuData, types: np.ndarray, seed: int, given: argparse.Namespace) -> str:
    """Fit, and what came of it."""
    likelihoods = {"rna": "zinb", "atac": given.likelihood}
    if given.likelihood == "bernoulli":
        data["atac"].X = (data["atac"].X > 0).astype(np.float32)
    MosaicVI.setup_mudata(data, likelihoods, batch_key="batch")
    model = MosaicVI(data, seed=seed)
    start = time.process_time()
    fit = model.train(given.epochs, plan_kwargs=json.loads(given.plan), enable_progress_bar=False)
    seconds = time.process_time() - start
    spaces = {
        "joint": model.get_latent_representation(),
        "genes": model.get_latent_representation(from_modalities=["rna"]),
        "regions": model.get_latent_representation(from_modalities=["atac"]),
    }
    nats = model.get_reconstruction_error(indices=model.validation_indices_)
    return ", ".join(
        [
            f"epoch {fit.best_epoch + 1} of {fit.n_epochs}",
            f"objective {model.history['validation_loss'].to_numpy().min():.1f}",
            *(f"nats {name} {value:.1f}" for name, value in nats.items()),
            *(f"types {name} {known(points, types)}" for name, points in spaces.items()),
            f"FOSCTTM {metrics.foscttm(spaces['genes'], spaces['regions']):.3f}",
            f"{seconds:.0f} processor s",
        ]
    )


def main() -> None:
    """Write two lines a seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=6000)
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--likelihood", default="poisson", choices=["poisson", "bernoulli"])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--plan", default="{}", help="plan_kwargs as JSON")
    given = parser.parse_args()
    for seed in (int(each) for each in given.seeds.split(",")):
        data = some_cells(given.cells, seed)
        types = data.obs["cell_type"].astype(str).to_numpy()
        sys.stdout.write(f"seed {seed}, {trivial(data, types)}\n")
        sys.stdout.write(f"seed {seed}, {fitted(data, types, seed, given)}\n")


if __name__ == "__main__":
    main()
