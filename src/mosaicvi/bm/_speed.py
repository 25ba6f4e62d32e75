"""The comparison of speed: the same cells, one process a method and size."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mosaicvi import graph
from mosaicvi._errors import RequestError
from mosaicvi.bm._alignment import FRAGMENTS
from mosaicvi.bm._alignment_input import AlignmentInput
from mosaicvi.bm._cells import bare_tables, cell_table, likelihood_of
from mosaicvi.bm._graphs import build_graph
from mosaicvi.bm._input import BATCH, REPORT, prediction_path
from mosaicvi.bm._load import check_modalities, combine, load
from mosaicvi.bm._speed_data import simulated_tables
from mosaicvi.bm._speed_input import SpeedInput, Times, Timing

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

PROTEIN_DENSITY = 0.7
"""Share of a simulated antibody panel's entries above zero."""


@dataclass(frozen=True)
class SpeedTask:
    """One size and seed. See :class:`mosaicvi.bm.Task`."""

    public: SpeedInput
    density: dict[str, float]

    def write_input(
        self, folder: Path, *, options: dict[str, Any], method: str = "", name: str = ""
    ) -> None:
        """Write data and what to time; graph and all, since every method sees the same."""
        del method, name
        SpeedInput(self.public.given.given(options=options), self.public.timing).write(folder)

    def score(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Read the times that the worker left."""
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return {
            variant: Times.read(prediction_path(folder, variant)).scores()
            for variant in report["variants"]
        }

    def describe(self) -> dict[str, Any]:
        """Numbers of cells and features, and densities."""
        mdata = self.public.given.mdata
        return {
            "n_cells": {name: int(part.n_obs) for name, part in mdata.mod.items()},
            "n_features": {name: int(part.n_vars) for name, part in mdata.mod.items()},
            "density": self.density,
            "n_edges": self.public.given.graph.n_edges,
        }


@dataclass(frozen=True)
class Speed:
    """Time training on data of one size.

    Parameters
    ----------
    timing
        What to time.
    data
        Dataset name or ``.h5mu`` file, of which cells that hold both modalities are taken; None:
        simulated.
    modalities
        First and second modality.
    n_cells
        Cells; None: all of the data, 5,000 simulated ones.
    n_features, density
        Features and share of entries above zero of each simulated modality.
    missing
        Share of simulated cells that lack the second modality.
    unpaired
        Cells bear another name in each modality, and methods get the feature graph.
    assembly
        Assembly of the peaks, for the graph.
    likelihoods
        Likelihood of a modality, where it is not the default.
    """

    timing: Timing = field(default_factory=Timing)
    data: str | None = None
    modalities: tuple[str, str] = ("rna", "protein")
    n_cells: int | None = None
    n_features: tuple[int, int] = (4000, 100)
    density: tuple[float, float] = (0.08, PROTEIN_DENSITY)
    missing: float = 0.0
    unpaired: bool = False
    assembly: str | None = None
    likelihoods: dict[str, str] = field(default_factory=dict)

    name = "speed"

    def __post_init__(self) -> None:
        sizes = [self.n_cells or 1, *self.n_features, self.timing.epochs]
        if min(sizes) < 1 or not all(0 < each <= 1 for each in self.density):
            raise RequestError(
                f"sizes {sizes}, densities {self.density}",
                key="speed",
                expected="positive sizes, and densities above 0, at most 1",
            )
        if not 0.0 <= self.missing < 1.0:
            raise RequestError(f"{self.missing}", key="missing", expected="0 to below 1")

    @property
    def setting(self) -> str:
        """Data, sizes and what differs within a grid."""
        first, second = self.modalities
        if self.data is not None:
            parts = [self.data if self.n_cells is None else f"{self.data} {self.n_cells} cells"]
        else:
            parts = [
                f"{self.n_cells or 5000} cells x {self.n_features[0]} {first} at "
                f"{self.density[0]:g} + {self.n_features[1]} {second} at {self.density[1]:g}"
            ]
        parts += ["unpaired"] if self.unpaired else []
        parts += [f"{self.missing:g} lack {second}"] if self.missing else []
        parts += [] if self.timing.batch_size is None else [f"minibatch {self.timing.batch_size}"]
        return ", ".join([*parts, self.timing.device])

    def describe(self) -> dict[str, Any]:
        """Every setting; goes into the record."""
        return asdict(self)

    def task(self, seed: int) -> SpeedTask:
        """Draw the cells of a seed.

        Raises
        ------
        RequestError
            If no cell of the data has both modalities.
        """
        tables, batches, links = self._read(seed)
        if self.unpaired:
            tables, batches = _apart(tables, batches, seed)
        mdata = combine(tables, batches)
        given = AlignmentInput(mdata, self.modalities, links, self.chosen_likelihoods, seed)
        density = {name: each.X.nnz / (each.n_obs * each.n_vars) for name, each in tables.items()}
        return SpeedTask(SpeedInput(given, self.timing), density)

    @property
    def chosen_likelihoods(self) -> dict[str, str]:
        """Likelihood of both modalities: as asked for, else the default of their names."""
        chosen = {**FRAGMENTS, **self.likelihoods}
        return {name: likelihood_of(name, chosen) for name in self.modalities}

    def _read(self, seed: int) -> tuple[dict[str, AnnData], pd.DataFrame, graph.FeatureGraph]:
        """Tables of cells that have both modalities (simulated: as asked), batches, graph."""
        if self.data is None:
            tables = self._simulated(seed)
            names = tables[self.modalities[0]].obs_names
            return tables, pd.DataFrame({BATCH: "simulated"}, index=names), self._links(tables)
        tables, batches, links = self._loaded
        first, second = (tables[name].obs_names for name in self.modalities)
        both = first.intersection(second, sort=False)
        if not len(both):
            raise RequestError(
                f"no cell of {self.data!r} has both modalities", key="data", expected="paired cells"
            )
        if self.n_cells is not None and self.n_cells < len(both):
            rng = np.random.default_rng(seed)
            both = both[np.sort(rng.choice(len(both), self.n_cells, replace=False))]
        return {name: table[both].copy() for name, table in tables.items()}, batches, links

    @cached_property
    def _loaded(self) -> tuple[dict[str, AnnData], pd.DataFrame, graph.FeatureGraph]:
        data = str(self.data)
        mdata = load(data)
        check_modalities(mdata, self.modalities, data, option="--modalities")
        kind = "auto" if self.unpaired else "none"
        links = build_graph(mdata, self.modalities, kind, data=data, assembly=self.assembly)
        obs = cell_table(mdata, data, BATCH, None)
        return bare_tables(mdata, self.chosen_likelihoods), obs[[BATCH]].astype(str), links

    def _simulated(self, seed: int) -> dict[str, AnnData]:
        pairs = zip(self.n_features, self.density, strict=True)
        sizes = dict(zip(self.modalities, pairs, strict=True))
        return simulated_tables(self.n_cells or 5000, sizes, self.missing, seed)

    def _links(self, tables: dict[str, AnnData]) -> graph.FeatureGraph:
        """Simulated unpaired cells: each feature of the second modality belongs to one gene."""
        first, second = self.modalities
        features = {name: table.var_names for name, table in tables.items()}
        if not self.unpaired:
            return graph.FeatureGraph(features)
        genes = np.resize(np.asarray(features[first]), len(features[second]))
        cells = pd.DataFrame(index=tables[first].obs_names)
        table = pd.DataFrame({first: genes, second: features[second]})
        return graph.from_table(combine(tables, cells), table, first, second)


def _apart(
    tables: dict[str, AnnData], batches: pd.DataFrame, seed: int
) -> tuple[dict[str, AnnData], pd.DataFrame]:
    """The same cells under other names and in another order in each modality."""
    rng, found, parts = np.random.default_rng(seed), {}, []
    for name, table in tables.items():
        mixed = table[rng.permutation(table.n_obs)].copy()
        own = batches.loc[mixed.obs_names, [BATCH]]
        mixed.obs_names = own.index = pd.Index([f"{name}:{i}" for i in range(mixed.n_obs)])
        found[name] = mixed
        parts.append(own)
    return found, pd.concat(parts)
