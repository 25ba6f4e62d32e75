"""What a method sees of an imputation task: a folder with the data and the settings."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from mosaicvi.bm._graphs import GRAPH_FILE, read_graph, write_graph
from mosaicvi.bm._load import quiet_mudata, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mudata import MuData
    from numpy.typing import NDArray

    from mosaicvi.graph import FeatureGraph

BATCH = "batch"
TYPE = "type"
NO_TYPE = "unknown"
REPORT = "report.json"
"""File in which a worker says how it went."""
_DATA, _SETTINGS = "input.h5mu", "input.json"


def prediction_path(folder: Path, variant: str) -> Path:
    """File of the predictions of a variant of a method."""
    return folder / (f"prediction-{variant}.npz" if variant else "prediction.npz")


@dataclass(frozen=True)
class ImputationInput:
    """Training cells, and query cells without their target.

    Parameters
    ----------
    mdata
        All cells that a method may see: training cells, paired unless the comparison is of unpaired
        cells, query cells in the source modality only, and whatever mosaic cells the data hold.
        ``X`` are counts; ``obs["batch"]`` and ``obs["type"]`` are always there ("unknown" for
        cells without a type).
    source, target
        Modality to impute from, and modality to impute.
    query
        Names of the cells to impute, in the order of the answer.
    likelihoods
        Likelihood of each modality, for methods that have one.
    seed
        Seed of the method.
    n_draws
        Draws of the predictive distribution to return.
    options
        Settings of this run of the method, as typed on the command line.
    graph
        Which features of source and target belong together, where no cell has both; else None.
    ceiling
        Whether these are pairs that other methods of the comparison are not told.
    """

    mdata: MuData
    source: str
    target: str
    query: tuple[str, ...]
    likelihoods: dict[str, str]
    seed: int
    n_draws: int
    options: dict[str, Any] = field(default_factory=dict)
    graph: FeatureGraph | None = None
    ceiling: bool = False

    @cached_property
    def paired(self) -> tuple[str, ...]:
        """Names of the training cells that have both modalities, in the data's order."""
        target = set(self.mdata.mod[self.target].obs_names)
        return tuple(n for n in self.mdata.mod[self.source].obs_names if n in target)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the target's features, in the order of the answer."""
        return tuple(self.mdata.mod[self.target].var_names)

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the training cells that have the target, in the data's order."""
        return tuple(self.mdata.mod[self.target].obs_names)

    def counts(self, modality: str, cells: Sequence[str]) -> sp.csr_matrix:
        """Counts of some cells, ``(n_cells, n_features)``, float32."""
        table = self.mdata.mod[modality]
        rows = table.obs_names.get_indexer(list(cells))
        return sp.csr_matrix(table.X, dtype=np.float32)[rows]

    def target_log1p(self, cells: Sequence[str]) -> NDArray[np.float64]:
        """log1p of the target's counts, dense, ``(n_cells, n_features)``."""
        return np.log1p(np.asarray(self.counts(self.target, cells).toarray(), dtype=np.float64))

    def labels(self, key: str, cells: Sequence[str]) -> NDArray[np.str_]:
        """``obs["batch"]`` or ``obs["type"]`` of some cells, shape ``(n_cells,)``."""
        return np.asarray(self.mdata.obs.loc[list(cells), key].to_numpy().astype(str))

    def with_options(self, options: dict[str, Any]) -> ImputationInput:
        """Return the same task with the options of a method."""
        return replace(self, options=options)

    def write(self, folder: Path) -> None:
        """Write to a folder, for :meth:`read`."""
        settings = {
            "source": self.source,
            "target": self.target,
            "query": list(self.query),
            "likelihoods": self.likelihoods,
            "seed": self.seed,
            "n_draws": self.n_draws,
            "options": self.options,
            "ceiling": self.ceiling,
        }
        if self.graph is not None:
            write_graph(self.graph, folder)
        (folder / _SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
        with quiet_mudata():
            self.mdata.write_h5mu(folder / _DATA)

    @classmethod
    def read(cls, folder: Path) -> ImputationInput:
        """Read what :meth:`write` wrote."""
        settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        mdata = read(folder / _DATA)
        settings["query"] = tuple(settings["query"])
        modalities = settings["source"], settings["target"]
        linked = (folder / GRAPH_FILE).is_file()
        graph = read_graph(folder, mdata, modalities) if linked else None
        return cls(mdata=mdata, graph=graph, **settings)


@dataclass(frozen=True)
class Prediction:
    """What a method answers.

    Parameters
    ----------
    draws
        Draws of the predictive distribution on the scale of counts (not necessarily integers),
        shape ``(n_draws, n_query, n_features)``, finite, at least 0.
    log1p_mean
        Point prediction of log1p, shape ``(n_query, n_features)``; None: the mean of log1p over
        the draws, which minimises the squared error on that scale.
    """

    draws: NDArray[np.float32]
    log1p_mean: NDArray[np.float64] | None = None

    @property
    def mean(self) -> NDArray[np.float64]:
        """Point prediction of log1p, shape ``(n_query, n_features)``."""
        if self.log1p_mean is not None:
            return self.log1p_mean
        return np.asarray(np.log1p(self.draws).mean(axis=0, dtype=np.float64))

    def write(self, path: Path) -> None:
        """Write as ``.npz``."""
        np.savez(path, draws=self.draws.astype(np.float32), log1p_mean=self.mean)

    @classmethod
    def read(cls, path: Path) -> Prediction:
        """Read what :meth:`write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["draws"], file["log1p_mean"])
