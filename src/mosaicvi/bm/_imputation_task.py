"""One split of the imputation comparison: what methods see, and what only the scores see."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mosaicvi.bm._input import REPORT, ImputationInput, Prediction, prediction_path
from mosaicvi.bm._score import Truth, score
from mosaicvi.bm.methods import UNPAIRED

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class ImputationTask:
    """One split. See :class:`mosaicvi.bm.Task`.

    Parameters
    ----------
    public
        What methods see.
    truth
        What only the scores see.
    told
        The public part with the pairs, for methods that cannot do without; None where the public
        part has them.
    """

    public: ImputationInput
    truth: Truth
    told: ImputationInput | None = None

    def write_input(
        self, folder: Path, *, options: dict[str, Any], method: str = "", name: str = ""
    ) -> None:
        """Write the public part; where pairs are hidden, a method that needs them is told."""
        del name
        given = self.public if self.told is None or method in UNPAIRED else self.told
        given.with_options(options).write(folder)

    def score(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Score each variant that the worker left."""
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return {
            variant: score(Prediction.read(prediction_path(folder, variant)), self.truth)
            for variant in report["variants"]
        }

    def describe(self) -> dict[str, Any]:
        """Numbers of cells and features."""
        return {
            "n_cells": int(self.public.mdata.n_obs),
            "n_paired": len(self.public.paired),
            "n_target": self.public.mdata.mod[self.public.target].n_obs,
            "n_query": len(self.public.query),
            "features": list(self.public.features),
            "n_types": len(set(self.truth.types)),
        }
