"""Library sizes told or not: ``python -m tests.benchmarks.library_sizes --data pbmc_mosaic``.

Fits once, and prints as JSON the scores of two answers: with library sizes as other modalities tell
them, and with those of any measured cell of the batch. Each is scored twice, by the point of
``impute`` and by the mean of the draws.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import replace

from mosaicvi.bm._imputation import Imputation
from mosaicvi.bm._input import Prediction
from mosaicvi.bm._score import score
from mosaicvi.bm.methods._mosaicvi import MosaicVIMethod
from mosaicvi.model._libraries import library_pools

SCORES = ("crps_log1p", "pearson", "rmse_log1p", "coverage_80%")


def main() -> None:
    """Fit, and answer both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=None, help="with --hide, or --train and --test")
    parser.add_argument("--train", default=None)
    parser.add_argument("--test", default=None)
    parser.add_argument("--source", default="protein")
    parser.add_argument("--target", default="rna")
    parser.add_argument("--hide", type=float, default=None)
    parser.add_argument("--hide-batch", default=None)
    parser.add_argument("--validate", type=float, default=None)
    parser.add_argument("--n-cells", type=int, default=None)
    parser.add_argument("--draws", dest="n_draws", type=int, default=100)
    parser.add_argument("--unpaired", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    asked = vars(parser.parse_args())
    warnings.simplefilter("ignore")
    seed = asked.pop("seed")
    task = Imputation(**asked, likelihoods={"atac": "poisson"}).task(seed)
    method = MosaicVIMethod(replace(task.public, options={"train.enable_progress_bar": False}))
    method.fit()
    model = method._model
    for sizes in ("told", "any"):
        if sizes == "any":
            model.library_pool = library_pools(model.adata_manager.data)
        answer = method._draws()
        for point in ("impute", "draws"):
            given = answer if point == "impute" else Prediction(answer.draws)
            scores = score(given, task.truth)
            found = {name: round(scores[name]["mean"], 4) for name in SCORES}
            within = scores["pearson"]["within_type"]
            found["pearson_in_type"] = None if within is None else round(within, 4)
            record = {**asked, "seed": seed, "sizes": sizes, "point": point, **found}
            sys.stdout.write(json.dumps(record) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
