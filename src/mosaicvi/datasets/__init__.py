"""Real mosaic datasets, fetched from pinned public addresses, and simulated ones."""

from mosaicvi.datasets._pbmc10k import pbmc5k_rna, pbmc10k_cite
from mosaicvi.datasets._pbmc_mosaic import pbmc_mosaic
from mosaicvi.datasets._simulate import simulate, simulate_cite
from mosaicvi.datasets._simulated_modality import SimulatedModality
from mosaicvi.datasets._sln import sln_unpaired
from mosaicvi.datasets._snareseq import snareseq_cortex
from mosaicvi.datasets._truth import true_mean

__all__ = [
    "SimulatedModality",
    "pbmc5k_rna",
    "pbmc10k_cite",
    "pbmc_mosaic",
    "simulate",
    "simulate_cite",
    "sln_unpaired",
    "snareseq_cortex",
    "true_mean",
]
