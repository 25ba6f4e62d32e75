"""Train on an atlas for a fixed number of steps: ``python tests/benchmarks/atlas_speed.py PATH``.

Each file and place (disk, memory) is a process of its own, so that its largest resident set is its
own. Prints a row each: seconds of setup and construction, cells a second of the loader alone and of
training, without the wait for the first minibatch, which is apart; resident set. With ``--cold``
the file's pages are dropped from the cache before loading and again before training.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from itertools import islice
from pathlib import Path
from typing import Any


def clock() -> Any:
    """A callback that notes when each training step ended."""
    from lightning.pytorch import Callback

    class StepClock(Callback):
        def __init__(self) -> None:
            self.ends = [time.perf_counter()]
            self.processor = [time.process_time()]

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            self.ends, self.processor = [time.perf_counter()], [time.process_time()]

        def on_train_batch_end(self, *given: Any) -> None:
            self.ends.append(time.perf_counter())
            self.processor.append(time.process_time())

    return StepClock()


def measure(
    path: Path, place: str, steps: int, batch_size: int, *, cold: bool = False
) -> dict[str, Any]:
    """Set up, build, load and train; run in a process of its own."""
    warnings.simplefilter("ignore")
    import mudata

    import mosaicvi
    from mosaicvi.data import MosaicDataModule

    found: dict[str, Any] = {"file": path.name, "place": place}
    start = [time.perf_counter(), time.process_time()]

    def lap(name: str) -> float:
        now = [time.perf_counter(), time.process_time()]
        found[f"{name}_s"], found[f"{name}_cpu_s"] = now[0] - start[0], now[1] - start[1]
        found[f"{name}_peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stderr.write(f"{path.name}, {place}: {name} {found[f'{name}_cpu_s']:.1f} s\n")
        start[:] = now
        return float(found[f"{name}_s"])

    if place == "disk":
        mdata = mosaicvi.read_lazy(path)
    else:
        mdata = mudata.read_zarr(path) if path.suffix == ".zarr" else mudata.read(path)
    lap("read")
    mosaicvi.MosaicVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"}, batch_key="batch")
    lap("setup")
    model = mosaicvi.MosaicVI(mdata)
    lap("build")
    prepared = model._cells(None)
    lap("project")
    found["rss_built_mib"] = _resident()
    modules = MosaicDataModule(
        prepared.data, prepared.dataset.encoder_inputs, batch_size=batch_size
    )
    found["cold"] = cold
    if cold:
        _drop_cache(path)
        lap("drop")
    n_cells = sum(batch.n_cells for batch in islice(modules.train_dataloader(), steps))
    found["loader_cells_per_s"] = n_cells / lap("load")
    found["loader_cpu_ms_a_cell"] = 1000 * found["load_cpu_s"] / n_cells
    found["loader_cells"] = n_cells
    if cold:
        _drop_cache(path)
    steps_seen = clock()
    start[:] = [time.perf_counter(), time.process_time()]
    model.train(
        1,
        batch_size=batch_size,
        limit_train_batches=steps,
        limit_val_batches=0,
        accelerator="cpu",
        enable_progress_bar=False,
        callbacks=[steps_seen],
    )
    lap("train")
    ends, processor = steps_seen.ends, steps_seen.processor
    found["train_steps"], found["first_step_s"] = len(ends) - 1, ends[1] - ends[0]
    found["train_cells_per_s"] = batch_size * (len(ends) - 2) / (ends[-1] - ends[1])
    found["step_cpu_s"] = (processor[-1] - processor[1]) / (len(ends) - 2)
    model.get_latent_representation()
    lap("latent")
    found["n_cells"] = mdata.n_obs
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["blocks"] = None if modules.blocks is None else vars(modules.blocks)
    return found


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _drop_cache(path: Path) -> None:
    """Ask the kernel to forget a file's or store's pages, so that it is read from the disk."""
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    for each in files:
        handle = os.open(each, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--places", default="disk,memory")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--cold", action="store_true", help="read files that are in no cache")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        row = measure(given.paths[0], given.places, given.steps, given.batch_size, cold=given.cold)
        sys.stdout.write(json.dumps(row) + "\n")
        return
    for path in given.paths:
        for place in given.places.split(","):
            options = ["--cold"] if given.cold else []
            options += ["--steps", str(given.steps), "--batch-size", str(given.batch_size)]
            command = [sys.executable, __file__, str(path), "--worker", "--places", place, *options]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                sys.stderr.write(done.stderr[-3000:])
            sys.stdout.write(done.stdout)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
