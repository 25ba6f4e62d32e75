"""What a method sees of a factor task, and what it answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi.bm._load import quiet_mudata, read

if TYPE_CHECKING:
    from pathlib import Path

    from mudata import MuData
    from numpy.typing import NDArray

_DATA, _SETTINGS = "input.h5mu", "input.json"
_WEIGHTS, _PREDICTION, _CELLS = "weights:", "prediction:", "cells"


@dataclass(frozen=True)
class FactorInput:
    """Cells by several modalities.

    Parameters
    ----------
    mdata
        The data: counts or continuous values in ``X``.
    likelihoods
        Likelihood of each modality.
    n_factors
        Factors to start with.
    seed
        Seed of the method.
    options
        Settings of this run of the method.
    wanted
        Modality -> cells whose values are to be predicted from all that they have; some lack the
        modality.
    """

    mdata: MuData
    likelihoods: dict[str, str]
    n_factors: int
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    wanted: dict[str, list[str]] = field(default_factory=dict)

    def rows(self, modality: str) -> NDArray[np.int64]:
        """Rows in ``mdata`` of the cells whose values are wanted."""
        return np.asarray(self.mdata.obs_names.get_indexer(self.wanted[modality]))

    def write(self, folder: Path) -> None:
        """Write to a folder, for :meth:`read`."""
        settings = {
            "likelihoods": self.likelihoods,
            "n_factors": self.n_factors,
            "seed": self.seed,
            "options": self.options,
            "wanted": self.wanted,
        }
        (folder / _SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
        with quiet_mudata():
            self.mdata.write_h5mu(folder / _DATA)

    @classmethod
    def read(cls, folder: Path) -> FactorInput:
        """Read what :meth:`write` wrote."""
        settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        return cls(mdata=read(folder / _DATA), **settings)


@dataclass(frozen=True)
class FactorAnswer:
    """Factors of cells, where each acts, and what follows for the values of cells.

    Parameters
    ----------
    factors
        Shape ``(n_cells, n_found)``.
    activity
        Which factor acts in which modality, bool ``(n_found, n_modalities)``.
    weights
        Modality -> weights, shape ``(n_features, n_found)``.
    predictions
        Modality -> predicted means of the wanted cells, ``(n_wanted, n_features)``: for counts up
        to a factor a cell (only shares are scored), else values.
    cells
        Names of the cells, ``(n_cells,)``, by which answers to different tasks are compared; empty
        where nobody asked.
    """

    factors: NDArray[np.float64]
    activity: NDArray[np.bool_]
    weights: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    predictions: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    cells: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, dtype=np.str_))

    def write(self, path: Path) -> None:
        """Write as ``.npz``."""
        tables: dict[str, Any] = {"factors": self.factors, "activity": self.activity}
        tables[_CELLS] = np.asarray(self.cells, dtype=np.str_)
        for stem, parts in ((_WEIGHTS, self.weights), (_PREDICTION, self.predictions)):
            tables |= {stem + name: np.asarray(t, np.float32) for name, t in parts.items()}
        np.savez(path, **tables)

    @classmethod
    def read(cls, path: Path) -> FactorAnswer:
        """Read what :meth:`write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            weights, predictions = (
                {key.removeprefix(stem): file[key] for key in file.files if key.startswith(stem)}
                for stem in (_WEIGHTS, _PREDICTION)
            )
            cells = file[_CELLS] if _CELLS in file.files else np.zeros(0, dtype=np.str_)
            return cls(file["factors"], file["activity"], weights, predictions, cells)
