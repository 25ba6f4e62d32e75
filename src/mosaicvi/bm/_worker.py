"""One method on one task: ``python -m mosaicvi.bm._worker FOLDER COMPARISON METHOD``.

A process of its own. The folder holds what the method may see; its answers and a small report are
written beside it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from importlib import metadata
from pathlib import Path

from mosaicvi.bm._input import REPORT, prediction_path
from mosaicvi.bm._kits import KITS


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MiB.

    Linux hands the parent's peak down in ``ru_maxrss`` when a process is started, so the kernel's
    own high-water mark of this address space is read where there is one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def processor_time() -> float:
    """Seconds of processor time of this process and of the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def work(folder: Path, comparison: str, method: str) -> None:
    """Fit, predict, write predictions and report.

    ``fit_cpu`` are seconds of processor time, which other work on the machine does not inflate, of
    this process and the ones that the method starts; the memory at the start is that of the
    imported packages and the input.
    """
    kit = KITS[comparison]
    runner = kit.method(method)(kit.read(folder))
    start_memory = peak_memory()
    start, start_cpu = time.perf_counter(), processor_time()
    runner.fit()
    fitted, fitted_cpu = time.perf_counter(), processor_time()
    predictions = runner.predict()
    predicted = time.perf_counter()
    for variant, prediction in predictions.items():
        prediction.write(prediction_path(folder, variant))
    report = {
        "variants": list(predictions),
        "kind": runner.kind,
        "seconds": {
            "fit": fitted - start,
            "predict": predicted - fitted,
            "fit_cpu": fitted_cpu - start_cpu,
        },
        "peak_memory_mib": peak_memory(),
        "start_memory_mib": start_memory,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "details": runner.details(),
        "versions": {name: metadata.version(name) for name in ("numpy", *runner.packages)},
    }
    (folder / REPORT).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
