"""The contract of a timed method."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch

from mosaicvi._errors import RequestError
from mosaicvi.bm._method import BaseMethod
from mosaicvi.bm._speed_input import Epoch, Lap, SpeedInput, Times
from mosaicvi.bm.timed._clock import now

WARM_UP = 1
"""Epochs that are not timed: first calls allocate, compile and fill caches."""


class Timed(BaseMethod[SpeedInput, Times]):
    """One model whose training is timed.

    Parameters
    ----------
    task
        Data, and what to time.
    """

    packages: ClassVar[tuple[str, ...]] = ("scvi-tools", "torch")
    default_batch_size = 128

    @abstractmethod
    def prepare(self) -> None:
        """Bring the data into the form that the method's users have them in; not timed."""

    @abstractmethod
    def build(self) -> None:
        """From data to a model that can be trained."""

    @abstractmethod
    def train(self, epochs: int) -> tuple[list[Epoch], int, int]:
        """Train that many epochs; each of them that was timed, and steps and cells of one."""

    @abstractmethod
    def train_by_default(self) -> int:
        """Train as the method does by default; the number of epochs it took."""

    def whole(self) -> int:
        """A fit at the method's defaults, the model included; its epochs."""
        self.build()
        return self.train_by_default()

    @property
    def batch_size(self) -> int:
        """Cells of a minibatch."""
        return self.task.timing.batch_size or self.default_batch_size

    @property
    def accelerator(self) -> str:
        """Lightning's name of the device."""
        return "gpu" if self.task.timing.device == "cuda" else "cpu"

    def parts(self) -> dict[str, float]:
        """Parts of a step, of methods that can say."""
        return {}

    def fit(self) -> None:
        """Time everything that is asked for."""
        timing = self.task.timing
        on_gpu = timing.device == "cuda"
        if on_gpu and not torch.cuda.is_available():
            raise RequestError(
                "torch sees no CUDA device", key="device", expected="cpu, or a machine with a GPU"
            )
        self.prepare()
        start = now()
        self.build()
        self._build = now() - start
        epochs, self._n_steps, self._n_cells = self.train(WARM_UP + timing.epochs)
        self._epochs = epochs[-timing.epochs :]
        self._parts = self.parts() if timing.parts else {}
        self._whole: tuple[Lap, int] | None = None
        if timing.whole:
            start = now()
            n_epochs = self.whole()
            self._whole = now() - start, n_epochs
        self._device_mib = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None

    def predict(self) -> dict[str, Times]:
        """Hand over what was timed."""
        whole, n_epochs = self._whole or (None, None)
        times = Times(
            build=self._build,
            epochs=self._epochs,
            n_cells=self._n_cells,
            batch_size=self.batch_size,
            n_steps=self._n_steps,
            whole=whole,
            whole_epochs=n_epochs,
            parts=self._parts,
            device_mib=self._device_mib,
        )
        return {"": times}

    def details(self) -> dict[str, Any]:
        """Size of a minibatch, steps of an epoch, and every timed epoch."""
        return {
            "batch_size": self.batch_size,
            "n_steps": self._n_steps,
            "epochs": [[e.train.wall, e.train.cpu, e.validation.wall, e.validation.cpu]
                       for e in self._epochs],
        }  # fmt: skip
