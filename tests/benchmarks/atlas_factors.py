"""Fit FactorVI to an atlas on disk: ``python -m tests.benchmarks.atlas_factors PATH``.

A whole fit at the defaults, then factors of every cell. Prints one JSON row: seconds and processor
seconds of each part, the largest resident set after it, cells a second.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any


def measure(path: Path, place: str, n_factors: int, seed: int) -> dict[str, Any]:
    """Set up, build, train and embed."""
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {"file": path.name, "place": place, "seed": seed}
    start = [time.perf_counter(), time.process_time()]
    import mudata

    import mosaicvi

    def lap(name: str) -> None:
        now = [time.perf_counter(), time.process_time()]
        found[f"{name}_s"], found[f"{name}_cpu_s"] = now[0] - start[0], now[1] - start[1]
        found[f"{name}_peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stderr.write(f"{path.name}, {place}: {name} {found[f'{name}_s']:.1f} s\n")
        start[:] = now

    lap("import")
    mdata = mosaicvi.read_lazy(path) if place == "disk" else mudata.read(path)
    lap("read")
    mosaicvi.FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"}, batch_key="batch")
    lap("setup")
    model = mosaicvi.FactorVI(mdata, n_factors=n_factors, seed=seed)
    lap("build")
    result = model.train(accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    lap("train")
    factors = model.get_latent_representation()
    lap("embed")
    found["n_cells"], found["n_factors"] = factors.shape
    found["n_features"] = {name: int(part.n_vars) for name, part in mdata.mod.items()}
    found["epochs"] = result.n_epochs
    n_training = len(model.train_indices_)
    found["train_cells_per_s"] = result.n_epochs * n_training / found["train_s"]
    found["embed_cells_per_s"] = mdata.n_obs / found["embed_s"]
    parts = ("read", "setup", "build", "train", "embed")
    found["whole_s"] = sum(found[f"{name}_s"] for name in parts)
    found["whole_cpu_s"] = sum(found[f"{name}_cpu_s"] for name in parts)
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--place", default="disk", choices=("disk", "memory"))
    parser.add_argument("--factors", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.stdout.write(json.dumps(measure(given.path, given.place, given.factors, given.seed)) + "\n")


if __name__ == "__main__":
    main()
