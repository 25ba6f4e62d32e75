"""Where the time of a fit goes: ``python -m tests.benchmarks.profile_fit --help``.

Prints processor seconds of building a model, milliseconds a training step by part, and seconds of
the whole fit. No time is asserted anywhere; ``docs/developer/profile.md`` shows what it printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from mosaicvi.bm._imputation import Imputation
from mosaicvi.bm._input import BATCH
from mosaicvi.data import MultiDataset
from mosaicvi.model import MosaicVI
from mosaicvi.module._mosaic_module import MosaicModule
from mosaicvi.module._objective import Objective
from mosaicvi.nn._decoder import Decoder
from mosaicvi.nn._encoder import Encoder
from mosaicvi.train._plan import MosaicTrainingPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARTS: tuple[tuple[str, object, str], ...] = (
    ("minibatch", MultiDataset, "fetch"),
    ("encoders", Encoder, "forward"),
    ("decoders", Decoder, "forward"),
    ("likelihoods", MosaicModule, "score"),
    ("other terms", Objective, "__call__"),
    ("backward", torch.Tensor, "backward"),
    ("gradient clipping", MosaicTrainingPlan, "configure_gradient_clipping"),
    ("optimiser", torch.optim.AdamW, "step"),
    ("validation", MosaicTrainingPlan, "validation_step"),
)
"""Name of a part, and the function in which it happens; the time of a part is its own, without
that of the parts that it calls."""


class Clock:
    """Processor and wall seconds of nested parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._stack: list[str] = ["Lightning, logging, the rest"]
        self._since = time.process_time()

    def _charge(self) -> None:
        now = time.process_time()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Charge the time inside to ``name``; what is inside validation stays validation's."""
        self._charge()
        self._stack.append("validation" if "validation" in self._stack else name)
        self.calls[name] += 1
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def wrap(self, owner: Any, attribute: str, name: str) -> None:
        """Have a function charge its time."""
        function: Callable[..., Any] = getattr(owner, attribute)

        def timed(*args: Any, **kwargs: Any) -> Any:
            # The optimiser's step runs forward and backward inside itself, as Lightning's closure.
            if name == "optimiser" and len(args) > 1:
                closure = args[1]
                args = (args[0], lambda: self._paused(closure), *args[2:])
            with self.part(name):
                return function(*args, **kwargs)

        setattr(owner, attribute, timed)

    def _paused(self, closure: Callable[[], Any]) -> Any:
        with self.part(self._stack[0]):
            return closure()


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")


def main() -> None:
    """Print the table, and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="pbmc10k_cite", help="a data set of the benchmark")
    parser.add_argument("--hide", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=None, help="default: a whole fit")
    parser.add_argument("--threads", type=int, default=None, help="default: torch's own number")
    parser.add_argument("--plan", type=json.loads, default={}, help="plan_kwargs, as JSON")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--whole", action="store_true", help="seconds of the fit only")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    task = Imputation(data=arguments.data, hide=arguments.hide).task(arguments.seed).public
    MosaicVI.setup_mudata(task.mdata, modalities=task.likelihoods, batch_key=BATCH)
    before = time.process_time(), time.perf_counter()
    model = MosaicVI(task.mdata, seed=arguments.seed)
    built = time.process_time(), time.perf_counter()
    clock = Clock()
    if not arguments.whole:
        for name, owner, attribute in PARTS:
            clock.wrap(owner, attribute, name)
    with clock.part("Lightning, logging, the rest"):
        result = model.train(
            arguments.epochs,
            batch_size=arguments.batch_size,
            enable_progress_bar=False,
            plan_kwargs=arguments.plan,
        )
    after = time.process_time(), time.perf_counter()
    n_steps = clock.calls["backward"]
    for name, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        if n_steps:
            say(f"{name:32} {1000 * seconds / n_steps:7.2f} ms a step")
    record = {
        "threads": torch.get_num_threads(),
        "epochs": result.n_epochs,
        "best": result.best_epoch,
        "validation": float(result.history["validation_loss"].min().iloc[0]),
        "build_cpu": built[0] - before[0],
        "build_wall": built[1] - before[1],
        "train_cpu": after[0] - built[0],
        "train_wall": after[1] - built[1],
    }
    say(json.dumps({k: round(v, 4) for k, v in record.items()}))


if __name__ == "__main__":
    main()
