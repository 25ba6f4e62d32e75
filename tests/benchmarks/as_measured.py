"""Intervals on another laboratory's counts: ``python -m tests.benchmarks.as_measured --seed 0``.

Prints as JSON, each way between the two data sets of blood cells, the share of counts as measured
that intervals of 50, 80 and 95 % hold, and that of 80 % by protein, in ascending order. The model
trains without the query; no change of unit is made.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import replace

import numpy as np

from mosaicvi import metrics
from mosaicvi.bm._imputation import Imputation
from mosaicvi.bm.methods._mosaicvi import MosaicVIMethod

WAYS = (("pbmc10k_cite", "pbmc_mosaic"), ("pbmc_mosaic", "pbmc10k_cite"))
LEVELS = (0.5, 0.8, 0.95)


def main() -> None:
    """Fit and answer, each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for train, test in WAYS:
        task = Imputation(source="rna", target="protein", data=None, train=train, test=test).task(
            given.seed
        )
        options = {"query_cells": False, "train.enable_progress_bar": False}
        method = MosaicVIMethod(replace(task.public, options=options))
        method.fit()
        draws = method.predict()[""].draws
        pit = metrics.randomised_pit(draws, task.truth.measured.astype(np.float32))
        covered = metrics.coverage(pit, LEVELS)
        found = {
            "train": train,
            "test": test,
            "seed": given.seed,
            "covered": covered.mean(axis=1).round(3).tolist(),
            "by_protein_80": np.sort(covered[1]).round(2).tolist(),
        }
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
