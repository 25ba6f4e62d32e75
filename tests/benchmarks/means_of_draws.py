"""Error of means of draws: ``python -m tests.benchmarks.means_of_draws --data pbmc_mosaic``.

Prints as JSON, by the number of draws, the root mean square error of the mean of log1p against the
mean of very many other draws: as the draws have it, and freed of count noise as ``impute`` does.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import replace

import torch

from mosaicvi.bm._imputation import Imputation
from mosaicvi.bm.methods._mosaicvi import MosaicVIMethod
from mosaicvi.model._summaries import mean_of

N_CELLS, N_TRIES = 150, 3
DRAWS, REFERENCE, PARTS = (10, 25, 100), 400, 6


def main() -> None:
    """Fit and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="pbmc_mosaic")
    parser.add_argument("--source", default="rna")
    parser.add_argument("--target", default="protein")
    parser.add_argument("--n-cells", type=int, default=None)
    parser.add_argument("--seed", type=int, default=1)
    asked = vars(parser.parse_args())
    warnings.simplefilter("ignore")
    seed = asked.pop("seed")
    task = Imputation(**asked, hide=0.25, validate=0.25).task(seed).public
    method = MosaicVIMethod(replace(task, options={"train.enable_progress_bar": False}))
    method.fit()
    cells = task.mdata.obs_names.get_indexer(list(task.query))[:N_CELLS]

    def draw(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Counts and means of the likelihood; cells come in the same order each time."""
        request = method._model._request(task.target, [task.source], number, None, None)
        chunks = list(method._model._sampler(None, seed).predictive(cells, request))
        counts = torch.cat([chunk.counts() for chunk in chunks], 1)
        means = [chunk.mean().expand(number, len(chunk.places), -1) for chunk in chunks]
        return counts, torch.cat(means, 1)

    parts = [torch.log1p(draw(REFERENCE, 100 + part)[0]).mean(0) for part in range(PARTS)]
    wanted = torch.stack(parts).mean(0)
    for number in DRAWS:
        plain, freed = [], []
        for attempt in range(N_TRIES):
            counts, means = draw(number, attempt)
            logs = torch.log1p(counts)
            plain.append((logs.mean(0) - wanted).square().mean())
            freed.append((mean_of(logs, counts, means, "log1p") - wanted).square().mean())
        found = {
            name: round(float(torch.stack(errors).mean().sqrt()), 4)
            for name, errors in (("plain", plain), ("freed", freed))
        }
        sys.stdout.write(json.dumps({**asked, "seed": seed, "draws": number, **found}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
